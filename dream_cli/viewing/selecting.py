"""The selection of records of a file: by id or by an SQL condition on the views, sorted by an expression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dream_cli.errors import NoMatch, UsageError
from dream_cli.records.record import Record, unreadable
from dream_cli.records.streams import RowReader
from dream_cli.records.strict_json import loads
from dream_cli.viewing.shapes import literal
from dream_cli.viewing.tables import Tables, one_line

QUERY_SECONDS = 60.0  # time limit of the user's SQL, which may never finish
_BATCH = 16
# A record matches if one of its combinations of an observation and a response does.
_TOGETHER = """records LEFT JOIN (SELECT * EXCLUDE (id) FROM observations) AS observations USING (n)
    LEFT JOIN (SELECT * EXCLUDE (id) FROM responses) AS responses USING (n)"""


@dataclass(frozen=True)
class Selection:
    """A selection of records: `where` and `sort` are SQL on the views; a leading minus sorts in descending order."""

    id: str | None = None
    where: str | None = None
    sort: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether the records are neither restricted nor sorted."""
        return self == Selection()


def choose(tables: Tables, selection: Selection) -> int:
    """Select records for `fetch`; return their number.

    Raises UsageError where the SQL fails or is more than one SELECT, and NoMatch where no record has the id.
    """
    query = _query(tables, selection)
    check_query(tables, query)
    tables.run(f"CREATE OR REPLACE TEMP TABLE chosen AS {query}", seconds=QUERY_SECONDS)
    count = int(tables.query("SELECT count(*) FROM chosen")[0][0])
    if not count and selection.id is not None:
        also = " and matches" if selection.where else ""
        raise NoMatch(f"no record of {tables.shown} has the id {selection.id!r}{also}; --sql 'select id from records' lists the ids")
    return count


def _query(tables: Tables, selection: Selection) -> str:
    if selection.is_everything:
        return f"SELECT n, n AS place FROM ({tables.source()})"
    conditions = [f"records.id = {literal(selection.id)}"] if selection.id is not None else []
    # The line break ends a comment at the end of the condition.
    conditions += [f"({selection.where}\n)"] if selection.where else []
    last = (selection.sort or "").startswith("-")
    # If a record has several values, it is sorted by the one that comes first.
    key = f"{'max' if last else 'min'}({(selection.sort or '').removeprefix('-') or 'NULL'}\n)"
    source = _TOGETHER if selection.where or selection.sort else "records"
    matched = f"SELECT n, {key} AS key FROM {source} WHERE {' AND '.join(conditions) or 'true'} GROUP BY n"
    return f"SELECT n, row_number() OVER (ORDER BY key {'DESC' if last else 'ASC'} NULLS LAST, n) AS place FROM ({matched})"


def check_query(tables: Tables, sql: str) -> None:
    """Raise UsageError unless the SQL is one statement that only reads."""
    import duckdb

    try:
        kinds = [statement.type for statement in tables.con.extract_statements(sql)]
    except duckdb.Error as error:
        raise UsageError(f"{tables.shown}: {one_line(str(error))}") from None
    except ValueError:
        kinds = []  # a kind of statement that the Python binding of DuckDB has no name for, such as UPDATE EXTENSIONS
    if len(kinds) != 1 or kinds[0] not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise UsageError("only one SELECT statement is run; dream view reads files and never writes them")


def fetch(tables: Tables, limit: int | None = None, offset: int = 0) -> Iterator[tuple[int, Record]]:
    """Yield (row number, record) of the selected records in order, with the pictures embedded in Parquet."""
    places = f"place > {offset}" + ("" if limit is None else f" AND place <= {offset + limit}")
    some = f"SELECT n, place, n - 1 AS file_row_number FROM chosen WHERE {places}"
    reader = RowReader(tables.shown, tables.base, tables.reading)
    if tables.cut is not None:
        yield from ((n, tables.cut.record(n, reader)) for (n,) in tables.query(f"SELECT n FROM ({some}) ORDER BY place"))
        return
    if tables.columns:
        from dream_cli.records.parquet import to_json

        # Joined on the reader's own row number, so that DuckDB skips row groups without a chosen row.
        query = f"SELECT c.n, f.* FROM ({tables.reader()}) f JOIN ({some}) c USING (file_row_number) ORDER BY c.place"
    else:
        query = f"SELECT c.n, f.doc FROM ({tables.source()}) f JOIN ({some}) c USING (n) ORDER BY c.place"
    names, rows = tables.run(query, _BATCH)
    for n, *cells in rows:
        if tables.columns:
            columns = {name: cell for name, cell in zip(names[1:], cells, strict=True) if name != "file_row_number"}
            yield n, reader.record(to_json(columns), n)
            continue
        try:
            raw, problem = loads(cells[0])
            record = reader.record(raw, n, problem)
        except (TypeError, ValueError):
            record = unreadable(tables.shown, n, f"{tables.shown}: row {n} is not JSON")
        yield n, record

"""A file of records as SQL: the views `records`, `observations` and `responses`, which DuckDB reads directly from the file.

Rows are numbered `n` from 1, in the order of the file. A line that is not a JSON object has no field except its number.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from dream_cli.errors import UsageError, with_extra
from dream_cli.records.access import Base
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.streams import MAX_LINE, base_of
from dream_cli.viewing import shapes
from dream_cli.viewing.cut_rows import CutRows, cut_rows, has_long_text
from dream_cli.viewing.shapes import KNOWN, identifier, literal
from dream_cli.viewing.spooling import file_of, spooled_records

# The number of first rows whose other fields become columns.
SAMPLED = 2048
# The longest row that DuckDB reads from a JSONL file by default, in bytes.
_LONGEST = 16 * 1024 * 1024
_OURS = {*KNOWN, "images", "extra", "n", "doc", "file_row_number"}
_TYPED = {"BIGINT": "DOUBLE", "UBIGINT": "DOUBLE", "DOUBLE": "DOUBLE", "BOOLEAN": "BOOLEAN", "VARCHAR": "VARCHAR"}
_KEYS = """SELECT key, mode(json_type(doc, '/' || replace(replace(key, '~', '~0'), '/', '~1'))) FROM (
    SELECT doc, unnest(json_keys(doc)) AS key FROM ({source} LIMIT {n}) WHERE json_type(doc) = 'OBJECT'
) GROUP BY key ORDER BY count(*) DESC, key"""


_HINTS = {
    "Out of Memory": "; its rows are too large for a query, keep images in files",
    "maximum_object_size": f"; no line may be longer than {MAX_LINE // 2**20} MB, keep images in files",
    "Referenced column": "; write texts in single quotes: 'Privacy'",
}


@dataclass
class Tables:
    """An open file: its connection, its name in messages, the base of relative image paths, the column types of a Parquet file."""

    con: Any
    worker: ThreadPoolExecutor
    path: str
    shown: str
    base: Base
    columns: Mapping[str, Any] = field(default_factory=dict)
    reading: Reading = DEFAULT_READING
    cut: CutRows | None = None
    in_doc: frozenset[str] | None = None  # all keys of `doc`, once the whole file has been read
    _sampled: dict[str, str] | None = None

    @property
    def has_extra(self) -> bool:
        """Whether fields without a column of their own are in the column `extra`, as JSON."""
        return "extra" in self.columns and self.columns["extra"].id == "varchar"

    @property
    def nested(self) -> list[str]:
        """The columns of a Parquet file that hold lists or objects."""
        return [column for column, kind in self.columns.items() if shapes.kind_of(kind) in ("list", "object")]

    @cached_property
    def embedded(self) -> Mapping[str, tuple[int, int]]:
        """The columns of a Parquet file that embed pictures, with their number and compressed size, read from its footer."""
        n, size = "sum(num_values - coalesce(stats_null_count, 0))::BIGINT", "sum(total_compressed_size)::BIGINT"
        leaves = f"FROM parquet_metadata({literal(self.path)}) WHERE path_in_schema LIKE '%, bytes' GROUP BY 1 HAVING {n} > 0"
        rows = self.query(f"SELECT split_part(path_in_schema, ', ', 1), {n}, {size} {leaves}") if self.columns else []
        return {column: (pictures, taken) for column, pictures, taken in rows if column in self.columns}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return list(self.run(sql)[1])

    def run(self, sql: str, batch: int = 1024, seconds: float | None = None) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Return the columns of a query, and its rows, fetched in batches.

        Raises UsageError where DuckDB rejects the query, or where the query or a batch takes longer than `seconds`.
        """
        cursor = self._waited(seconds, self.con.execute, sql)
        rows = chain.from_iterable(iter(lambda: self._waited(seconds, cursor.fetchmany, batch), []))
        return [column[0] for column in cursor.description or ()], rows

    def _waited(self, seconds: float | None, work: Callable[..., Any], *args: Any) -> Any:
        """Return the result of a DuckDB call; its errors are re-raised as a one-line UsageError."""
        import duckdb

        try:
            return _interruptible(self.worker, self.con, lambda: work(*args), seconds)
        except TimeoutError:
            raise UsageError(f"{self.shown}: the SQL takes longer than {seconds:g} s and was stopped; select fewer rows first") from None
        except duckdb.Error as error:
            hint = next((hint for symptom, hint in _HINTS.items() if symptom in str(error)), "")
            raise UsageError(f"{self.shown}: {one_line(str(error))}{hint}") from None

    def reader(self) -> str:
        """Return the query for the columns of a Parquet file, with `file_row_number` from 0."""
        return f"SELECT * FROM read_parquet({literal(self.path)}, file_row_number=true)"

    def source(self) -> str:
        """Return the query for the unchanged file: `n`, `doc` (JSON, NULL where the row is not JSON) and the columns of a Parquet file."""
        if self.columns:
            doc = "CASE WHEN json_valid(extra) THEN extra END" if self.has_extra else "NULL::VARCHAR"
            return f"SELECT file_row_number + 1 AS n, {doc} AS doc, * FROM ({self.reader()})"
        form = "format='array'" if self.path.lower().endswith(".json") else "format='newline_delimited', ignore_errors=true"
        packed = ", compression='gzip'" if self.path.lower().endswith(".gz") else ""
        # DuckDB allocates several buffers of twice this size.
        longest = MAX_LINE if self.path.lower().endswith(".json") else max(_LONGEST, self.cut.longest + 1 if self.cut else 0)
        reading = f"read_json_objects({literal(self.path)}, {form}{packed}, maximum_object_size={longest})"
        return f"SELECT row_number() OVER () AS n, json AS doc FROM {reading}"

    def rows(self, *parts: str, also: Mapping[str, str] | None = None) -> str:
        """Return the query for `n`, `doc`, the named known parts, and `also`, further expressions over the source's columns.

        No other part is read or parsed.
        """
        of_doc = {part: KNOWN[part] for part in parts if part not in self.columns and self._may_be_in_doc(part)}
        read = f", json_transform(doc, {literal(json.dumps(of_doc))}) AS t" if of_doc else ""
        named = {part: self._part(part) for part in parts}
        if "prompt" in named and (other := self.further().get(self.reading.prompt_column or "")):
            named["prompt"] = f"COALESCE(CAST({other} AS VARCHAR), {named['prompt']})"
        named |= also or {}
        columns = "".join(f", {expression} AS {identifier(column)}" for column, expression in named.items())
        return f"SELECT n, doc{columns} FROM (SELECT *{read} FROM ({self.source()}))"

    def _may_be_in_doc(self, part: str) -> bool:
        return (not self.columns or self.has_extra) and (self.in_doc is None or part in self.in_doc)

    def _part(self, part: str) -> str:
        if part not in self.columns:
            of_t = shapes.RESPONSES_OF_DOC if part == "responses" else f"t.{part}"
            return of_t if self._may_be_in_doc(part) else f"NULL::{shapes.sql_type(KNOWN[part])}"
        column = shapes.of_column(part, self.columns[part])
        if not self._may_be_in_doc(part):
            return column
        # A value that does not fit its column is in `extra`.
        return f"COALESCE({column}, json_transform(doc, {literal(json.dumps({part: KNOWN[part]}))}).{part})"

    def keys(self) -> dict[str, str]:
        """Return the keys of `doc` in the first rows, each with its most frequent JSON type."""
        if self._sampled is None:
            self._sampled = dict(self.query(_KEYS.format(source=self.source(), n=SAMPLED))) if not self.columns or self.has_extra else {}
        return self._sampled

    def further(self) -> dict[str, str]:
        """Return the unknown fields of the first rows, each with the expression that reads it."""
        of_docs = {}
        for key, kind in self.keys().items():
            at, typed = literal(shapes.pointer(key)), _TYPED.get(kind)
            text = f"doc->>{at}" if typed == "VARCHAR" else f"TRY_CAST(doc->>{at} AS {typed})"
            # Lists, objects and mixed fields stay JSON.
            of_docs[key] = f"doc->{at}" if typed is None else text
        fields = of_docs | {column: identifier(column) for column in self.columns}
        # Names in SQL are case-insensitive: the first of several spellings is used.
        first = {key.casefold(): key for key in reversed(fields)}
        return {key: read for key, read in fields.items() if key and first[key.casefold()] == key and key.casefold() not in _OURS}

    def images(self) -> str:
        """Return the expression for a record's images as a list of texts; for embedded pictures only the names."""
        listed = [self._images_of(name) for name in self.image_columns]
        return f"COALESCE({', '.join(f'CASE WHEN len({images}) > 0 THEN {images} END' for images in listed)}, {listed[-1]})"

    @property
    def image_columns(self) -> tuple[str, ...]:
        """The columns that may hold a record's images; the first that is not empty is used."""
        named = self.reading.image_column
        return ("images", "image") if named is None else tuple(dict.fromkeys((named, "images", "image")))

    def _images_of(self, name: str) -> str:
        kind = self.columns.get(name)
        if kind is None:
            at = f"doc->{literal(shapes.pointer(name))}"
            whole = (
                f"CASE WHEN json_type({at}) IN ('VARCHAR', 'OBJECT') THEN [json_extract_string(doc, {literal(shapes.pointer(name))})] END"
            )
            return f"COALESCE({whole}, json_transform({at}, '[\"VARCHAR\"]'))"
        item = kind.children[0][1] if kind.id == "list" else kind
        has_path = item.id == "struct" and "path" in dict(item.children)
        named = "i.path" if has_path else "NULL::VARCHAR" if "BLOB" in str(item) else "CAST(i AS VARCHAR)"
        column = identifier(name)
        return f"[{named} for i in {column if kind.id == 'list' else f'CASE WHEN {column} IS NOT NULL THEN [{column}] END'}]"

    def make_views(self) -> None:
        """Create the views for the user's SQL."""
        further = self.further()
        names = "".join(f", {identifier(key)}" for key in further)
        records = self.rows("id", "prompt", "messages", "error", also={"images": self.images()} | further)
        observed = self.rows("id", "messages", "observations")
        answered = self.rows("id", "messages", "response", "responses")
        judged = ", ".join(f"r.judgement.{part}" for part in ("rubric", *shapes.SCORES, "unscored"))
        self.run(
            f"CREATE OR REPLACE TEMP VIEW records AS SELECT n, id, {shapes.PROMPT} AS prompt, images, error{names}, doc FROM ({records})"
        )
        self.run(
            f"CREATE OR REPLACE TEMP VIEW observations AS SELECT n, id, {', '.join(f'o.{part}' for part in shapes.OBSERVATION)} "
            f"FROM (SELECT n, id, unnest({shapes.OBSERVATIONS}) AS o FROM ({observed}))"
        )
        self.run(
            f"CREATE OR REPLACE TEMP VIEW responses AS SELECT n, id, r.text, r.model, r.finish_reason, {judged}, r.judgement.model AS judge "
            f"FROM (SELECT n, id, unnest({shapes.RESPONSES}) AS r FROM ({answered}))"
        )


@contextmanager
def open_tables(source: str | None, reading: Reading = DEFAULT_READING) -> Iterator[Tables]:
    """Open a file, or stdin, for queries; raise UsageError where it cannot be read.

    The connection can read no other file, write none, and reach no network.
    """
    try:
        import duckdb
    except ImportError:
        raise UsageError(f"reading files in queries needs duckdb, which is not installed; {with_extra('view')}") from None
    with ExitStack() as stack:
        path = stack.enter_context(file_of(source))
        worker = ThreadPoolExecutor(1)
        stack.callback(worker.shutdown, wait=False)
        if path.lower().endswith(".json") and (has_long_text(path) or not _is_array(duckdb, worker, path)):
            path = stack.enter_context(spooled_records(path))
        cut = stack.enter_context(cut_rows(path)) if path.lower().endswith((".jsonl", ".jsonl.gz")) else None
        path = path if cut is None else cut.path
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="dream-", ignore_cleanup_errors=True))
        con = stack.enter_context(_connected(duckdb, scratch))
        con.execute("SET enable_progress_bar = false")
        con.execute("SET parquet_metadata_cache = true")
        # The user's SQL runs on this connection: it may only read this file, and it cannot change these settings.
        con.execute(f"SET allowed_paths = [{literal(path)}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        shown = source if source and source != "-" else "stdin"
        tables = Tables(con=con, worker=worker, path=path, shown=shown, base=base_of(source, reading), reading=reading, cut=cut)
        if path.lower().endswith(".parquet"):
            from dream_cli.records.parquet import check_columns

            check_columns(path)
            described = tables.query(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet({literal(path)}))")
            tables.columns = {name: con.sqltype(kind) for name, kind in described}
        yield tables


# Each thread has buffers of its own: with one thread per core of a large machine, ordinary files would not fit into the memory.
_SETTINGS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "memory_limit": "800MB", "threads": "2"}


def _interruptible(worker: ThreadPoolExecutor, con: Any, work: Callable[[], Any], seconds: float | None = None) -> Any:
    """Run work on a connection in a worker thread, so that Ctrl-C can interrupt it: a DuckDB call blocks its thread until it ends.

    Raises TimeoutError after `seconds`.
    """
    running = worker.submit(work)
    try:
        return running.result(seconds)
    except KeyboardInterrupt:
        con.interrupt()
        raise
    except TimeoutError:
        con.interrupt()
        # Most queries then end at once, and the connection is free for the next one.
        wait([running], timeout=5)
        raise


@contextmanager
def _connected(duckdb: Any, scratch: str) -> Iterator[Any]:
    """Yield a connection and close it; not after Ctrl-C, because closing waits for the query, and some queries ignore an interrupt."""
    con = duckdb.connect(":memory:", config=_SETTINGS | {"temp_directory": scratch})
    try:
        yield con
    except KeyboardInterrupt:
        raise
    except BaseException:
        # A query that was stopped by the time limit may still be running.
        with suppress(duckdb.Error):
            con.close()
        raise
    con.close()


def _is_array(duckdb: Any, worker: ThreadPoolExecutor, path: str) -> bool:
    """Whether a JSON file is one complete array."""
    with duckdb.connect(":memory:", config=_SETTINGS) as con:
        try:
            count = f"SELECT count(json) FROM read_json_objects({literal(path)}, format='array')"
            _interruptible(worker, con, lambda: con.execute(count))
        except duckdb.Error:
            return False
    return True


def one_line(message: str) -> str:
    """Return the first paragraph of a DuckDB message as one line, without its excerpt of the SQL."""
    lines = [line.strip() for line in message.split("\n\n")[0].splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith(("LINE ", "^")))

"""The outputs of `dream view`: a summary, records, a gallery, or the rows of a query; as text or as JSON lines."""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import Any

from dream_cli.errors import UsageError
from dream_cli.records.atomic import as_usage_error, replacing
from dream_cli.records.columns import absent_columns, unread
from dream_cli.records.outputs import open_writer
from dream_cli.records.strict_json import dumps
from dream_cli.viewing.cut_rows import KEPT, LONG
from dream_cli.viewing.image_counts import unread_column
from dream_cli.viewing.printing import NARROWEST_RECORD, console, print_rows, print_summary
from dream_cli.viewing.record_printing import print_record
from dream_cli.viewing.selecting import QUERY_SECONDS, Selection, check_query, choose, fetch
from dream_cli.viewing.summary import summarise
from dream_cli.viewing.tables import Tables
from dream_cli.viewing.terminal_images import shower

SHOWN = 10
GALLERY = 500
ROWS_SHOWN = 1000


def check_options(selection: Selection, limit: int | None, sql: str | None, html: str | None, port: int | None, as_json: bool) -> None:
    """Raise UsageError for options that exclude each other."""
    if sql is not None and (limit is not None or not selection.is_everything):
        raise UsageError("--sql selects its own rows; leave out --limit, --id, --where and --sort, or write them in the SQL")
    if port is not None and limit is not None:
        raise UsageError("--port shows every record, page by page; leave out --limit")
    outputs = [flag for flag, given in (("--sql", sql), ("--html", html), ("--port", port is not None), ("--json", as_json)) if given]
    if len(outputs) > 1 and outputs != ["--sql", "--json"]:
        raise UsageError(f"{' and '.join(outputs)} are different outputs; give one of them")


def show_summary(tables: Tables, as_json: bool) -> None:
    """Print the summary of a file."""
    summary = summarise(tables)
    if summary.rows:
        sys.stderr.write(absent_columns(tables.reading, tables.columns.keys() | tables.keys(), tables.shown))
    column = None if summary.images.n else unread_column(tables)
    if column is not None:
        sys.stderr.write(unread(tables.shown, column))
    print_json(summary.to_dict()) if as_json else print_summary(summary)


def show(tables: Tables, selection: Selection, limit: int | None, as_json: bool, images: bool | None) -> None:
    """Print records: without a limit the first ten, as JSON all of them."""
    tables.make_views()
    count = choose(tables, selection)
    records = fetch(tables, limit if limit is not None or as_json else SHOWN)
    if as_json:
        with open_writer(None) as writer:
            for _, record in records:
                writer.write(record)
        return
    out, draw = console(NARROWEST_RECORD), shower(images)
    for n, record in records:
        print_record(out, n, record, draw)
    if count > (limit or SHOWN):
        sys.stderr.write(f"dream view: {limit or SHOWN:,} of {count:,} records; more with --limit\n")
    if not count:
        sys.stderr.write("dream view: no record matches\n")


def write_gallery(tables: Tables, selection: Selection, limit: int | None, out: str) -> None:
    """Write records as one HTML file; raise UsageError where it cannot be written."""
    from dream_cli.viewing.html.record_page import page, shown_records

    tables.make_views()
    with replacing(out) as file, as_usage_error(out):
        count = choose(tables, selection)
        items = shown_records(fetch(tables, limit or GALLERY))
        file.write(page(os.path.basename(tables.shown), items, count).encode("utf-8", "backslashreplace"))
    if count > len(items):
        sys.stderr.write(f"dream view: {out} has {len(items):,} of {count:,} records; more with --limit, page by page with --port\n")


def show_query(tables: Tables, sql: str, as_json: bool) -> None:
    """Print the rows of an SQL query; raise UsageError where it is not a single SELECT."""
    tables.make_views()
    check_query(tables, sql)
    names, rows = tables.run(sql, seconds=QUERY_SECONDS)
    if tables.cut is not None:
        sys.stderr.write(
            f"dream view: in SQL, inline images are cut to {KEPT // 1024} kB, and texts of rows of more than {LONG // 1024} kB to that length; "
            "records are shown whole\n"
        )
    if as_json:
        for row in rows:
            print_json(dict(zip(names, row, strict=True)))
        return
    print_rows(names, list(islice(rows, ROWS_SHOWN)))
    if next(rows, None):
        sys.stderr.write(f"dream view: the first {ROWS_SHOWN:,} rows; all of them with --json\n")


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.buffer.write(dumps(value) + b"\n")

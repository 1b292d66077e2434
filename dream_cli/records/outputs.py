"""Outputs of records: JSONL, gzipped JSONL, a JSON array or Parquet, written one record at a time; files are written atomically."""

from __future__ import annotations

import gzip
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Protocol, cast

from dream_cli.records.atomic import as_usage_error, check_place, replacing
from dream_cli.records.image_paths import without_bytes
from dream_cli.records.image_rows import ImageRows
from dream_cli.records.parts import each_part_image
from dream_cli.records.record import Json, Record
from dream_cli.records.remote import is_url
from dream_cli.records.streams import suffix_of
from dream_cli.records.strict_json import dumps, plain_dumps
from dream_cli.records.visible import amount

# A record as an output holds it: a line of JSON, or a JSON object for Parquet.
Row = bytes | Json


class Writer(Protocol):
    """A sink of records, which are written one at a time, in order."""

    def write(self, record: Record) -> None:
        """Write one record; raise UsageError where the disk is full or permission is missing."""

    def row(self, record: Record) -> Row:
        """Return a record as the row that `write_row` takes, for rows that wait before they are written."""

    def write_row(self, row: Row) -> None:
        """Write one row; raise UsageError as `write` does."""


class Sink(Protocol):
    """A writer of rows in one format to an open file; images are paths or `{bytes, path}`."""

    def write(self, row: Json) -> None:
        """Write one row."""

    def close(self) -> None:
        """Write the rows that are still buffered."""


class _Output:
    """A writer of records to a sink of rows."""

    def __init__(self, sink: Sink, name: str, rows: ImageRows) -> None:
        self.sink, self.rows, self.guard = sink, rows, as_usage_error(name)
        # Looked up once: the check of an abstract class takes a while.
        self.lines = sink if isinstance(sink, _Lines) else None
        # Parquet has one column for the images and one for the prompt, with their types.
        self.renamed = name.lower().endswith(".parquet")

    def write(self, record: Record) -> None:
        self.write_row(self.row(record))

    def row(self, record: Record) -> Row:
        row = self.rows.row(record.renamed() if self.renamed else record)
        return row if self.lines is None else _line(row)

    def write_row(self, row: Row) -> None:
        with self.guard:
            if self.lines is None:
                self.sink.write(cast("Json", row))
            else:
                self.lines.write_line(cast("bytes", row))


@contextmanager
def open_writer(out: str | None) -> Iterator[Writer]:
    """Open a file in the format of its suffix, or stdout, for records; a file appears complete at the end or not at all.

    Raises UsageError for a file that cannot be written; a closed pipe on stdout raises BrokenPipeError.
    """
    with image_rows(out, (out or "").lower().endswith(".parquet")) as rows:
        with open_sink(out, sink_of) as sink:
            yield _Output(sink, "stdout" if rows.folder is None else str(out), rows)
        if rows.left:
            sys.stderr.write(
                f"dream: {out}: {amount(rows.left, 'image', 'are')} not embedded and stay as given; the first: {rows.first_left}\n"
            )


@contextmanager
def image_rows(out: str | None, embed: bool = False) -> Iterator[ImageRows]:
    """Yield the converter from records to rows of an output (None or -: stdout); record the origin of its images at the end."""
    folder = folder_of(out)
    rows = ImageRows(1 if folder is None else os.path.realpath(str(out)), folder, embed)
    try:
        yield rows
    finally:
        rows.note_origins()


@contextmanager
def open_sink(out: str | None, make: Callable[[str, IO[bytes], str], Sink]) -> Iterator[Sink]:
    """Open a file for rows of any format, or stdout for JSON; `make` takes the name, the open file and its folder."""
    folder = folder_of(out)
    if out is None or out == "-":
        yield _JsonLines(sys.stdout.buffer, flush=True)
        return
    with replacing(out) as file:
        sink = make(out, file, folder or "")
        try:
            yield sink
        except BaseException:
            # The sink must close the file before it is removed; an error from closing would only hide the first.
            with suppress(Exception):
                sink.close()
            raise
        with as_usage_error(out):
            sink.close()


def folder_of(out: str | None) -> str | None:
    """Return the folder that image paths in an output are relative to; None for stdout and URLs, where they are absolute."""
    return None if out is None or out == "-" or is_url(out) else os.path.realpath(os.path.dirname(out))


def sink_of(out: str, file: IO[bytes], folder: str) -> Sink:
    """Return the sink for a file by its suffix; raise UsageError for an unknown one."""
    suffix = ".jsonl" if out == os.devnull else suffix_of(out)
    if suffix == ".parquet":
        from dream_cli.records.parquet import ParquetRows

        return ParquetRows(file)
    lines: dict[str, Callable[[IO[bytes]], Sink]] = {".jsonl": _JsonLines, ".jsonl.gz": _GzipLines, ".json": _JsonArray}
    return lines[suffix](file)


def check_out(out: str | None) -> None:
    """Raise UsageError where records cannot be written to this path."""
    if out is not None and out not in ("-", os.devnull):
        suffix_of(out)
        check_place(out)


class _Lines(ABC):
    """A sink whose rows are lines of JSON."""

    def write(self, row: Json) -> None:
        self.write_line(_line(row))

    @abstractmethod
    def write_line(self, line: bytes) -> None:
        """Write one encoded row."""


class _JsonLines(_Lines):
    def __init__(self, file: IO[bytes], *, flush: bool = False) -> None:
        self.file, self.flush = file, flush

    def write_line(self, line: bytes) -> None:
        self.file.write(line + b"\n")
        if self.flush:
            self.file.flush()

    def close(self) -> None:
        self.file.flush()


class _GzipLines(_JsonLines):
    def __init__(self, file: IO[bytes]) -> None:
        # No name and no time in the gzip header: equal rows give equal files.
        super().__init__(cast("IO[bytes]", gzip.GzipFile("", "wb", fileobj=file, mtime=0)))

    def close(self) -> None:
        self.file.close()


class _JsonArray(_Lines):
    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.before = file, b"[\n"

    def write_line(self, line: bytes) -> None:
        self.file.write(self.before + line)
        self.before = b",\n"

    def close(self) -> None:
        self.file.write(b"[]\n" if self.before == b"[\n" else b"\n]\n")


def _line(row: Json) -> bytes:
    # A row with bytes in it is not plain.
    line = plain_dumps(row)
    return dumps(_without_bytes(row)) if line is None else line


def _without_bytes(row: Json) -> Json:
    """Return a row whose embedded images ({bytes, path}), in columns and messages, are `data:` URIs."""
    if isinstance(row.get("messages"), list):
        row = row | {"messages": each_part_image(row["messages"], without_bytes)}
    return {
        name: [without_bytes(item) for item in value] if isinstance(value, list) else without_bytes(value) for name, value in row.items()
    }

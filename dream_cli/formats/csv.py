"""CSV: the first line names the columns; a text is its cell, every other value is JSON in its cell."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from dream_cli.errors import UsageError
from dream_cli.records.record import Failure, Json, Record
from dream_cli.records.streams import MAX_LINE, RowReader
from dream_cli.records.strict_json import dumps

# The first rows decide the columns; a field that first occurs later goes into a last column as JSON.
_HEAD = 1000
_MORE = "extra"
# Cells of these columns are never read as JSON: an answer may well be `7` or `null`.
_TEXTS = {"prompt", "response", "chosen", "rejected", "instruction", "input", "output", "question"}


def read_csv(source: str, rows: RowReader) -> Iterator[Record]:
    """Yield the records of a CSV file, read by `rows`; raise UsageError for a file without columns."""
    csv.field_size_limit(MAX_LINE)
    # A byte that is not UTF-8 becomes a lone surrogate, so that one bad cell is an error of its row and not of the file.
    with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        columns = next(lines, [])
        if not any(columns) or len(set(columns)) < len(columns):
            raise UsageError(
                f"{source}: the first line of a CSV file names its columns, each once; this one has {', '.join(map(repr, columns)) or 'none'}"
            )
        for number, cells in enumerate(lines, 2):
            if not cells:
                continue
            row = {name: _value(name, cell) for name, cell in zip(columns, cells, strict=False) if cell != ""}
            if len(cells) > len(columns):
                message = f"{rows.name}:{number}: {len(cells)} cells in {len(columns)} columns; put a cell with a comma in quotes"
                yield Record(error=Failure("read", "unreadable", message), extra=row | {"cells": cells}, order=(*row, "cells"))
                continue
            more = row.pop(_MORE, None)
            yield rows.record(row | (more if isinstance(more, dict) else {} if more is None else {_MORE: more}), number)


def _value(name: str, cell: str) -> Any:
    """Return a cell as the JSON value it holds, a text where it is not JSON; for a column of texts only a text or messages are JSON."""
    if cell[:1] not in '"[{' and name in _TEXTS:
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    # 1.50 and 1e3 stay texts: written again as numbers they would read 1.5 and 1000.0.
    same = dumps(value).decode() == cell or isinstance(value, str)
    messages = value if isinstance(value, list) else [value]
    fits = name not in _TEXTS or isinstance(value, str) or (bool(messages) and all(isinstance(message, dict) for message in messages))
    return value if same and fits else cell


def _cell(name: str, value: Any) -> str:
    if value is None and name in _TEXTS:
        return ""
    if isinstance(value, str) and value != "" and _is_utf8(value) and _value(name, value) == value:
        return value
    return json.dumps(value) if isinstance(value, str) and not _is_utf8(value) else dumps(value).decode()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class CsvRows:
    """A writer of rows to a CSV file, with the fields of the first thousand rows as its columns."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        # The line end of RFC 4180: with it the writer also quotes a lone carriage return, which the reader would take for the end of the row.
        self.lines = csv.writer(self.file, lineterminator="\r\n")
        self.columns: dict[str, None] = {}
        self.head: list[Json] | None = []

    def write(self, row: Json) -> None:
        """Write one row."""
        if self.head is None:
            self._line(row)
            return
        self.head.append(row)
        self.columns |= dict.fromkeys(row)
        if len(self.head) >= _HEAD:
            self._begin()

    def close(self) -> None:
        """Write the rows that are still buffered; the file stays open."""
        if self.head is not None:
            self._begin()
        self.file.detach()

    def _begin(self) -> None:
        rows, self.head = self.head or [], None
        self.columns.pop(_MORE, None)
        self.lines.writerow([*self.columns, _MORE])
        for row in rows:
            self._line(row)

    def _line(self, row: Mapping[str, Any]) -> None:
        more = {name: value for name, value in row.items() if name not in self.columns}
        cells = [_cell(name, row[name]) if name in row else "" for name in self.columns]
        self.lines.writerow([*cells, dumps(more).decode() if more else ""])

"""CSV: the first line names the columns; a cell holds a text unchanged, any other value as JSON.

Cells are separated by commas, or by semicolons, tabs or vertical bars where the first line has no comma.
Tab-separated files (.tsv) of VLMEvalKit are read in the same way: a cell of images may be a Python list, or the `index` of the row that
holds the images.
"""

from __future__ import annotations

import csv
import io
import json
import re
import string
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, Any

from dream_cli.errors import UsageError
from dream_cli.records.failure import Failure
from dream_cli.records.literals import chat
from dream_cli.records.record import Json, Record, unreadable
from dream_cli.records.streams import MAX_LINE, RowReader
from dream_cli.records.strict_json import dumps

# The first rows determine the columns; a field that first occurs later is written into a last column as JSON.
_HEAD = 1000
_MORE = "extra"
# Cells of these columns are never read as JSON: an answer may be `7` or `null`.
_TEXTS = {"prompt", "response", "chosen", "rejected", "instruction", "input", "output", "question"}
# Columns that hold a text, or messages.
_CHATS = {"prompt", "chosen", "rejected", "conversation"}
_CHOICES = {"hint", "answer", *string.ascii_uppercase}
# The images of VLMEvalKit are longer in base64; a shorter cell names the row that holds them.
_LONGEST_INDEX = 64
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
# The line before the names of the columns with which Excel states the delimiter.
_STATED = re.compile(r"sep=(.)\r?\n?")
# The marks at the start of UTF-16, as bytes that are not UTF-8.
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")


def read_csv(source: str, rows: RowReader) -> Iterator[Record]:
    """Yield the records of a CSV file, read by `rows`; raise UsageError for a file without columns."""
    # A byte that is not UTF-8 becomes a lone surrogate, so that one bad cell is an error of its row, not of the whole file.
    with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter, spaced = _delimiter(source, file)
        lines = _rows(_Lines((0, line) for line in file), delimiter, spaced)
        columns = _columns(source, lines)
        for number, _, cells in lines:
            if isinstance(cells, str):
                yield unreadable(rows.name, number, f"{rows.name}:{number}: {cells}")
                continue
            row = {name: _value(name, cell) for name, cell in zip(columns, cells, strict=False) if cell != ""}
            if len(cells) > len(columns):
                message = f"{rows.name}:{number}: {len(cells)} cells in {len(columns)} columns; put a cell with a {_NAMES.get(delimiter, delimiter)} in quotes"
                yield Record(error=Failure("read", "unreadable", message), extra=row | {"cells": cells}, order=(*row, "cells"))
                continue
            more = row.pop(_MORE, None)
            yield rows.record(row | (more if isinstance(more, dict) else {} if more is None else {_MORE: more}), number)


def read_tsv(source: str, rows: RowReader) -> Iterator[Record]:
    """Yield the records of a tab-separated file, read by `rows`; raise UsageError for a file without columns."""
    with open(source, "rb") as file, open(source, "rb") as again:
        places: dict[str, int] = {}
        lines = _rows(_Lines(_placed(file)), "\t")
        columns = _columns(source, lines)
        for number, place, cells in lines:
            if isinstance(cells, str):
                yield unreadable(rows.name, number, f"{rows.name}:{number}: {cells}")
                continue
            if len(cells) > len(columns):
                message = f"{rows.name}:{number}: {len(cells)} cells in {len(columns)} columns; put a cell with a tab in quotes"
                yield Record(error=Failure("read", "unreadable", message), extra={"cells": cells}, order=("cells",))
                continue
            row: Json = {name: cell for name, cell in zip(columns, cells, strict=False) if cell != ""}
            if len(row.get("image", "")) > _LONGEST_INDEX:
                places.setdefault(row.get("index", ""), place)
            elif row.get("image") in places:
                again.seek(places[row["image"]])
                row["image"] = next(csv.reader((line for _, line in _placed(again)), delimiter="\t"))[columns.index("image")]
            yield rows.record({name: _tab_value(name, cell) for name, cell in row.items()}, number)


def _delimiter(source: str, file: IO[str]) -> tuple[str, bool]:
    """Return the delimiter of the first line and whether a space follows it; the file is then at the names of the columns.

    It is a comma if the line has no delimiter; spreadsheets of many countries write semicolons.
    """
    first = file.readline()
    if first[:2] in _UTF_16:
        raise UsageError(f"{source} is UTF-16; save it as UTF-8")
    stated = _STATED.fullmatch(first)
    if stated is None:
        file.seek(0)
    else:
        names = file.tell()
        first = file.readline()
        file.seek(names)
    delimiter = stated[1] if stated else next((delimiter for delimiter in _NAMES if delimiter in first), ",")
    return delimiter, f"{delimiter} " in first


class _Lines:
    """The lines of a file, each with its position; those of a row that cannot be split can be read again."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._again: deque[tuple[int, str]] = deque()
        self.row: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.row.append(line)
        return line[1]

    def repeat_from_second(self) -> None:
        """Give the lines of the current row again, without its first one."""
        self._again.extendleft(reversed(self.row[1:]))


def _rows(lines: _Lines, delimiter: str, spaced: bool = False) -> Iterator[tuple[int, int, list[str] | str]]:
    """Yield the number (from 1), the position and the cells of each non-empty row; a message instead of the cells where they cannot be split.

    With `spaced`, spaces after a delimiter are no part of the cell.
    A quote that is not closed would make all rows up to the next quote one cell: such a line is an error, and the next line begins a row.
    """
    csv.field_size_limit(MAX_LINE)
    number, split = 0, csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)
    while True:
        number += 1
        lines.row.clear()
        try:
            cells = next(split)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, lines.row[0][0], f"not CSV: {error}; a cell holds at most {MAX_LINE // 2**20} MB, and its quotes are closed"
            lines.repeat_from_second()
            split = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)
            continue
        if cells:
            yield number, lines.row[0][0], cells


def _columns(source: str, rows: Iterator[tuple[int, int, list[str] | str]]) -> list[str]:
    """Return the cells of the first line; raise UsageError where they do not name the columns."""
    _, _, columns = next(rows, (1, 0, []))
    if isinstance(columns, str):
        raise UsageError(f"{source}: its first line, which names the columns, is {columns}")
    if not any(columns) or len(set(columns)) < len(columns):
        names = ", ".join(map(repr, columns)) or "none"
        raise UsageError(f"{source}: the first line of a CSV file names its columns, each once; this one has {names}")
    return columns


def _tab_value(name: str, cell: str) -> Any:
    return cell if name in _CHOICES else _value(name, cell)


def _placed(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file from its position on, each with its own position."""
    place = file.tell()
    while line := file.readline():
        yield place, line.decode("utf-8-sig", "surrogateescape")
        place += len(line)


def _value(name: str, cell: str) -> Any:
    """Return a cell as its JSON value, or as text where it is not JSON; in a text column only strings and messages are read as JSON."""
    if cell[:1] not in '"[{' and name in _TEXTS:
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        # A list that pandas writes is Python; columns that are always lists are read with their record.
        return chat(cell) or cell if name in _CHATS else cell
    # 1.50 and 1e3 stay texts: written back as numbers they would become 1.5 and 1000.0.
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
        # The line end of RFC 4180: with it the writer also quotes a lone carriage return, which the reader would read as a row's end.
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

"""A copy of a JSONL file for queries, in which inline images and long texts are cut: DuckDB holds thousands of rows at once in memory.

Rows with half of a surrogate pair, which DuckDB rejects, are copied with U+FFFD in its place. Records are read from the complete file.
"""

from __future__ import annotations

import codecs
import gzip
import os
import re
import tempfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Any

from dream_cli.errors import UsageError
from dream_cli.records.record import Record
from dream_cli.records.streams import MAX_LINE, RowReader, read_line, skip_rest
from dream_cli.records.strict_json import dumps, loads

# The longest row that is copied unchanged, and the longest text of a longer row.
LONG = 256 * 1024
# The length to which an inline image of more than eight times that is cut: a data: URI, or base64 that begins like a picture.
KEPT = 1024
_INLINE_IMAGE = re.compile(
    rb'"((?:data:image\\?/|iVBORw0KGgo|\\?/9j\\?/|R0lGOD|UklGR)[\w+/=;,.\\-]{%d})[\w+/=\\-]{%d,}+"' % (KEPT, 7 * KEPT), re.ASCII
)
# An escaped backslash, a surrogate pair, or (as a group) half of one.
_SURROGATE = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)")


@dataclass(frozen=True)
class CutRows:
    """The copy (`path`) with its longest row in bytes; the complete file with the position of each row."""

    path: str
    longest: int
    complete: str
    starts: array[int]

    def line(self, n: int) -> bytes:
        """Return the complete row `n`, counted from 1; of a row that is too long for a record, the beginning."""
        with open(self.complete, "rb") as file:
            file.seek(self.starts[n - 1])
            return file.readline(MAX_LINE + 1)

    def record(self, n: int, rows: RowReader) -> Record:
        """Return the complete record of row `n`, counted from 1."""
        return read_line(self.line(n), rows, n)


@contextmanager
def cut_rows(path: str) -> Iterator[CutRows | None]:
    """Yield a copy of a JSONL file for queries; None where DuckDB can read the file as it is."""
    try:
        with _opened(path) as file:
            needed = any(map(_is_odd, _lines(file)))
    except (OSError, EOFError, zlib.error):
        needed = False  # DuckDB reports a damaged file
    if not needed:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="dream-") as folder:
        try:
            copied = _copied(path, folder)
        except OSError as error:
            raise UsageError(f"the rows cannot be copied to {folder}: {error.strerror}; name a folder with more space in TMPDIR") from None
        yield copied


def has_long_text(path: str) -> bool:
    """Whether a file has a text or an inline image that is cut for queries."""
    overlap = b""
    with open(path, "rb") as file:
        while chunk := file.read(8 * LONG):
            part = overlap + chunk
            # Not a regular expression: it would start again at each byte of a text that is almost as long.
            if max(map(len, part.split(b'"'))) >= LONG or _INLINE_IMAGE.search(part):
                return True
            overlap = chunk[-LONG:]
    return False


def _copied(path: str, folder: str) -> CutRows:
    packed = path.lower().endswith(".gz")
    complete, starts, at, longest = os.path.join(folder, "complete.jsonl") if packed else path, array("Q"), 0, 0
    with ExitStack() as stack:
        file, copy = stack.enter_context(_opened(path)), stack.enter_context(open(os.path.join(folder, "cut.jsonl"), "wb"))
        unpacked = stack.enter_context(open(complete, "wb")) if packed else None
        for line in _lines(file):
            end = at + len(line) if packed else file.tell()
            if unpacked is not None:
                unpacked.write(line)
            if line.strip():
                starts.append(at)
                row = _cut_line(line) if _is_odd(line) else line.rstrip(b"\r\n")
                longest = max(longest, len(row))
                copy.write(row + b"\n")
            at = end
    return CutRows(copy.name, longest, complete, starts)


def _opened(path: str) -> Any:
    return gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file; of a line that is too long for a record only the beginning."""
    for line in takewhile(bool, iter(lambda: file.readline(MAX_LINE + 1), b"")):
        if len(line) > MAX_LINE:
            skip_rest(file, line)
        yield line


def _is_odd(line: bytes) -> bool:
    if len(line) > LONG or _INLINE_IMAGE.search(line):
        return True
    return b"\\u" in line and any(match[1] for match in _SURROGATE.finditer(line))


def _cut_line(line: bytes) -> bytes:
    if len(line) <= MAX_LINE:
        line = _INLINE_IMAGE.sub(lambda match: b'"' + match[1].rstrip(b"\\") + b'"', line)
    if len(line) > LONG:
        try:
            line = b"null" if len(line) > MAX_LINE else dumps(_cut(loads(line.removeprefix(codecs.BOM_UTF8))[0]))
        except ValueError:
            line = b"null"
    return _SURROGATE.sub(lambda match: rb"\ufffd" if match[1] else match[0], line.rstrip(b"\r\n"))


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:LONG]
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return {name: _cut(item) for name, item in value.items()} if isinstance(value, dict) else value

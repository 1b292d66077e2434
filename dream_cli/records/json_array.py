"""The items of a JSON array as texts: each is then read like a line of JSONL, so that a malformed item loses only its own row.

The array is read in chunks: json.load would hold all of it in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

_CHUNK = 1024 * 1024
_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"


def items(file: IO[bytes], longest: int) -> Iterator[bytes | None]:
    """Yield the text of each item of the array at the file's position; None for an item of more than `longest` bytes.

    Bytes after the last complete item are yielded too: the rest of a truncated array, or the text after its end.
    """
    buffer, start, at, depth, is_text, too_long = b"", 0, 0, 0, False, False
    while True:
        mark = (_INSIDE if is_text else _OUTSIDE).search(buffer, at)
        if mark is None:
            # After a backslash at the end of the buffer, `at` is one past it: the next byte, not read yet, is escaped.
            at, rest = max(at, len(buffer)) - start, buffer[start:]
            if len(rest) > longest:
                too_long, at, rest = True, at - len(rest), b""
            chunk = file.read(_CHUNK)
            buffer, start = rest + chunk, 0
            if not chunk:
                break
            continue
        sign, at = mark[0], mark.end()
        if sign == b"\\":
            at += 1
        elif sign == b'"':
            is_text = not is_text
        elif sign in b"[{":
            depth += 1
            start = at if depth == 1 else start
        elif sign in b"]}":
            depth -= 1
        if depth == 0 or (depth == 1 and sign == b","):
            item = buffer[start : at - 1]
            if sign == b"," or item.strip(_SPACE) or too_long:
                yield None if too_long else item
            start, too_long = at, False
        if depth == 0:
            buffer, start = buffer[start:] + file.read(longest), 0
            break
    if too_long or buffer.strip(_SPACE):
        yield None if too_long else buffer

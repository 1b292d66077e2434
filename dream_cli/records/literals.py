"""Lists and objects that a table holds as text: JSON, or the Python that pandas and NumPy write into the cells of a CSV file."""

from __future__ import annotations

import ast
import io
import math
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dream_cli.records.strict_json import is_deep, loads

# Maximum characters of a text that is read as Python: its syntax tree takes many times as much memory.
MAX_LITERAL = 4 * 1024 * 1024
# Fields that are lists in every record or row that has them.
_LISTS = ("messages", "observations", "responses", "conversations")
_SPEAKERS = {"role", "from"}
_OPENING, _CLOSING = ("[", "{"), ("]", "}")


def literal(text: str) -> Any:
    """Return the list or object that a text is, as JSON or Python, with tuples as lists, or the bytes that it is as Python.

    Raises ValueError for any other text.
    """
    if text[:1] not in ("[", "{") and text[:2] not in ("b'", 'b"'):
        raise ValueError("neither a list, nor an object, nor bytes")
    with suppress(ValueError):
        value, problem = loads(text)
        if problem is None:
            return value
    if len(text) > MAX_LITERAL:
        raise ValueError(f"longer than {MAX_LITERAL // 2**20} MB")
    try:
        value = ast.literal_eval(_separated(text))
    except (SyntaxError, tokenize.TokenError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"neither JSON nor Python: {error}") from None
    if is_deep(value):
        raise ValueError("nested too deep")
    return _plain(value)


def listed(value: Any) -> Any:
    """Return the list of a text that is written like one; any other value, and a list that cannot be read, unchanged."""
    with suppress(ValueError):
        return literal(value) if looks_listed(value) else value
    return value


def looks_listed(value: Any) -> bool:
    """Whether a value is a text that is written like a list."""
    return isinstance(value, str) and value[:1] == "[" and value.rstrip()[-1:] == "]"


def unpacked(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose conversations, observations and responses are lists where they are lists written as text."""
    read = {name: listed(row[name]) for name in _LISTS if looks_listed(row.get(name))}
    return row | read if read else row


def chat(text: str) -> list[Any] | None:
    """Return the messages of a text that is a list of them; None for any other text, such as an answer that is a list."""
    value = listed(text)
    is_chat = isinstance(value, list) and value and all(isinstance(item, dict) and item.keys() & _SPEAKERS for item in value)
    return value if is_chat else None


def _separated(text: str) -> str:
    """Return a text with commas between its items: NumPy writes none, and Python would join two strings without one."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    pieces, end = [], 0
    for at in _gaps(text):
        offset = starts[at[0] - 1] + at[1]
        pieces += [text[end:offset], ","]
        end = offset
    return "".join([*pieces, text[end:]])


def _gaps(text: str) -> Iterator[tuple[int, int]]:
    """Yield the line and the column of each item that directly follows another one."""
    after_item = False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE):
            continue
        if after_item and (token.type == tokenize.STRING or token.string in _OPENING):
            yield token.start
        after_item = token.type == tokenize.STRING or (token.type == tokenize.OP and token.string in _CLOSING)


def _plain(value: Any) -> Any:
    """Return a value of Python with tuples as lists; raise ValueError for a value that no record can hold."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _plain(item) for name, item in value.items()}
    if value is None or isinstance(value, str | bytes | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{value!r} is no value of JSON")

"""Strict JSON: values written as one line, and texts read with the first value that strict JSON does not allow."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

# Deeper than any record; deeper nesting overflows the stack of some later reader.
MAX_DEPTH = 100
# Digits of the greatest whole number that is also a float.
_MAX_DIGITS = 309


def loads(text: str) -> tuple[Any, str | None]:
    """Return a JSON value and a message about the first part that is not allowed (None: there is none); such a part is read as null.

    Not allowed are NaN and the infinities, numbers beyond the range of a float, and lists and objects nested deeper than `MAX_DEPTH`;
    for these the whole value is null. Raises ValueError for a text that is not JSON.
    """
    odd: list[str] = []

    def refuse(token: str) -> Any:
        shown = token if len(token) < 20 else f"a number of {len(token)} digits"
        odd.append(f"{shown} is not a JSON value; write null" if token.lstrip("-") in ("NaN", "Infinity") else f"{shown} is out of range")
        return None

    def real(token: str) -> Any:
        value = float(token)
        return value if math.isfinite(value) else refuse(token)

    def whole(token: str) -> Any:
        return int(token) if len(token) < _MAX_DIGITS else refuse(token)

    try:
        value = json.loads(text, parse_constant=refuse, parse_float=real, parse_int=whole)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deep(value):
        return None, f"nested deeper than {MAX_DEPTH} levels"
    return value, odd[0] if odd else None


def is_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, list | dict)
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, list | dict)
        ]
        if not level:
            return False
    return True


def dumps(value: Any) -> bytes:
    """Return a value as one line of strict JSON; values without a JSON type are written as null, base64 or text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_foreign)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=_foreign)
    try:
        return text.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair has no UTF-8; escaped, it is still JSON.
        return json.dumps(json.loads(text)).encode()


def _foreign(value: Any) -> str:
    """Return a value of a Parquet type without a JSON form (binary, times, decimals) as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

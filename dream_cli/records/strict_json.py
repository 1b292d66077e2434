"""Strict JSON: values are written as one line; reading also returns a message about the first part that strict JSON does not allow.

Python's `json` defines the result; two faster libraries do the work, measured on 1.8 KB records. msgspec reads, 2.5 times as fast
(it keeps whole numbers beyond 64 bits exact, which orjson turns into floats), and spaces a line as Python does. orjson writes, 6 times as
fast (it rejects values without a JSON type, which msgspec writes in its own forms). Where they fail or might differ, `json` is used.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import orjson

# Deeper than any record; deeper nesting can overflow the stack of a later reader.
MAX_DEPTH = 100
# Digits of the greatest whole number that is also a float.
_MAX_DIGITS = 309
_MANY_DIGITS = b"0" * (_MAX_DIGITS - 1)
# Every digit as 0, to look for a number that long; a sign is not counted.
_AS_ZERO = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_ANY = msgspec.json.Decoder()
# orjson must reject the types that Python's `json` writes by its own rules.
_REFUSED = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
# Floats below 1e-4 have other digits in Python than in orjson.
_SMALL = re.compile(rb"[0-9]e-[0-9]")


def loads(text: str | bytes) -> tuple[Any, str | None]:
    """Return a JSON value and a message about the first part that is not allowed (None: there is none); such a part is read as null.

    Not allowed are NaN and the infinities, numbers beyond the range of a float, and lists and objects nested deeper than `MAX_DEPTH`;
    for too deep nesting the whole value is null. Raises ValueError for a text that is not JSON, UnicodeDecodeError if it is not UTF-8.
    """
    encoded = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if is_plain(encoded):
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _ANY.decode(encoded), None
    return _python_loads(text.decode() if isinstance(text, bytes) else text)


def is_plain(text: bytes) -> bool:
    """Whether a text certainly has no number of more digits than a float, and no values nested deeper than `MAX_DEPTH`."""
    if len(text) >= _MAX_DIGITS and _MANY_DIGITS in text.translate(_AS_ZERO):
        return False
    return text.count(b"[") + text.count(b"{") <= MAX_DEPTH


def _python_loads(text: str) -> tuple[Any, str | None]:
    problems: list[str] = []

    def reject(token: str) -> Any:
        shown = token if len(token) < 20 else f"a number of {len(token)} digits"
        problems.append(
            f"{shown} is not a JSON value; write null" if token.lstrip("-") in ("NaN", "Infinity") else f"{shown} is out of range"
        )
        return None

    def real(token: str) -> Any:
        value = float(token)
        return value if math.isfinite(value) else reject(token)

    def whole(token: str) -> Any:
        return int(token) if len(token) < _MAX_DIGITS else reject(token)

    try:
        value = json.loads(text, parse_constant=reject, parse_float=real, parse_int=whole)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deep(value):
        return None, f"nested deeper than {MAX_DEPTH} levels"
    return value, problems[0] if problems else None


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
    line = plain_dumps(value)
    return _python_dumps(value) if line is None else line


def plain_dumps(value: Any) -> bytes | None:
    """Return a value as one line of strict JSON; None where a part has no JSON type, or Python would write it differently."""
    try:
        line = orjson.dumps(value, option=_REFUSED)
    except TypeError:
        return None
    if b"0.0000" in line or (b"e-" in line and _SMALL.search(line)):
        return None
    return msgspec.json.format(line, indent=0)


def _python_dumps(value: Any) -> bytes:
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

"""Any value as one line of strict JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any) -> bytes:
    """Return a value as one line of strict JSON; what JSON does not know is written as null, base64 or text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_foreign)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=_foreign)
    try:
        return text.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair has no UTF-8; escaped, it is still JSON.
        return json.dumps(json.loads(text)).encode()


def _foreign(value: Any) -> str:
    """Return what only Parquet knows (binary, times, decimals) as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

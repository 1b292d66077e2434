"""The fields and headers that the user adds to each request to a server, read from options."""

from __future__ import annotations

import json
import re
from typing import Any

from dream_cli.errors import UsageError


def read_body(text: str | None) -> dict[str, Any]:
    """Return the fields that are merged into each request; raise UsageError for other JSON, and for fields that dream sets itself."""
    try:
        fields = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UsageError('--body is not a JSON object, for example \'{"reasoning_effort": "low"}\'')
    if own := sorted({"messages", "model", "n", "stream"} & set(fields)):
        raise UsageError(f"--body cannot set {', '.join(own)}, which dream sets itself")
    return fields


def read_headers(lines: list[str] | None) -> dict[str, str]:
    """Return the headers of lines KEY:VALUE; raise UsageError for any other line, without its value, which may be secret."""
    headers = {}
    for line in lines or ():
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name.strip()) or not value.strip().isprintable():
            raise UsageError(f"--header {name[:20] if colon else '...'!r} is not a header, for example 'X-Project: alignment'")
        headers[name.strip()] = value.strip()
    return headers

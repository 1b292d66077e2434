"""Published decision rules, as data; each file names its source."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def read(name: str) -> dict[str, Any]:
    """Return one file of rules."""
    return dict(json.loads(resources.files(__name__).joinpath(f"{name}.json").read_text("utf-8")))

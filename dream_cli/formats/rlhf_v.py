"""The RLHF-V dialect: pairs with one image, the question and the two answers as JSON in the column `text`.

Source: the columns of https://huggingface.co/datasets/openbmb/RLHF-V-Dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dream_cli.formats import spa_vl
from dream_cli.records.record import Json
from dream_cli.records.strict_json import loads


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    return "" if _texts(row) else "no JSON of 'question', 'chosen' and 'rejected' in 'text'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a pair; other columns are kept as extra fields. Raise InvalidRecord where it is malformed."""
    return spa_vl.read({name: value for name, value in row.items() if name != "text"} | _texts(row))


def _texts(row: Mapping[str, Any]) -> Json:
    text = row.get("text")
    if isinstance(text, str) and text.lstrip().startswith("{"):
        with suppress(ValueError):
            text, problem = loads(text)
            text = None if problem else text
    return dict(text) if isinstance(text, Mapping) and {"question", "chosen", "rejected"} <= text.keys() else {}

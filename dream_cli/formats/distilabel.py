"""The dialect of distilabel: an instruction, the generations of several models, and their ratings.

Source: the columns of its tasks TextGeneration and UltraFeedback (distilabel 1.5). Its pairs are in TRL's dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.reading import other_fields, record_of, row_images
from dream_cli.records.record import Json

# Columns with one value for each generation, and the name of that value in a response.
_EACH = {"generation_models": "model", "model_names": "model", "ratings": "rating", "rationales": "rationale"}


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    fits = isinstance(row.get("instruction"), str) and isinstance(row.get("generations"), list) and not row.get("chosen")
    return "" if fits else "no 'instruction' with 'generations'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record, each generation a response with its model and rating; raise InvalidRecord where it is malformed."""
    messages = [{"role": "user", "content": row["instruction"]}]
    if row.get("system_prompt"):
        messages.insert(0, {"role": "system", "content": str(row["system_prompt"])})
    generations, each = row["generations"], {}
    if not all(isinstance(text, str | None) for text in generations):
        raise InvalidRecord("'generations' is not a list of texts")
    for column, name in _EACH.items():
        if isinstance(row.get(column), list) and len(row[column]) == len(generations):
            each[column] = name
    responses = []
    for i, text in enumerate(generations):
        # A generation that failed is null.
        if text is not None:
            responses.append({"text": text} | {name: row[column][i] for column, name in each.items() if row[column][i] is not None})
    rest = other_fields(row, "instruction", "system_prompt", "generations", "image", "images", *each)
    return record_of(messages, rest, row_images(row), responses=responses)

"""The VLFeedback dialect: a prompt, an image and the rated completions of several models.

Source: the columns of https://huggingface.co/datasets/MMInstruction/VLFeedback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.formats.reading import images_of, other_fields
from dream_cli.records.record import Json


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    return "" if isinstance(row.get("prompt"), str) and _completions(row) else "no 'prompt' with 'completions' that have a 'response' each"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record, the completions as responses with their annotations; raise InvalidRecord where it is malformed."""
    responses = [
        {"text": completion["response"]} | {k: v for k, v in completion.items() if k != "response" and v is not None}
        for completion in _completions(row)
    ]
    images = images_of(row.get("img_path") or None, "img_path")
    record = {"id": row["id"]} if row.get("id") is not None else {}
    record |= {"prompt": row["prompt"]} | ({} if images is None else {"images": images}) | {"responses": responses}
    return record | other_fields(row, "id", "prompt", "img_path", "completions", "images", "image", "responses")


def _completions(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the completions as objects; files of older `datasets` versions hold one object of lists."""
    raw = row.get("completions")
    if isinstance(raw, Mapping):
        columns = {name: values for name, values in raw.items() if isinstance(values, list)}
        raw = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=False)]
    if not isinstance(raw, list) or not all(isinstance(item, Mapping) and isinstance(item.get("response"), str) for item in raw):
        return []
    return raw

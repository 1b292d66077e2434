"""The dialect of FineVision and the Cauldron: `images` with `texts`, a list of {user, assistant}.

Source: the columns of https://huggingface.co/datasets/HuggingFaceM4/FineVision and HuggingFaceM4/the_cauldron.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.reading import other_fields, record_of, row_images
from dream_cli.records.record import Json

_SPEAKERS = ("user", "assistant")


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    texts = row.get("texts")
    fits = isinstance(texts, list) and bool(texts) and all(isinstance(turn, Mapping) and "user" in turn for turn in texts)
    return "" if fits and "prompt" not in row and "messages" not in row else "no list of {user, assistant} in 'texts'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record, each text as two messages; raise InvalidRecord where it is malformed."""
    messages: list[Json] = []
    for i, turn in enumerate(row["texts"]):
        if not all(isinstance(turn.get(role), str) for role in _SPEAKERS):
            raise InvalidRecord(f"texts[{i}] is not {{user, assistant}}, both texts")
        rest = {name: value for name, value in turn.items() if name not in (*_SPEAKERS, "role", "content") and value is not None}
        messages += [{"role": "user", "content": turn["user"]} | rest, {"role": "assistant", "content": turn["assistant"]}]
    return record_of(messages, other_fields(row, "texts", "image", "images"), row_images(row), "\n")

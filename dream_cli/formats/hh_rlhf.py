"""The dialect of HH-RLHF: `chosen` and `rejected` are two dialogues as texts, their turns after `Human:` and `Assistant:`.

Source: the columns of https://huggingface.co/datasets/Anthropic/hh-rlhf.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dream_cli.formats.reading import other_fields, pair_of, row_images
from dream_cli.records.record import Json

_ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_SIDES = ("chosen", "rejected")


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    fits = all(isinstance(row.get(side), str) and row[side].startswith("\n\nHuman:") for side in _SIDES)
    return "" if fits and "prompt" not in row else "no dialogues of 'Human:' and 'Assistant:' in 'chosen' and 'rejected'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed."""
    chosen, rejected = (_messages(row[side]) for side in _SIDES)
    return pair_of(chosen, rejected, other_fields(row, *_SIDES, "image", "images"), row_images(row))


def _messages(text: str) -> list[Json]:
    _, *parts = _TURN.split(text)
    return [{"role": _ROLES[role], "content": content.rstrip()} for role, content in zip(parts[::2], parts[1::2], strict=True)]

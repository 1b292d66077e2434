"""The VLGuard dialect: an image and one or two instructions about it, each with its answer, as one conversation.

Source: the files of https://huggingface.co/datasets/ys-zong/VLGuard. The data of DREAM were derived from it in this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.reading import other_fields, record_of, row_images
from dream_cli.records.record import Json

# Whether an instruction is safe; the instruction of an unsafe image has no prefix.
_SAFE = {"safe_instruction": True, "unsafe_instruction": False, "instruction": False}


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    return "" if isinstance(row.get("instr-resp"), list) else "no 'instr-resp'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a conversation whose prompts are labelled `safe`; raise InvalidRecord where it is malformed."""
    messages: list[Json] = []
    for i, turn in enumerate(row["instr-resp"]):
        # In a data set of typed columns every turn has all instruction fields, null where one is absent.
        name = next((n for n in _SAFE if isinstance(turn, Mapping) and isinstance(turn.get(n), str)), None)
        if name is None:
            raise InvalidRecord(f"instr-resp[{i}] has none of {', '.join(map(repr, _SAFE))}")
        messages.append({"role": "user", "content": turn[name], "safe": _SAFE[name]})
        if isinstance(turn.get("response"), str):
            messages.append({"role": "assistant", "content": turn["response"]})
    if not messages:
        raise InvalidRecord("'instr-resp' holds no instruction")
    return record_of(messages, other_fields(row, "instr-resp", "image", "images"), row_images(row))

"""The TRL dialect: messages; prompt and completion; prompt, chosen and rejected; each with `images`.

Source: the dataset formats of TRL 1.16 (`docs/source/dataset_formats.md`); the vision trainers need the prompt in a column of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.hf_features import IMAGES, MESSAGES, TEXT
from dream_cli.formats.reading import PathsFrom, images_of, messages_of, other_fields, part_images, record_of
from dream_cli.records.record import Json

_OWN = ("messages", "prompt", "completion", "chosen", "rejected", "images", "image")


FEATURES: Mapping[str, Any] = {"id": TEXT, "images": IMAGES} | dict.fromkeys(
    ["messages", "prompt", "completion", "chosen", "rejected"], MESSAGES
)
PATHS: PathsFrom = "absolute"
INLINE = False


def mismatch(row: Mapping[str, Any]) -> str:
    """Return why a row is not in this dialect; empty where it is. Plain messages, or texts alone, are records of ours already."""
    if "completion" in row or isinstance(row.get("prompt"), list) or isinstance(row.get("chosen"), list):
        return ""
    parts = any(isinstance(m, Mapping) and isinstance(m.get("content"), list) for m in row.get("messages") or ())
    return "" if parts else "no 'completion', no list of messages in 'prompt' or 'chosen', no 'messages' in parts"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as one of our records; raise InvalidRecord where it is malformed."""
    images = images_of(row.get("images", row.get("image")), "images")
    if images is None:
        named = [m for name in ("messages", "prompt", "chosen") for m in row.get(name) or () if isinstance(m, Mapping)]
        images = part_images(named) or None
    rest = other_fields(row, *_OWN)
    if row.get("messages") is not None:
        return record_of(messages_of(row["messages"], "messages"), rest, images)
    if row.get("prompt") is None:
        # A pair with an implicit prompt: what both conversations begin with.
        chosen, rejected = (_messages(row.get(name), name, "assistant") for name in ("chosen", "rejected"))
        if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
            raise InvalidRecord("'chosen' and 'rejected' do not begin with the same prompt")
        return record_of(chosen[:-1], rest, images, chosen=chosen[-1]["content"], rejected=rejected[-1]["content"])
    prompt = _messages(row["prompt"], "prompt", "user")
    if row.get("chosen") is None and row.get("rejected") is None:
        return record_of(prompt, rest, images, response=_text(row, "completion"))
    return record_of(prompt, rest, images, chosen=_text(row, "chosen", True), rejected=_text(row, "rejected", True))


def _messages(raw: Any, name: str, role: str) -> list[Json]:
    return [{"role": role, "content": raw}] if isinstance(raw, str) else messages_of(raw, name)


def _text(row: Mapping[str, Any], name: str, needed: bool = False) -> str | None:
    if row.get(name) is None and not needed:
        return None
    messages = _messages(row.get(name), name, "assistant")
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise InvalidRecord(f"{name!r} is not a text or one message of the assistant")
    return str(messages[0]["content"])


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return one of our records as a row, and the fields that it has no place for.

    TRL itself puts the images before the first text of the user; another place is lost.
    """
    example = dialogue(record)
    row = {"id": record["id"]} if "id" in record else {}
    left = (*example.left_out, *(["image_tag"] if example.placed else []))
    # Without an `images` column in the first row TRL would take the whole file for a text-only set.
    row |= {"images": list(example.images)}
    if example.pair is not None:
        return row | {"prompt": example.plain(), "chosen": _answer(example.pair.chosen), "rejected": _answer(example.pair.rejected)}, left
    if example.whole:
        return row | {"messages": example.plain() + _answer(str(example.answer))}, left
    return row | {"prompt": example.plain()} | ({} if example.answer is None else {"completion": _answer(example.answer)}), left


def _answer(text: str) -> list[Json]:
    return [{"role": "assistant", "content": text}]

"""The TRL dialect: messages; prompt and completion; prompt, chosen and rejected; each with `images`.

A pair may be two whole conversations, with or without a prompt and a column of messages, as in UltraFeedback.
Source: the dataset formats of TRL 1.16 (`docs/source/dataset_formats.md`); the vision trainers need the prompt in a column of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.hf_features import IMAGES, MESSAGES, TEXT
from dream_cli.formats.reading import PathsFrom, messages_of, other_fields, pair_of, part_images, record_of, row_images
from dream_cli.records.record import Json

_OWN = ("messages", "prompt", "completion", "chosen", "rejected", "images", "image")


FEATURES: Mapping[str, Any] = {"id": TEXT, "images": IMAGES} | dict.fromkeys(
    ["messages", "prompt", "completion", "chosen", "rejected"], MESSAGES
)
PATHS: PathsFrom = "absolute"
INLINE = False


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is. Plain messages and plain texts are records."""
    if is_completion(row.get("completion")) or isinstance(row.get("prompt"), list) or isinstance(row.get("chosen"), list):
        return ""
    parts = any(isinstance(m, Mapping) and isinstance(m.get("content"), list) for m in row.get("messages") or ())
    return "" if parts else "no 'completion', no list of messages in 'prompt' or 'chosen', no 'messages' in parts"


def is_completion(value: Any) -> bool:
    """Whether a value is a text or a list of messages; any other `completion` is a column of the user's own."""
    is_messages = isinstance(value, list) and bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)
    return isinstance(value, str) or is_messages


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed."""
    whole = all(isinstance(row.get(name), list) and len(row[name]) > 1 for name in ("chosen", "rejected"))
    images = row_images(row)
    if images is None:
        lists = [row.get(name) for name in (("chosen",) if whole else ("messages", "prompt", "chosen"))]
        images = part_images([m for messages in lists if isinstance(messages, list) for m in messages if isinstance(m, Mapping)]) or None
    rest = other_fields(row, *_OWN)
    if whole:
        return _whole_pair(row, rest, images)
    if row.get("messages") is not None:
        return record_of(messages_of(row["messages"], "messages"), rest, images)
    if row.get("prompt") is None:
        raise InvalidRecord("no 'prompt', and 'chosen' and 'rejected' are not two conversations")
    prompt = _messages(row["prompt"], "prompt", "user")
    if row.get("chosen") is None and row.get("rejected") is None:
        return record_of(prompt, rest, images, response=_text(row, "completion"))
    return record_of(prompt, rest, images, chosen=_text(row, "chosen", True), rejected=_text(row, "rejected", True))


def _whole_pair(row: Mapping[str, Any], rest: Json, images: list[Any] | None) -> Json:
    """Return the pair of two conversations; its prompt is their common beginning."""
    chosen, rejected = (messages_of(row[name], name) for name in ("chosen", "rejected"))
    own_prompt = row.get("prompt")
    if isinstance(own_prompt, str) and own_prompt not in (message["content"] for message in chosen[:-1]):
        raise InvalidRecord("'prompt' is no message of 'chosen'")
    return pair_of(chosen, rejected, rest, images)


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
    """Return a record as a row, and the fields that it cannot hold.

    TRL puts the images before the first user text; other positions are lost.
    """
    example = dialogue(record)
    row = {"id": record["id"]} if "id" in record else {}
    left = (*example.left_out, *(["image_tag"] if example.placed else []))
    # Without an `images` column in the first row TRL would treat the whole file as text-only.
    row |= {"images": list(example.images)}
    if example.pair is not None:
        return row | {"prompt": example.plain(), "chosen": _answer(example.pair.chosen), "rejected": _answer(example.pair.rejected)}, left
    if example.whole:
        return row | {"messages": example.plain() + _answer(str(example.answer))}, left
    return row | {"prompt": example.plain()} | ({} if example.answer is None else {"completion": _answer(example.answer)}), left


def _answer(text: str) -> list[Json]:
    return [{"role": "assistant", "content": text}]

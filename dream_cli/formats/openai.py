"""The dialect of OpenAI's chat messages: content in parts, images as `image_url`; pairs as `preferred_output` and `non_preferred_output`.

Lines of a batch file (`custom_id`, `body`) are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.reading import PathsFrom, messages_of, other_fields, part_images, record_of
from dream_cli.records.parts import IMAGE
from dream_cli.records.record import Json

FEATURES: Mapping[str, Any] = {}
PATHS: PathsFrom = None
INLINE = True


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    if "preferred_output" in row or _is_request(row):
        return ""
    if not isinstance(row.get("messages"), list):
        return "no 'messages' and no 'preferred_output'"
    if _names_images(row["messages"]):
        return ""
    plain = all(isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in row["messages"])
    return "plain 'messages' are records of ours" if plain or "images" in row or "image" in row else ""


def _is_request(row: Mapping[str, Any]) -> bool:
    """Whether a row is a line of a batch file: a request with an id."""
    return isinstance(row.get("body"), Mapping) and isinstance(row["body"].get("messages"), list)


def _names_images(messages: Any) -> bool:
    try:
        return bool(part_images(messages))
    except InvalidRecord:
        return False


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed."""
    if _is_request(row):
        body, rest = row["body"], other_fields(row, "body", "custom_id")
        rest = ({"id": row["custom_id"]} if row.get("custom_id") is not None else {}) | rest | {"body": other_fields(body, "messages")}
        return record_of(messages_of(body["messages"], "body.messages"), rest, _images(body["messages"]))
    if "preferred_output" not in row:
        messages = messages_of(row.get("messages"), "messages")
        return record_of(messages, other_fields(row, "messages"), _images(row["messages"]))
    prompt = row["input"].get("messages") if isinstance(row.get("input"), Mapping) else None
    answers = {}
    for ours, theirs in (("chosen", "preferred_output"), ("rejected", "non_preferred_output")):
        replies = messages_of(row.get(theirs), theirs)
        if len(replies) != 1 or replies[0]["role"] != "assistant":
            raise InvalidRecord(f"{theirs!r} is not one message of the assistant")
        answers[ours] = replies[0]["content"]
    rest = other_fields(row, "input", "preferred_output", "non_preferred_output")
    return record_of(messages_of(prompt, "input.messages"), rest, _images(prompt), **answers)


def _images(messages: Any) -> list[Any] | None:
    return [image.removeprefix("file://") if isinstance(image, str) else image for image in part_images(messages)] or None


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return a record as a row, and the fields that it cannot hold."""
    example = dialogue(record)
    urls = [image.get("path") if isinstance(image, Mapping) else image for image in example.images]
    prompt = _in_parts(example.texts() if example.placed else example.plain(), example.placed, urls)
    left = (*example.left_out, *(["id"] if "id" in record else []))
    if example.pair is not None:
        pair = {"preferred_output": [_answer(example.pair.chosen)], "non_preferred_output": [_answer(example.pair.rejected)]}
        return {"input": {"messages": prompt}} | pair, left
    return {"messages": [*prompt, *([] if example.answer is None else [_answer(example.answer)])]}, left


def _answer(text: str) -> Json:
    return {"role": "assistant", "content": text}


def _in_parts(messages: Sequence[Json], placed: bool, urls: Sequence[Any]) -> list[Json]:
    """Return messages with each image as a part: at its `<image>`, otherwise before the first user text."""
    waiting = list(urls)
    result = []
    for message in messages:
        pieces = re.split(f"({IMAGE})", message["content"]) if placed else [message["content"]]
        if not placed and message["role"] == "user":
            pieces = [IMAGE] * len(waiting) + pieces
        if IMAGE not in pieces or not urls:
            result.append(message)
            continue
        parts: list[Json] = []
        for piece in filter(None, pieces):
            if piece == IMAGE and waiting:
                parts.append({"type": "image_url", "image_url": {"url": waiting.pop(0)}})
            else:
                parts.append({"type": "text", "text": piece})
        result.append(message | {"content": parts})
    return result

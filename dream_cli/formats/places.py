"""Where images stand in a conversation.

Our records keep images beside the text; other dialects write `<image>` where one stands. Where that is not simply before the
first words of the user, it is noted in the message's `image_tag` ({head, tail}), so that it can be written back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.records.record import Json

IMAGE = "<image>"
_TAGS = {"head": re.compile(r"\A(?:<image>\n?)+"), "tail": re.compile(r"(?:\n?<image>)+\n?\Z")}


def placed(messages: Sequence[Mapping[str, Any]], count: int, ending: str = "") -> list[Json]:
    """Return messages with `<image>` written where their `image_tag` says, or `count` times at the head of the first prompt."""
    said = [{k: v for k, v in m.items() if k != "image_tag"} | {"content": _tagged(m)} for m in messages]
    if count and not is_placed(messages):
        first = _first_prompt(said)
        first["content"] = IMAGE * count + ending + first["content"]
    return said


def unplaced(messages: Sequence[Mapping[str, Any]], count: int, ending: str = "") -> list[Json]:
    """Return messages without the `<image>` at the ends of their prompts: the inverse of `placed`."""
    if not count or not is_placed(messages):
        return [dict(m) for m in messages]
    said = [_untagged(m) if m["role"] == "user" else dict(m) for m in messages]
    plain = [{k: v for k, v in m.items() if k != "image_tag"} for m in said]
    try:
        if placed(plain, count, ending) == [dict(m) for m in messages]:
            return plain
    except InvalidRecord:
        pass
    return said


def is_placed(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any("image_tag" in m or IMAGE in m["content"] for m in messages)


def displaced(messages: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return messages without a trace of where an image stands in them."""
    return [{"role": m["role"], "content": m["content"].replace(f"{IMAGE}\n", "").replace(IMAGE, "")} for m in messages]


def _first_prompt(messages: list[Json]) -> Json:
    for message in messages:
        if message["role"] == "user":
            return message
    raise InvalidRecord("the conversation has images, but no message of the user to show them in")


def _tagged(message: Mapping[str, Any]) -> str:
    tag = message.get("image_tag") or {}
    return f"{tag.get('head', '')}{message['content']}{tag.get('tail', '')}"


def _untagged(message: Mapping[str, Any]) -> Json:
    text, tag = message["content"], {}
    for end, pattern in _TAGS.items():
        if found := pattern.search(text):
            tag[end] = found[0]
            text = text[: found.start()] + text[found.end() :]
    return dict(message) | {"content": text} | ({"image_tag": tag} if tag else {})

"""The positions of images in a conversation.

Records list images in a field of their own; other dialects write the placeholder `<image>` into the text. A position other than before
the first user text is kept in the message's `image_tag` ({head, tail}), so that it can be written back unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.records.parts import IMAGE
from dream_cli.records.record import Json

_TAGS = {"head": re.compile(r"\A(?:<image>\n?)+"), "tail": re.compile(r"(?:\n?<image>)+\n?\Z")}


def placed(messages: Sequence[Mapping[str, Any]], count: int, ending: str = "") -> list[Json]:
    """Return messages with `<image>` as in their `image_tag`, or without any tag `count` times at the start of the first prompt."""
    result = []
    for message in messages:
        tag = message.get("image_tag") or {}
        text = f"{tag.get('head', '')}{message['content']}{tag.get('tail', '')}"
        result.append({k: v for k, v in message.items() if k != "image_tag"} | {"content": text})
    if count and not is_placed(messages):
        first = next((message for message in result if message["role"] == "user"), None)
        if first is None:
            raise InvalidRecord("the conversation has images, but no user message to show them in")
        first["content"] = IMAGE * count + ending + first["content"]
    return result


def unplaced(messages: Sequence[Mapping[str, Any]], count: int, ending: str = "") -> list[Json]:
    """Return messages without `<image>` at the start and the end of their prompts: the inverse of `placed`."""
    if not count or not is_placed(messages):
        return [dict(m) for m in messages]
    tagged = [_untagged(m) if m["role"] == "user" else dict(m) for m in messages]
    plain = [{k: v for k, v in m.items() if k != "image_tag"} for m in tagged]
    try:
        # A tag that only repeats the default position is left out, which keeps the record short.
        if placed(plain, count, ending) == [dict(m) for m in messages]:
            return plain
    except InvalidRecord:
        pass
    return tagged


def is_placed(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a message has a placeholder for an image, in its text or in its `image_tag`."""
    return any("image_tag" in m or IMAGE in m["content"] for m in messages)


def displaced(messages: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return messages without `image_tag` and without `<image>` in their texts."""
    return [{"role": m["role"], "content": m["content"].replace(f"{IMAGE}\n", "").replace(IMAGE, "")} for m in messages]


def _untagged(message: Mapping[str, Any]) -> Json:
    text, tag = message["content"], {}
    for end, pattern in _TAGS.items():
        if match := pattern.search(text):
            tag[end] = match[0]
            text = text[: match.start()] + text[match.end() :]
    return dict(message) | {"content": text} | ({"image_tag": tag} if tag else {})

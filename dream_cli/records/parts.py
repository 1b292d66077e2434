"""Messages whose content is a list of parts, and the image marks in a text.

The parts are those of transformers' chat templates (Qwen, Unsloth, TRL), of OpenAI's chat and responses, and of Anthropic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.records.fields import kind as kind_of

IMAGE = "<image>"
# The image marks of chat templates and processors; in the texts of a record each marks the position of one image.
_MARK = re.compile(
    r"<image>|<\|image\|>|<\|image_\d+\|>|(?:<\|vision_start\|>)?<\|image_pad\|>(?:<\|vision_end\|>)?"
    r"|<image_soft_token>|<start_of_image>|<image_placeholder>|<ImageHere>"
)
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
# Those of Gemini hold `inline_data`, those of MCP `data`.
_INLINE = ("source", "inline_data", "inlineData")
_IMAGES = ("image", "image_url", "input_image", "image_path", *_INLINE[1:])
# Keys beside the source of an image; a part with these alone marks the position of the next image of the row.
_BESIDE = ("type", "detail", "index", "min_pixels", "max_pixels", "cache_control")
_SOURCES = ("image", "image_url", "image_path", "path", "url", "uri", "src", "file_name", "filename", "file_path")


@dataclass(frozen=True)
class Place:
    """The position of an image in a text: before the character `at`. `image` is its index among the record's images."""

    image: int
    at: int


@lru_cache
def at_head(images: int) -> tuple[Place, ...]:
    """Return the positions of `images` images before a text."""
    return tuple(Place(image, 0) for image in range(images))


def unmarked(text: str) -> tuple[str, tuple[int, ...]]:
    """Return a text without its image marks, and the offset of each; a line end between a mark and the text is removed too."""
    pieces, offsets, length, end = [], [], 0, 0
    for mark in _MARK.finditer(text):
        piece = text[end : mark.start()]
        if mark.end() == len(text):
            piece = piece.removesuffix("\n")
        pieces.append(piece)
        length += len(piece)
        offsets.append(length)
        end = mark.end()
        if length == 0 and text[end : end + 1] == "\n":
            end += 1
    return "".join([*pieces, text[end:]]), tuple(offsets)


def marked(content: Any, where: str) -> tuple[str, list[Any]]:
    """Return a content as one text with `<image>` for each image, and the source of each: None for an image of the record's own list.

    Raises InvalidRecord for a part that is neither text nor image.
    """
    if isinstance(content, str):
        return content, [None] * len(_MARK.findall(content))
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidRecord(f"{where} has no 'content': a string, or a list of text and image parts")
    texts, images, offset = [], [], None
    for i, raw in enumerate(content):
        if raw is None:
            continue
        if not isinstance(raw, str | Mapping):
            raise InvalidRecord(f"{where}.content[{i}] is {kind_of(raw)}, not a part with a type")
        # In Parquet and Arrow every part has the fields of all parts.
        part = {"text": raw} if isinstance(raw, str) else {name: value for name, value in dict(raw).items() if value is not None}
        kind = part.get("type") or next((name for name in ("text", *_IMAGES) if name in part), None)
        text = part.get(_TEXTS.get(str(kind), ""))
        if isinstance(text, str):
            texts.append(text)
            images += [None] * len(_MARK.findall(text))
        elif kind in _IMAGES:
            texts.append(IMAGE)
            images.append(_image(part, f"{where}.content[{i}]"))
            if images[-1] is None and isinstance(index := part.get("index"), int):
                offset = index - len(images) if offset is None else offset
                if index != offset + len(images):
                    raise InvalidRecord(
                        f"{where}.content[{i}] is image {index} of the row, out of order; list the images in the order of the parts"
                    )
        else:
            raise InvalidRecord(f"{where}.content[{i}] is a part of type {kind!r}; only texts and images are read")
    return "".join(texts), images


def read_text(content: Any, tag: Any, where: str, slots: list[Any]) -> tuple[str, tuple[Place, ...]]:
    """Return the text of a content and the positions of its images, whose sources are added to `slots`."""
    if isinstance(content, str) and isinstance(tag, Mapping):
        content = f"{tag.get('head') or ''}{content}{tag.get('tail') or ''}"
    text, named = marked(content, where)
    if not named:
        return text, ()
    text, offsets = unmarked(text)
    places = tuple(Place(len(slots) + i, at) for i, at in enumerate(offsets))
    slots += named
    return text, places


def with_rest(places: tuple[Place, ...], marks: int, images: int) -> tuple[Place, ...]:
    """Return the positions with those of images without a mark, which follow the image of the last mark."""
    if not places or places[-1].image != marks - 1:
        return places
    return *places, *(Place(image, places[-1].at) for image in range(marks, images))


def part_image(part: Mapping[str, Any]) -> Any:
    """Return the image of a part of a message, from a list of images: a path, a `data:` URI or {bytes, path}; None where it names none."""
    with suppress(InvalidRecord):
        return _image({name: value for name, value in part.items() if value is not None}, "")
    return None


def _image(part: Mapping[str, Any], where: str) -> Any:
    """Return the image of a part: a path, a `data:` URI or {bytes, path}; None where the part only marks a position."""
    held = next((part[name] for name in _INLINE if isinstance(part.get(name), Mapping)), part)
    if isinstance(held.get("data"), str):
        kinds = (held.get(name) for name in ("media_type", "mime_type", "mimeType"))
        return f"data:{next(filter(None, kinds), 'image/png')};base64,{held['data']}"
    if isinstance(part.get("base64"), str):
        return part["base64"] if part["base64"][:5] == "data:" else f"data:image/png;base64,{part['base64']}"
    keys = _keys(part)
    if keys is None:
        if unknown := [name for name in part if name not in _BESIDE and part[name] != ""]:
            raise InvalidRecord(f"{where} is an image part without a path, a URL or bytes (it has {', '.join(map(repr, unknown))})")
        return None
    value: Any = part
    for key in keys:
        value = value[key]
    return value


def _keys(part: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the keys under which a part holds its image, None where it holds none."""
    source = part.get("source")
    if isinstance(source, Mapping) and source.get("url") is not None:
        return ("source", "url")
    name = next((name for name in _SOURCES if part.get(name) is not None), None)
    if name is None:
        return None
    return (name, "url") if isinstance(part[name], Mapping) and part[name].get("url") is not None else (name,)


def each_part_image(messages: Any, change: Callable[[Any], Any]) -> Any:
    """Return messages with `change` applied to each image in a part: a path, URI or {bytes, path}."""
    if not isinstance(messages, list):
        return messages
    return [
        {**message, "content": [_changed(part, change) for part in message["content"]]}
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _changed(part: Any, change: Callable[[Any], Any]) -> Any:
    keys = _keys(part) if isinstance(part, Mapping) else None
    if keys is None or str(part.get("type")) in _TEXTS:
        return part
    if len(keys) == 1:
        return {**part, keys[0]: change(part[keys[0]])}
    outer, inner = keys
    return {**part, outer: {**part[outer], inner: change(part[outer][inner])}}

"""The chat messages of OpenAI: content in parts, images as `image_url`; pairs as `preferred_output` and `non_preferred_output`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.places import IMAGE
from dream_cli.formats.reading import PathsFrom, messages_of, parts_of, rest_of, to_record
from dream_cli.records.record import Json

FEATURES: Mapping[str, Any] = {}
PATHS: PathsFrom = None
INLINE = True


def refusal(row: Mapping[str, Any]) -> str:
    """Return why a row is not in this dialect; empty where it is."""
    if "preferred_output" in row:
        return ""
    if not isinstance(row.get("messages"), list):
        return "no 'messages' and no 'preferred_output'"
    if any(part.get("type") == "image_url" for part in parts_of(row["messages"])):
        return ""
    plain = all(isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in row["messages"])
    return "plain 'messages' are records of ours" if plain or "images" in row or "image" in row else ""


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as one of our records; raise InvalidRecord where it is malformed."""
    if "preferred_output" in row:
        return _read_pair(row)
    said = messages_of(row.get("messages"), "messages")
    return to_record(said, rest_of(row, "messages"), _urls(row["messages"]))


def _read_pair(row: Mapping[str, Any]) -> Json:
    asked = row["input"].get("messages") if isinstance(row.get("input"), Mapping) else None
    answers = {}
    for ours, theirs in (("chosen", "preferred_output"), ("rejected", "non_preferred_output")):
        given = messages_of(row.get(theirs), theirs)
        if len(given) != 1 or given[0]["role"] != "assistant":
            raise InvalidRecord(f"{theirs!r} is not one message of the assistant")
        answers[ours] = given[0]["content"]
    rest = rest_of(row, "input", "preferred_output", "non_preferred_output")
    return to_record(messages_of(asked, "input.messages"), rest, _urls(asked), **answers)


def _urls(messages: Any) -> list[str] | None:
    urls = [part.get("image_url") for part in parts_of(messages)]
    found = [url.get("url") if isinstance(url, Mapping) else url for url in urls]
    if not all(isinstance(url, str) and url for url in found):
        raise InvalidRecord("an 'image_url' has no 'url'")
    return [str(url).removeprefix("file://") for url in found] or None


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return one of our records as a row, and the fields that it has no place for."""
    said = dialogue(record)
    urls = [image.get("path") if isinstance(image, Mapping) else image for image in said.images]
    asked = _in_parts(said.texts() if said.placed else said.plain(), said.placed, urls)
    left = (*said.left_out, *(["id"] if "id" in record else []))
    if said.chosen is not None:
        pair = {"preferred_output": [_answer(said.chosen)], "non_preferred_output": [_answer(str(said.rejected))]}
        return {"input": {"messages": asked}} | pair, left
    return {"messages": [*asked, *([] if said.answer is None else [_answer(said.answer)])]}, left


def _answer(text: str) -> Json:
    return {"role": "assistant", "content": text}


def _in_parts(messages: Sequence[Json], placed: bool, urls: Sequence[Any]) -> list[Json]:
    """Return messages with each image in its place: where `<image>` stands, else before the first words of the user."""
    waiting = list(urls)
    said = []
    for message in messages:
        pieces = re.split(f"({IMAGE})", message["content"]) if placed else [message["content"]]
        if not placed and message["role"] == "user":
            pieces = [IMAGE] * len(waiting) + pieces
        images = IMAGE in pieces and bool(urls)
        said.append(message | {"content": [_part(piece, waiting) for piece in pieces if piece]} if images else message)
    return said


def _part(piece: str, waiting: list[Any]) -> Json:
    if piece != IMAGE or not waiting:
        return {"type": "text", "text": piece}
    return {"type": "image_url", "image_url": {"url": waiting.pop(0)}}

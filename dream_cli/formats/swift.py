"""The ms-swift dialect: `messages` with `<image>` in the texts, `images`, and for pairs `rejected_response`.

Source: `swift/dataset/preprocessor/core.py` of ms-swift 4.6.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.hf_features import IMAGES, MESSAGES, NUMBER, TEXT
from dream_cli.formats.reading import PathsFrom, images_of, messages_of, other_fields, record_of
from dream_cli.records.parts import IMAGE
from dream_cli.records.record import Json

_REJECTED = ("rejected_response", "rejected_messages", "rejected_images")
# Fields that a record may have and a row of ms-swift does not.
_MARKS = ("observations", "responses", "chosen", "rejected", "image_tag")


FEATURES: Mapping[str, Any] = {
    "id": TEXT,
    "messages": MESSAGES,
    "images": IMAGES,
    "rejected_response": TEXT,
    "rejected_images": IMAGES,
    "margin": NUMBER,
}
PATHS: PathsFrom = "absolute"
INLINE = True


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is. Messages without `<image>` are records."""
    messages = row.get("messages")
    if not isinstance(messages, list):
        return "no 'messages'"
    if any(row.get(name) is not None for name in _REJECTED):
        return ""
    ours = any(name in m for m in (row, *messages) if isinstance(m, Mapping) for name in _MARKS)
    tagged = any(isinstance(m, Mapping) and IMAGE in str(m.get("content")) for m in messages)
    return "" if tagged and row.get("images") and not ours else f"no 'rejected_response', and no {IMAGE} beside 'images'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed.

    `rejected_images` is kept as an extra field: in a pair of a record both answers are to the same images.
    """
    messages = messages_of(row.get("messages"), "messages")
    images = images_of(row.get("images"), "images")
    rest = other_fields(row, "messages", "images", "rejected_response", "rejected_messages")
    rejected = _rejected(row, messages)
    if rejected is None:
        return record_of(messages, rest, images)
    return record_of(messages[:-1], rest, images, chosen=messages[-1]["content"], rejected=rejected)


def _rejected(row: Mapping[str, Any], messages: list[Json]) -> str | None:
    text = row.get("rejected_response")
    if text is None and row.get("rejected_messages") is None:
        return None
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        raise InvalidRecord("'messages' of a pair does not end with the chosen answer")
    if text is None:
        other = messages_of(row["rejected_messages"], "rejected_messages")
        if other[:-1] != messages[:-1] or other[-1]["role"] != "assistant":
            raise InvalidRecord("'rejected_messages' differs from 'messages' before the last answer; a pair is two answers to one prompt")
        text = other[-1]["content"]
    if not isinstance(text, str):
        raise InvalidRecord("'rejected_response' is not a text")
    return text


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return a record as a row, and the fields that it cannot hold; raise InvalidRecord where ms-swift would drop it."""
    example = dialogue(record)
    if example.pair is not None and example.pair.chosen == example.pair.rejected:
        raise InvalidRecord("'chosen' and 'rejected' are the same text; ms-swift silently drops such a row")
    row = {"id": record["id"]} if "id" in record else {}
    if example.pair is not None and example.pair.margin is not None:
        row["margin"] = example.pair.margin
    row |= {"rejected_images": record["rejected_images"]} if "rejected_images" in record else {}
    left = tuple(name for name in example.left_out if name not in row)
    answer = example.answer if example.pair is None else example.pair.chosen
    messages = example.texts() + ([] if answer is None else [{"role": "assistant", "content": answer}])
    row |= {"messages": messages, "images": list(example.images)}
    return row | ({} if example.pair is None else {"rejected_response": example.pair.rejected}), left

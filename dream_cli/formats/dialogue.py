"""A record as one training example: a conversation, one or two answers to its last prompt, and the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.places import displaced, is_placed, placed
from dream_cli.records.pair import SIDES, Pair
from dream_cli.records.parts import IMAGE
from dream_cli.records.record import Json


@dataclass(frozen=True)
class Dialogue:
    """A record as one training example.

    `messages` ({role, content, image_tag?}) end with the last prompt, which `answer`, or each response of `pair`, answers;
    `whole` is whether prompt and answer were one conversation. `left_out` names the fields of the record that are in none of these.
    """

    messages: tuple[Json, ...]
    images: tuple[Any, ...] = ()
    answer: str | None = None
    pair: Pair | None = None
    whole: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether an image is at another position than before the first user text."""
        return bool(self.images) and is_placed(self.messages)

    def texts(self, ending: str = "") -> list[Json]:
        """Return the messages as {role, content} with `<image>` at each image; `ending` follows it at the start of the first prompt.

        Raises InvalidRecord where the number of placeholders differs from that of images.
        """
        messages = placed(self.messages, len(self.images), ending)
        if self.images and (places := sum(m["content"].count(IMAGE) for m in messages)) != len(self.images):
            raise InvalidRecord(
                f"the texts have {places} placeholders {IMAGE!r} for {len(self.images)} images; write one for each, or none"
            )
        return messages

    def plain(self) -> list[Json]:
        """Return the messages as {role, content}, without the placeholders of images."""
        return displaced(self.messages) if self.images else [{"role": m["role"], "content": m["content"]} for m in self.messages]


def dialogue(record: Mapping[str, Any]) -> Dialogue:
    """Return a record (as JSON) as a training example; raise InvalidRecord where it is not exactly one."""
    held = {"images", "messages" if record.get("messages") else "prompt"}
    tag = {"image_tag": record["image_tag"]} if isinstance(record.get("image_tag"), dict) else {}
    messages = list(record.get("messages") or [{"role": "user", "content": record.get("prompt") or ""} | tag])
    answer = None
    pair = Pair.read(record)
    if pair is not None:
        held |= set(SIDES)
        if messages[-1]["role"] != "user":
            raise InvalidRecord("'messages' ends with an answer beside 'chosen' and 'rejected'; it should end with the user")
    elif messages[-1]["role"] == "assistant":
        answer = messages.pop()["content"]
    else:
        answer, name = _answer(record)
        held.add(name)
    left = _left_out(record, held)
    whole = bool(record.get("messages")) and answer is not None
    bare = tuple({name: message[name] for name in ("role", "content", "image_tag") if name in message} for message in messages)
    return Dialogue(messages=bare, images=tuple(record.get("images") or ()), answer=answer, pair=pair, whole=whole, left_out=left)


def _answer(record: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the one answer and the field that holds it."""
    responses = record.get("responses")
    if not responses:
        return record.get("response"), "response"
    if len(responses) > 1:
        raise InvalidRecord(f"{len(responses)} responses are not a single answer; make pairs of them first (dream pair)")
    only = responses[0]
    return (only if isinstance(only, str) else only["text"]), "responses"


def _left_out(record: Mapping[str, Any], held: set[str]) -> tuple[str, ...]:
    ours = {"messages": ("role", "content", "image_tag"), "responses": ("text",)}
    top = [name for name in record if name not in held | {"id", "image_tag"}]
    nested = (
        f"{name}[].{field}"
        for name, fields in ours.items()
        if name in held
        for item in record.get(name) or ()
        if isinstance(item, Mapping)
        for field in item
        if field not in fields
    )
    return (*top, *dict.fromkeys(nested))

"""The messages of a conversation, with the places of their images, as they are shown for one of its turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dream_cli.records.parts import Place, at_head
from dream_cli.records.responses import Judgement, Observation

Json = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; observations and judgement stand on the assistant turn they belong to.

    `content` is the text without marks or parts for images: `places` tells where they stand. What came in another form is in `extra`.
    """

    role: str
    content: str
    observations: tuple[Observation, ...] | None = None
    judgement: Judgement | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    places: tuple[Place, ...] = ()

    def to_dict(self) -> Json:
        """Return the message as JSON with its original content."""
        known: Json = {"role": self.role, "content": self.content} | dict(self.extra)
        if self.observations is not None:
            known["observations"] = [o.to_dict() for o in self.observations]
        if self.judgement is not None:
            known["judgement"] = self.judgement.to_dict()
        return known


def placed(messages: Sequence[Message], images: int) -> list[Message]:
    """Return messages with a place for each of so many images: where they say, else before the words of the first user message."""
    shown = list(messages)
    if not any(message.places for message in shown):
        first = next((i for i, message in enumerate(shown) if message.role == "user"), None)
        if first is not None:
            shown[first] = replace(shown[first], places=at_head(images))
    return shown


def is_asked(messages: Sequence[Message], end: int) -> bool:
    """Whether the message at `end` answers one of the user: between the two there are only calls of tools and what they returned."""
    i = end - 1
    while i >= 0 and (messages[i].role == "tool" or is_tool_call(messages, i)):
        i -= 1
    return i >= 0 and messages[i].role == "user"


def is_tool_call(messages: Sequence[Message], index: int) -> bool:
    """Whether a message of the assistant is followed by what a tool returned."""
    return messages[index].role == "assistant" and index + 1 < len(messages) and messages[index + 1].role == "tool"


def without_tools(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return messages with calls and results of tools written below the user message that they follow, for models without tools."""
    shown: list[Message] = []
    for i, message in enumerate(messages):
        if message.role != "tool" and not is_tool_call(messages, i):
            shown.append(message)
        elif message.content or message.places:
            before = shown.pop() if shown and shown[-1].role == "user" else None
            head = f"{before.content}\n\n" if before else ""
            label = f"{message.role.capitalize()}: "
            offset = len(head) + len(label)
            places = tuple(replace(place, at=place.at + offset) for place in message.places)
            text = head + label + message.content
            shown.append(replace(before or message, role="user", content=text, places=(*(before.places if before else ()), *places)))
    return tuple(shown)


def transcript(messages: Sequence[Message]) -> str:
    """Return a conversation as one text with the speakers named, system messages left out; a single message as it is.

    `[image N]` stands where an image does, unless all stand before the words of the first message.
    """
    shown = [message for message in messages if message.role != "system"]
    before_words = all(place.at == 0 and message is shown[0] for message in shown for place in message.places)
    texts = [message.content if before_words else _with_images(message) for message in shown]
    if len(messages) == 1:
        return texts[0]
    return "\n".join(f"{message.role.capitalize()}: {text}" for message, text in zip(shown, texts, strict=True))


def _with_images(message: Message) -> str:
    pieces, end = [], 0
    for place in message.places:
        pieces += [message.content[end : place.at], f"[image {place.image + 1}]"]
        end = place.at
    return "".join([*pieces, message.content[end:]])

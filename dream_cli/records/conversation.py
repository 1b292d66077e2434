"""The messages of a conversation with the positions of their images, and the form in which a model sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dream_cli.records.parts import Place, at_head
from dream_cli.records.responses import Judgement, Observation

Json = dict[str, Any]

# The roles of messages, and how they are read: developer is the newer name of system.
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "developer": "system", "tool": "tool"}
# Names of other tools for them, which are written as ours.
_ALIASES = {"human": "user", "gpt": "assistant", "model": "assistant", "function": "tool"}


def role_of(name: Any) -> str | None:
    """Return the role that a name stands for, in any case; None for any other value."""
    known = name.lower() if isinstance(name, str) else ""
    return ROLES.get(known) or _ALIASES.get(known)


@dataclass(frozen=True)
class Message:
    """One message of a conversation; observations and judgement are on the assistant message that they belong to.

    `content` is the text without marks or parts for images; `places` holds the positions of the images. `extra` holds the fields that
    were read in another form.
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
    """Return the messages with a position for each of `images` images: as marked, otherwise before the text of the first user message."""
    shown = list(messages)
    if not any(message.places for message in shown):
        first = next((i for i, message in enumerate(shown) if message.role == "user"), None)
        if first is not None:
            shown[first] = replace(shown[first], places=at_head(images))
    return shown


def answers_user(messages: Sequence[Message], end: int) -> bool:
    """Whether the message at `end` answers a user message: only tool calls and their results are between the two."""
    i = end - 1
    while i >= 0 and (messages[i].role == "tool" or is_tool_call(messages, i)):
        i -= 1
    return i >= 0 and messages[i].role == "user"


def is_tool_call(messages: Sequence[Message], index: int) -> bool:
    """Whether a message is a tool call: an assistant message that is followed by a tool result."""
    return messages[index].role == "assistant" and index + 1 < len(messages) and messages[index + 1].role == "tool"


def without_tools(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages for models without tools: tool calls and results are appended to the user message that they follow."""
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
    """Return a conversation as one text with the roles named and without system messages; a single message unchanged.

    `[image N]` marks the position of an image, unless all images come before the text of the first message.
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

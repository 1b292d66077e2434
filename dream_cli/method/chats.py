"""What a model is shown: the conversation with its images in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dream_cli.engines.protocol import ChatMessage
from dream_cli.records.images import prepare
from dream_cli.records.record import Image, Turn


def question(text: str, images: Sequence[Image] = ()) -> list[ChatMessage]:
    """Return the chat of one question about the images; raise ImageError where one cannot be read."""
    return [ChatMessage("user", text, tuple(map(prepare, images)))]


def conversation(turn: Turn, images: Sequence[Image], text: str | None = None, system: str | None = None) -> list[ChatMessage]:
    """Return the chat that asks for a response to a turn: its history, then its prompt (or `text` in its place).

    The images belong to the first message of the user; `system` takes the place of the system message that the conversation has.
    """
    history = [m for m in turn.history if not (system and m.role == "system")]
    chat = [ChatMessage(m.role, m.content) for m in history] + [ChatMessage("user", turn.prompt if text is None else text)]
    first = next(i for i, m in enumerate(chat) if m.role == "user")
    chat[first] = replace(chat[first], images=tuple(map(prepare, images)))
    return [ChatMessage("system", system), *chat] if system else chat

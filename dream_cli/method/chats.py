"""Chats for a model: the conversation of a record with its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

from dream_cli.engines.protocol import ChatMessage
from dream_cli.prompts.rendering import Question
from dream_cli.records.images import prepare
from dream_cli.records.record import Image, Turn


def question(content: Question, images: Sequence[Image] = ()) -> list[ChatMessage]:
    """Return the chat of one question about the images, after its examples; raise ImageError if an image cannot be read."""
    examples = [ChatMessage(role, text) for role, text in zip(cycle(("user", "assistant")), content.examples, strict=False)]
    return [*examples, ChatMessage("user", content.text, tuple(map(prepare, images)))]


def fact_question(content: Question, images: Sequence[Image] = ()) -> tuple[list[ChatMessage], tuple[str, str]]:
    """Return the chat of a question about a fact, and its two answers; raise ImageError if an image cannot be read."""
    return question(content, images), content.answers


def conversation(turn: Turn, images: Sequence[Image], text: str | None = None, system: str | None = None) -> list[ChatMessage]:
    """Return the chat for a response to a turn: its history, then its prompt, or `text` instead of the prompt.

    The images are at the positions given by the turn (with `text`, before it); `system` replaces the system message of the conversation.
    """
    chat = [
        ChatMessage(m.role, m.content, tuple(prepare(images[place.image]) for place in m.places), tuple(place.at for place in m.places))
        for m in turn.messages
        if not (system and m.role == "system")
    ]
    if text is not None:
        chat[-1] = replace(chat[-1], text=text, places=())
    return [ChatMessage("system", system), *chat] if system else chat

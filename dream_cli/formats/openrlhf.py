"""The dialects of OpenRLHF and the responses API: `input` with `output`, `context_messages`, and `message` as JSON text with image parts.

Source: `openrlhf/datasets` of OpenRLHF 0.8, the columns of https://huggingface.co/datasets/OpenRLHF/prompt-collection-v0.1, and OpenRLHF-M.
Its pairs are two conversations, as in TRL.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dream_cli.formats.reading import messages_of, other_fields, part_images, record_of, row_images
from dream_cli.records.record import Json
from dream_cli.records.strict_json import loads

_PROMPTS = ("message", "context_messages", "input")


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    return "" if _prompt_of(row) else "no messages in 'message', 'context_messages' or 'input', no 'input' with 'output'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed."""
    name = str(_prompt_of(row))
    raw = _messages(row[name]) or [{"role": "user", "content": row[name]}]
    messages, images = messages_of(raw, name), part_images(raw) or row_images(row)
    rest = other_fields(row, name, "images", "image", *(["output"] if name == "input" else []))
    output = row.get("output") if name == "input" else None
    if isinstance(output, list):
        return record_of(messages + messages_of(output, "output"), rest, images)
    return record_of(messages, rest, images, response=output)


def _prompt_of(row: Mapping[str, Any]) -> str | None:
    """Return the column of the prompt: one that holds messages, or the text `input` if there is an `output`."""
    if name := next((name for name in _PROMPTS if _messages(row.get(name))), None):
        return name
    answered = isinstance(row.get("input"), str) and isinstance(row.get("output"), str)
    return "input" if answered and "instruction" not in row else None


def _messages(raw: Any) -> list[Any]:
    """Return a list of messages, parsed if it is JSON text; an empty list for anything else."""
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        with suppress(ValueError):
            raw, problem = loads(raw)
            raw = [] if problem else raw
    fits = isinstance(raw, list) and all(isinstance(message, Mapping) and "role" in message for message in raw)
    return raw if fits else []

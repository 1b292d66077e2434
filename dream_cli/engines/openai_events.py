"""Replies in the form of server-sent events, which some gateways send although no stream is requested."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_DATA = re.compile(r"data:[ \t]*(.*)", re.DOTALL)
_EVENTS = re.compile(r"\s*(?:data|event|id|retry)?:")
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")  # the fields of a message that come in pieces


def read_events(body: str) -> Json | None:
    """Return the reply whose pieces the events of a body hold, or the event that reports an error; None for any other body.

    Raises ValueError if the events end before the last piece of a choice.
    """
    if not _EVENTS.match(body):
        return None
    reply: Json = {}
    choices: dict[int, Json] = {}
    for event in _events(body):
        if event.get("error"):
            return event
        reply |= {name: value for name, value in event.items() if value is not None}
        pieces = event.get("choices")
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict):
                index = piece.get("index")
                _add(choices.setdefault(index if isinstance(index, int) else 0, {"message": {}}), piece)
    if not reply:
        return None
    if not choices or any(choice.get("finish_reason") is None for choice in choices.values()):
        raise ValueError("the events of the reply end before its last piece")
    return reply | {"choices": [choice | {"index": index} for index, choice in sorted(choices.items())]}


def _events(body: str) -> Iterator[Json]:
    # Other line breaks, such as U+2028, may stand in a text.
    for line in re.split(r"\r\n|[\r\n]", body):
        data = _DATA.fullmatch(line)
        if data and data[1].strip() not in ("", "[DONE]"):
            event = json.loads(data[1])
            if isinstance(event, dict):
                yield event


def _add(choice: Json, piece: Json) -> None:
    """Add a piece to its choice."""
    delta = piece.get("delta") or piece.get("message")
    for name, value in delta.items() if isinstance(delta, dict) else ():
        before = choice["message"].get(name)
        together = name in _TEXTS and isinstance(before, str) and isinstance(value, str)
        choice["message"][name] = before + value if together else before if value is None else value
    if piece.get("finish_reason") is not None:
        choice["finish_reason"] = piece["finish_reason"]
    logprobs = piece.get("logprobs")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        choice.setdefault("logprobs", {"content": []})["content"] += logprobs["content"]

"""The engine of a dry run: counts the calls of a stage without making them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dream_cli.engines.costs import CHARACTERS_PER_TOKEN, TOKENS_PER_IMAGE
from dream_cli.engines.limits import Limits
from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, Sampling
from dream_cli.engines.usage import Usage
from dream_cli.records.visible import amount


class DryEngine(Engine):
    """Answers every list with one observation and every choice with its first answer; counts calls and the most tokens they can take."""

    kind = model = fingerprint = "dry-run"
    concurrency = 8

    def __init__(self) -> None:
        self.usage = Usage()
        self._lists = 0

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Count one call per sample; the prompt of several samples is billed once."""
        self._lists += sampling.schema is not None
        self._count(chat, len(samples), sampling.max_tokens)
        answer = _least(sampling.schema) if sampling.schema else ""
        return [Completion(json.dumps(answer), "stop") for _ in samples]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Count one call."""
        self._count(chat, 1, 1)
        return Choice({answer: float(answer == answers[0]) for answer in answers}, 1.0, answers[0])

    async def close(self) -> None:
        """There is nothing to release."""

    def report(self, limits: Limits) -> str:
        """Return the cost of the run as text, as if the store were empty."""
        most = self.usage
        estimate = (
            f"{amount(most.calls, 'call')}, about {most.prompt_tokens} prompt tokens and at most {most.completion_tokens} completion tokens"
        )
        if prices := limits.prices:
            least = replace(most, completion_tokens=0)
            estimate += f", at a cost of about {prices.cost(least):.4g} to {prices.cost(most):.4g}"
            if limits.max_cost is not None and prices.cost(most) > limits.max_cost:
                estimate += f" (--max-cost {limits.max_cost:g} may stop the run)"
        if self._lists:
            estimate += "; with one risk found by each question that lists them: none takes fewer calls, more take one each to verify"
        return f"{estimate}; calls that are in the store already cost nothing"

    def _count(self, chat: Sequence[ChatMessage], calls: int, completion_tokens: int) -> None:
        self.usage.calls += calls
        self.usage.prompt_tokens += sum(len(m.text) // CHARACTERS_PER_TOKEN + TOKENS_PER_IMAGE * len(m.images) for m in chat)
        self.usage.completion_tokens += calls * completion_tokens


def _least(schema: Mapping[str, Any]) -> Any:
    """Return a minimal value that fits a schema of objects, lists and strings; a list has one entry."""
    if schema["type"] == "object":
        return {name: _least(inner) for name, inner in schema["properties"].items()}
    if schema["type"] == "array":
        return [_least(schema["items"])]
    return schema.get("enum", ["dry run"])[0]

"""Counts the calls of a stage instead of making them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dream_cli.engines.costs import Prices
from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, Sampling, Usage

# Rules of thumb, good to a factor of two: characters of English a token, tokens an image.
CHARACTERS_A_TOKEN = 4
TOKENS_AN_IMAGE = 576


class DryEngine(Engine):
    """Answers every list with [] and every choice evenly, and keeps count of the most tokens that this may take.

    What a stage would ask because of a real answer, such as the verification of each observation, is not counted.
    """

    kind = model = fingerprint = "dry-run"
    concurrency = 8

    def __init__(self) -> None:
        self.usage = Usage()
        self._lists = 0

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Count one call for each sample; the prompt of several is read, and billed, once."""
        self._lists += sampling.schema is not None
        self._count(chat, len(samples), sampling.max_tokens)
        return [Completion("[]", "stop") for _ in samples]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Count one call."""
        self._count(chat, 1, 1)
        return Choice(dict.fromkeys(answers, 1 / len(answers)), 1.0, answers[0])

    async def close(self) -> None:
        """Nothing is held."""

    def report(self, prices: Prices | None) -> str:
        """Say what the run would cost without what is in the store already."""
        most = self.usage
        said = f"{most.calls} calls, about {most.prompt_tokens} prompt tokens and at most {most.completion_tokens} completion tokens"
        if prices:
            least = replace(most, completion_tokens=0)
            said += f", at a cost of about {prices.cost(least):.4g} to {prices.cost(most):.4g}"
        if self._lists:
            said = f"at least {said}; checking each observation that is found comes on top (--no-verify leaves it out)"
        return f"{said}; calls that are in the store already cost nothing"

    def _count(self, chat: Sequence[ChatMessage], calls: int, completion_tokens: int) -> None:
        self.usage.calls += calls
        self.usage.prompt_tokens += sum(len(m.text) // CHARACTERS_A_TOKEN + TOKENS_AN_IMAGE * len(m.images) for m in chat)
        self.usage.completion_tokens += calls * completion_tokens

"""The engine of a dry run: counts the calls of a stage and makes none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dream_cli.engines.costs import Prices
from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, Sampling, Usage
from dream_cli.records.visible import amount

# Rules of thumb, good to a factor of two: characters of English per token, tokens per image.
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_IMAGE = 576


class DryEngine(Engine):
    """Answers every list with [] and every choice evenly, and keeps count of the most tokens that this may take.

    Calls that depend on a real answer, such as the verification of each observation, are not counted.
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
        """There is nothing to release."""

    def report(self, prices: Prices | None) -> str:
        """Return in words the cost of the run if nothing is in the store yet."""
        most = self.usage
        estimate = (
            f"{amount(most.calls, 'call')}, about {most.prompt_tokens} prompt tokens and at most {most.completion_tokens} completion tokens"
        )
        if prices:
            least = replace(most, completion_tokens=0)
            estimate += f", at a cost of about {prices.cost(least):.4g} to {prices.cost(most):.4g}"
        if self._lists:
            estimate = f"at least {estimate}; each observation takes one more call to verify (--no-verify skips it)"
        return f"{estimate}; calls that are in the store already cost nothing"

    def _count(self, chat: Sequence[ChatMessage], calls: int, completion_tokens: int) -> None:
        self.usage.calls += calls
        self.usage.prompt_tokens += sum(len(m.text) // CHARACTERS_PER_TOKEN + TOKENS_PER_IMAGE * len(m.images) for m in chat)
        self.usage.completion_tokens += calls * completion_tokens

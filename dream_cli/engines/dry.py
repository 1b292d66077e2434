"""Counts the calls of a stage instead of making them."""

from __future__ import annotations

from collections.abc import Sequence

from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Sampling

# Rules of thumb, good to a factor of two: characters of English a token, tokens an image.
CHARACTERS_A_TOKEN = 4
TOKENS_AN_IMAGE = 576


class DryEngine:
    """Answers every list with [] and every choice evenly, and keeps count.

    What a stage would ask because of a real answer, such as the verification of each observation, is not counted: a lower bound.
    """

    model = "dry-run"
    fingerprint = "dry-run"
    concurrency = 8

    def __init__(self) -> None:
        self.calls = 0
        self.prompt_tokens = 0
        self.most_completion_tokens = 0

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Count one call for each sample."""
        self._count(chat, len(samples), sampling.max_tokens)
        return [Completion("[]", "stop") for _ in samples]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Count one call."""
        self._count(chat, 1, 1)
        return Choice(dict.fromkeys(answers, 1 / len(answers)), 1.0, answers[0])

    async def close(self) -> None:
        """There is nothing to let go of."""

    def report(self) -> str:
        """Say what the run would cost at least."""
        return (
            f"at least {self.calls} calls, about {self.prompt_tokens} prompt tokens, at most {self.most_completion_tokens} completion tokens;"
            " calls that depend on an answer (verifying each observation) come on top"
        )

    def _count(self, chat: Sequence[ChatMessage], calls: int, completion_tokens: int) -> None:
        tokens = sum(len(m.text) // CHARACTERS_A_TOKEN + TOKENS_AN_IMAGE * len(m.images) for m in chat)
        self.calls += calls
        self.prompt_tokens += calls * tokens
        self.most_completion_tokens += calls * completion_tokens

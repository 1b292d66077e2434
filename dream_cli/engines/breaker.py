"""The circuit breaker: decides when failed calls are a failure of the whole run, which then stops instead of failing row by row."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, Sampling
from dream_cli.errors import DreamError, EngineError, NoAnswer, RunFailure, Unanswered, UnreadableAnswer

T = TypeVar("T")

IN_A_ROW = 20  # consecutive failed calls
FINAL = 3  # consecutive refusals of the account: of its key, its quota, or its rate for minutes
SILENCE = 140.0  # seconds without a success while calls fail
OF_THE_TIMEOUT = 1.15  # the same as a multiple of the request timeout
OF_THE_WAIT = 2.0  # the same as a multiple of the wait that the server requests


@dataclass
class Streak:
    """The consecutive failed calls, in the order in which they ended."""

    failed_calls: int = 0
    first: str = ""
    answered: bool = False  # whether any call was answered so far

    def success(self) -> None:
        """Count a call that the model answered, readable or not."""
        self.failed_calls, self.answered = 0, True

    def failure(self, error: Exception) -> None:
        """Count a failed call; raise RunFailure with the first error of the streak after too many.

        A refused input counts only until some call is answered: from then on it is a failure of its row.
        """
        if self.answered and isinstance(error, EngineError) and error.of_input:
            return
        if not self.failed_calls:
            self.first = str(error) if isinstance(error, DreamError) else f"{type(error).__name__}: {error}"
        self.failed_calls += 1
        if self.failed_calls >= IN_A_ROW:
            raise RunFailure(f"{self.first}; {IN_A_ROW} calls in a row failed")


@dataclass
class Outage:
    """The attempts at one server since it last answered; times are in seconds of one clock.

    Time without a request in flight does not count: a run may pass over finished rows for minutes.
    """

    timeout: float  # of a request
    began: float | None = None  # when the first failed attempt was sent
    first: str = ""
    longest_wait: float = 0.0  # requested by the server, in seconds
    refusals: int = 0  # of the account
    idle_since: float | None = None  # when the last request in flight ended

    def success(self) -> None:
        """Count an attempt that the server answered."""
        self.began, self.longest_wait, self.refusals = None, 0.0, 0

    def failure(self, sent: float, reason: str, wait: float = 0.0) -> None:
        """Count a failed attempt that was sent at time `sent`; `wait` is the wait in seconds that the server requested."""
        if self.began is None:
            self.began, self.first = sent, reason
        self.longest_wait = max(self.longest_wait, wait)

    def pause(self, now: float) -> None:
        """Stop the clock: no request is in flight."""
        self.idle_since = now

    def resume(self, now: float) -> None:
        """Start the clock again: a request begins."""
        if self.began is not None and self.idle_since is not None:
            self.began += now - self.idle_since
        self.idle_since = None

    def refused(self) -> bool:
        """Count a refusal of the account; return whether it is final for the run."""
        self.refusals += 1
        return self.refusals >= FINAL

    @property
    def patience(self) -> float:
        """The seconds that an outage may last."""
        return max(SILENCE, OF_THE_TIMEOUT * self.timeout, OF_THE_WAIT * self.longest_wait)

    def left(self, now: float) -> float:
        """Return the seconds until the outage lasts too long; infinite if there is none or no request is in flight."""
        return float("inf") if self.began is None or self.idle_since is not None else self.began + self.patience - now


class BreakingEngine(Engine):
    """An engine that raises RunFailure once too many calls in a row have failed; replies from a store count as answers."""

    def __init__(self, inner: Engine) -> None:
        self.kind, self.model, self.fingerprint = inner.kind, inner.model, inner.fingerprint
        self.concurrency, self.usage, self.checkpoint = inner.concurrency, inner.usage, inner.checkpoint
        self._inner, self._streak = inner, Streak()

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return the completions of the engine."""
        return await self._counted(self._inner.generate(chat, sampling, samples))

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return the choice of the engine."""
        return await self._counted(self._inner.choose(chat, answers))

    async def choose_many(self, requests: Sequence[tuple[Sequence[ChatMessage], Sequence[str]]]) -> list[Choice]:
        """Return the choices of the engine, which count as one call."""
        return await self._counted(self._inner.choose_many(requests))

    def forget(self, chat: Sequence[ChatMessage], about: Sampling | Sequence[str]) -> None:
        """Delete the stored reply."""
        self._inner.forget(chat, about)

    def constrains(self) -> bool:
        """Whether the engine enforces choices."""
        return self._inner.constrains()

    async def close(self) -> None:
        """Close the engine."""
        await self._inner.close()

    async def _counted(self, call: Awaitable[T]) -> T:
        try:
            answer = await call
        except RunFailure:
            raise
        except (NoAnswer, Unanswered, UnreadableAnswer):
            self._streak.success()
            raise
        except Exception as error:
            self._streak.failure(error)
            raise
        self._streak.success()
        return answer

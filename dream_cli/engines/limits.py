"""The limits of a run on its requests to servers: their cost, and the requests and tokens per minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dream_cli.engines.costs import Prices, most_tokens
from dream_cli.engines.usage import Usage
from dream_cli.errors import RunFailure

WINDOW = 60.0  # seconds of a minute
UNCOUNTED = "the server does not report token counts, so --max-cost cannot be enforced; run without it"


@dataclass(frozen=True)
class Limits:
    """The limits of cost and rate of a run; None is no limit. All engines of the run share one meter."""

    max_cost: float | None = None  # in the currency of the prices
    rpm: int | None = None  # requests that begin within any minute
    tpm: int | None = None  # tokens of the requests that begin within any minute
    prices: Prices | None = None

    @property
    def names(self) -> list[str]:
        """The options of the limits that are set."""
        limits = {"--max-cost": self.max_cost, "--rpm": self.rpm, "--tpm": self.tpm}
        return [name for name, limit in limits.items() if limit is not None]

    def divided(self, count: int) -> Limits:
        """Return the share of one of `count` parallel processes, each with its own meter."""
        return replace(
            self,
            max_cost=None if self.max_cost is None else self.max_cost / count,
            rpm=None if self.rpm is None else max(1, self.rpm // count),
            tpm=None if self.tpm is None else max(1, self.tpm // count),
        )

    @cached_property
    def meter(self) -> Meter:
        """The meter that enforces the limits on all requests of the run."""
        return Meter(self)


NO_LIMITS = Limits()


class Rate:
    """Requests and their tokens within the last minute, in seconds of one clock."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self._requests, self._tokens = requests, tokens
        self._begun: deque[tuple[float, list[int]]] = deque()

    def wait(self, now: float, tokens: int) -> float:
        """Return the seconds until a request of `tokens` tokens may begin; a request above the limit begins alone."""
        while self._begun and self._begun[0][0] <= now - WINDOW:
            self._begun.popleft()
        count, sum_of_tokens, clear = len(self._begun), sum(size for _, (size,) in self._begun), now - WINDOW
        for began, (size,) in self._begun:
            over = (self._requests is not None and count >= self._requests) or (
                self._tokens is not None and sum_of_tokens + tokens > self._tokens
            )
            if not over:
                break
            count, sum_of_tokens, clear = count - 1, sum_of_tokens - size, began
        return clear + WINDOW - now

    def begin(self, now: float, tokens: int) -> list[int]:
        """Count a request; correct the number in the result once its tokens are known."""
        size = [tokens]
        self._begun.append((now, size))
        return size


class Meter:
    """Delays requests until the rate allows them, and ends the run before it exceeds the cost limit.

    Requests in flight count with their highest cost: an estimate of the prompt tokens, corrected by the server's counts so far, and
    replies of full length.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rate = Rate(limits.rpm, limits.tpm)
        self._turn = asyncio.Lock()  # first come, first served
        self._settled = asyncio.Event()  # a request ended, and its cost is known
        self._spent = self._reserved = 0.0
        self._uncounted = False  # a reply had no token counts
        self._correction = 1.0  # the largest ratio of counted to estimated prompt tokens so far

    @asynccontextmanager
    async def request(self, body: Mapping[str, Any]) -> AsyncIterator[MeteredRequest]:
        """Reserve the cost of a request during the body; raise RunFailure if it would exceed the limit."""
        if self._uncounted:
            raise RunFailure(UNCOUNTED)
        tokens = most_tokens(body)
        most = self._most(tokens)
        while self._limits.max_cost is not None and self._spent + self._reserved + most > self._limits.max_cost:
            if not self._reserved:
                raise RunFailure(
                    f"the cost limit is reached: {self._spent:.4g} of --max-cost {self._limits.max_cost:g} is spent, "
                    f"and the next call may cost up to {most:.4g}"
                )
            self._settled.clear()
            await self._settled.wait()
            most = self._most(tokens)
        self._reserved += most
        try:
            yield MeteredRequest(self, tokens)
        finally:
            # A rounding error left in the sum would look like a request in flight.
            self._reserved = left if (left := self._reserved - most) > 1e-12 else 0.0
            self._settled.set()

    def _most(self, tokens: Usage) -> float:
        prices = self._limits.prices
        return prices.cost(replace(tokens, prompt_tokens=round(tokens.prompt_tokens * self._correction))) if prices else 0.0

    async def begin(self, tokens: Usage) -> list[int]:
        """Wait until the rate allows a request; return its counted tokens."""
        size = tokens.prompt_tokens + tokens.completion_tokens
        async with self._turn:
            while (pause := self._rate.wait(time.monotonic(), size)) > 0:
                await asyncio.sleep(pause)
            return self._rate.begin(time.monotonic(), size)

    def spend(self, tokens: Usage, estimate: Usage) -> None:
        """Count the tokens of a reply; raise RunFailure if there is a cost limit and the server reports no token counts."""
        if self._limits.max_cost is None or self._limits.prices is None:
            return
        if not tokens.prompt_tokens + tokens.completion_tokens:
            self._uncounted = True
            raise RunFailure(UNCOUNTED)
        self._spent += self._limits.prices.cost(tokens)
        self._correction = max(self._correction, tokens.prompt_tokens / max(1, estimate.prompt_tokens))


class MeteredRequest:
    """One request with its attempts."""

    def __init__(self, meter: Meter, estimate: Usage) -> None:
        self._meter, self._estimate = meter, estimate
        self._counted: list[int] = []

    async def begin(self) -> None:
        """Wait until the rate allows an attempt."""
        self._counted = await self._meter.begin(self._estimate)

    def end(self, tokens: Usage) -> None:
        """Count the tokens of the reply in place of the estimate."""
        self._meter.spend(tokens, self._estimate)
        if tokens.prompt_tokens:
            self._counted[:] = [tokens.prompt_tokens + tokens.completion_tokens]

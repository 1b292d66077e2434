"""An engine that counts its calls, and requests to it through a store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, Sampling
from dream_cli.engines.store import CallStore
from dream_cli.engines.stored_engine import StoredEngine
from dream_cli.engines.usage import Usage
from dream_cli.errors import EngineError
from dream_cli.records.record import Image

DRAWN = Sampling(temperature=1.0)


class Counting(Engine):
    """An engine that counts what it is asked; it fails while `broken`."""

    kind = model = "counting"
    concurrency = 4

    def __init__(self, fingerprint: str = "a") -> None:
        self.fingerprint = fingerprint
        self.usage = Usage()
        self.calls: list[Any] = []
        self.broken = False
        self.latency = 0.0

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        self.calls.append(list(samples))
        await asyncio.sleep(self.latency)
        if self.broken:
            raise EngineError("down")
        self.usage.calls += len(samples)
        return [Completion(f"{chat[-1].text} {i}", "stop", 3, 2) for i in samples]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        self.calls.append(list(answers))
        return Choice({answer: 1 / len(answers) for answer in answers}, 0.9, answers[0])

    async def close(self) -> None:
        self.calls.append("closed")


def ask(text: str = "hello", *images: Image) -> list[ChatMessage]:
    return [ChatMessage("user", text, images)]


async def draw(engine: StoredEngine, chat: list[ChatMessage], *samples: int) -> list[str]:
    return [completion.text for completion in await engine.generate(chat, DRAWN, samples)]


async def drawn(path: Path, inner: Counting, *samples: int) -> list[str]:
    """Return what one run draws with this store."""
    engine = StoredEngine(inner, CallStore(path))
    try:
        return await draw(engine, ask(), *samples)
    finally:
        await engine.close()

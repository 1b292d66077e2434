"""Models that are limited to a small world: their steps reject records outside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dream_cli.engines.protocol import Engine
from dream_cli.engines.registry import border_of
from dream_cli.errors import OutsideWorld
from dream_cli.records.record import Record

Step = Callable[[Record], Awaitable[Record]]


def confined(step: Step, engine: Engine) -> Step:
    """Return the step, which raises OutsideWorld before any call for a record outside the world of the engine's model."""
    world = engine.checkpoint.world if engine.checkpoint else None
    if world is None:
        return step
    border = border_of(world)

    async def one(record: Record) -> Record:
        # In a thread: the check of the pixels would block the event loop too long.
        if reason := await asyncio.to_thread(border, record):
            raise OutsideWorld(f"{engine.model} answers in its own small world only: {reason}; name another model (--model, --base-url)")
        return await step(record)

    return one

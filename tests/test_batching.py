"""Requests that wait together run together, and nobody waits for a batch whose results nobody wants."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dream_cli.engines.batching import Batcher


def test_equal_keys_share_a_batch_and_a_bad_item_fails_alone() -> None:
    sizes: list[tuple[Any, int]] = []

    def run(key: Any, items: list[Any]) -> list[Any]:
        sizes.append((key, len(items)))
        if "bad" in items:
            raise ValueError("bad")
        return [f"{key} {item}" for item in items]

    async def ask() -> list[Any]:
        batcher = Batcher(run, 8, linger=0.2)
        asked = [batcher.submit(key, item) for key, item in [("a", 1), ("b", 2), ("a", 3), ("a", "bad")]]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await batcher.close()
        return answers

    one, two, three, failed = asyncio.run(ask())
    assert (one, two, three, str(failed)) == ("a 1", "b 2", "a 3", "bad")
    assert sorted(sizes) == [("a", 1), ("a", 1), ("a", 1), ("a", 3), ("b", 1)]


def test_an_interrupt_does_not_wait_for_the_batch_that_runs() -> None:
    begun, end = threading.Event(), threading.Event()

    def run(key: Any, items: list[Any]) -> list[Any]:
        begun.set()
        end.wait(30)
        return items

    async def ask() -> None:
        batcher = Batcher(run, 1)
        running, waiting = (asyncio.ensure_future(batcher.submit("a", i)) for i in (1, 2))
        await asyncio.to_thread(begun.wait, 30)
        await asyncio.wait_for(batcher.close(), 10)
        assert not end.is_set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        end.set()
        assert await running == 1

    asyncio.run(ask())

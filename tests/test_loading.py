"""A signal while a model is loaded interrupts at once, although the event loop is held up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from dream_cli.cli.signals import raise_interrupts
from dream_cli.engines.loading import LOADING


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Return the signals that were received; the handlers of before are back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield raise_interrupts()
    for number, handler in before.items():
        signal.signal(number, handler)


def blocked(ended: list[str]) -> None:
    """Load what takes long, and meet a signal."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    ended.append("loaded")


def test_a_signal_ends_the_loading_of_a_model(received: list[int]) -> None:
    ended: list[str] = []

    async def load() -> None:
        try:
            with LOADING.model():
                blocked(ended)
        finally:
            ended.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(load())
    assert (ended, received, LOADING.active) == (["cleaned up"], [signal.SIGTERM], False)

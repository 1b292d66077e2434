"""A signal while a model is loaded interrupts at once, although the event loop is held up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from dream_cli.cli import signals
from dream_cli.cli.signals import raise_interrupts
from dream_cli.engines.loading import LOADING, Loading


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


def swallowing(ended: list[str]) -> None:
    """Load as a library does that goes on after an interrupt."""
    try:
        blocked(ended)
    except KeyboardInterrupt:
        ended.append("swallowed")


def test_an_interrupt_that_a_library_swallows_is_repeated(received: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEAT", 0.1)
    ended: list[str] = []

    def load() -> None:
        swallowing(ended)
        time.sleep(60)
        ended.append("loaded")

    async def run() -> None:
        with LOADING.model():
            load()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    assert (ended, received, LOADING) == (["swallowed"], [signal.SIGTERM] * 2, Loading())


def test_an_interrupt_that_is_swallowed_at_the_end_of_loading_ends_the_run(received: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEAT", 0.1)
    ended: list[str] = []

    async def run() -> None:
        with LOADING.model():
            swallowing(ended)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    assert ended == ["swallowed"]
    LOADING.interrupted = False

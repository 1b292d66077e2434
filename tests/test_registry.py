"""Which engine is opened, what is said where none can be, and the batches that a blocking model runs in."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dream_cli.engines import batching, registry
from dream_cli.engines.batching import Batcher, More
from dream_cli.engines.protocol import EngineSpec
from dream_cli.engines.registry import open_engine
from dream_cli.errors import UsageError


def opened(**spec: Any) -> Any:
    """Open the engine."""
    return asyncio.run(open_engine(EngineSpec(**spec)))


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the extra `local` is installed."""
    monkeypatch.setattr(registry, "_require_local", lambda model, engine: None)


def test_without_the_extra_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"in the checkout: pip install '\.\[local\]' or pipx install"):
        opened()


def test_nano_without_its_weights_is_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extra: None) -> None:
    monkeypatch.setattr(registry, "EMBEDDED", {"nano": tmp_path, "nano-policy": tmp_path})
    for model, name in ((None, "nano"), ("nano", "nano"), ("nano-policy", "nano-policy")):
        with pytest.raises(UsageError, match=f"no weights of {name}, an embedded model"):
            opened(model=model)


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: None) -> None:
    monkeypatch.setattr(registry, "_has_gpu", lambda: False)
    (tmp_path / "judge-7b").mkdir()
    with pytest.raises(UsageError, match="did you mean .*judge-7b"):
        opened(model=str(tmp_path / "jugde-7b"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"did you mean judge-7b\?"):
        opened(model="judge_7b")
    with pytest.raises(UsageError, match="holds no model"):
        opened(model="judge-7b")


def test_an_adapter_without_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: None) -> None:
    monkeypatch.setattr(registry, "_has_gpu", lambda: False)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/gone/away"}')
    with pytest.raises(UsageError, match="is an adapter, and its base model cannot be found"):
        opened(model=str(tmp_path))


@pytest.mark.local
def test_nano_goes_by_its_name_and_answers_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from dream_cli.engines.protocol import ChatMessage
    from tests.zoo import build

    monkeypatch.setitem(registry.EMBEDDED, "nano", build("llava", tmp_path / "weights"))

    async def ask() -> tuple[str, Any]:
        engine = await open_engine(EngineSpec(store=str(tmp_path / "calls.sqlite")))
        try:
            return engine.model, await engine.choose([ChatMessage("user", "Yes?")], ["Yes", "No"])
        finally:
            await engine.close()

    name, first = asyncio.run(ask())
    assert name == "nano"
    assert asyncio.run(ask()) == (name, first)


@pytest.mark.local
def test_a_broken_torchvision_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dream_cli.engines.patches import allow_image_only_processors

    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(UsageError, match="pip uninstall torchvision"):
        allow_image_only_processors()


class Recorder:
    """A blocking model that remembers its batches, and fails on what it is told to fail on."""

    def __init__(self, bad: Any = None, room: int = 99) -> None:
        self.batches: list[tuple[Any, list[Any]]] = []
        self.bad = bad
        self.room = room

    def __call__(self, key: Any, items: list[Any], more: More) -> Iterable[tuple[int, Any]]:
        self.batches.append((key, items))
        if len(items) > self.room:
            raise MemoryError("full")
        if self.bad in items:
            raise ValueError(f"cannot take {self.bad}")
        return enumerate(item * 10 for item in items)


def batched(run: Recorder, jobs: list[tuple[str, int]], size: int = 4) -> list[Any]:
    """Submit the jobs at once and return what came back, exceptions included."""

    async def whole() -> list[Any]:
        batcher = Batcher(run, size)
        results = await asyncio.gather(*(batcher.submit(*job) for job in jobs), return_exceptions=True)
        await batcher.close()
        return list(results)

    return asyncio.run(whole())


def test_what_waits_together_runs_together() -> None:
    run = Recorder()
    assert batched(run, [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("a", 5), ("a", 6)]) == [10, 20, 30, 40, 50, 60]
    assert run.batches == [("a", [1, 3, 4, 5]), ("b", [2]), ("a", [6])]


def test_a_batch_begins_when_nothing_more_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    class Arrivals(threading.Condition):
        """Items arrive one after the other while a batch is awaited, in more time than the wait for the first one."""

        def wait(self, timeout: float | None = None) -> bool:
            if timeout is None or not late:
                return super().wait(timeout)
            time.sleep(2 * timeout)
            batcher._waiting.append(late.pop())
            return True

    async def whole() -> None:
        await batcher.submit("a", 0)
        await batcher.close()

    run, late = Recorder(), [batching._Job("a", item) for item in (3, 2, 1)]
    monkeypatch.setattr(batching, "Condition", Arrivals)
    batcher = Batcher(run, 8)
    asyncio.run(whole())
    assert run.batches == [("a", [0, 1, 2, 3])]


def test_a_batch_is_the_oldest_item_and_those_nearest_to_it_in_length() -> None:
    async def whole(lengths: list[int]) -> None:
        batcher = Batcher(run, 3, length=lambda item: item)
        await asyncio.gather(*(batcher.submit("a", length) for length in lengths))
        await batcher.close()

    run = Recorder()
    asyncio.run(whole([5, 90, 6, 80, 1, 5, 85]))
    assert run.batches == [("a", [5, 5, 6]), ("a", [90, 85, 80]), ("a", [1])]


def test_a_bad_item_fails_alone() -> None:
    first, second, third = batched(Recorder(bad=2), [("a", 1), ("a", 2), ("a", 3)])
    assert (first, third) == (10, 30)
    assert isinstance(second, ValueError)


def test_batches_become_smaller_where_memory_runs_out() -> None:
    run = Recorder(room=2)
    assert batched(run, [("a", i) for i in range(8)]) == [10 * i for i in range(8)]
    assert [len(items) for _, items in run.batches] == [4, 2, 2, 2, 2]


def test_a_smaller_batch_is_never_made_larger_where_memory_runs_out() -> None:
    async def whole() -> None:
        batcher = Batcher(run, 4, multiple=lambda key: 8)
        assert await asyncio.gather(*(batcher.submit("a", i) for i in range(32))) == [10 * i for i in range(32)]
        await batcher.submit("a", 99)
        await asyncio.gather(*(batcher.submit("a", i) for i in range(40)))
        await batcher.close()

    run = Recorder(room=20)
    asyncio.run(whole())
    assert [len(items) for _, items in run.batches] == [32, 16, 16, 1, 16, 16, 8]


def test_items_join_a_batch_that_runs_in_the_places_of_those_that_are_done() -> None:
    taken: list[list[int]] = []

    def run(key: str, items: list[int], more: More) -> Iterator[tuple[int, Any]]:
        """Answer the first item that is left, then take more; item 3 fails."""
        left, count = dict(enumerate(items)), len(items)
        taken.append(items)
        while left:
            number = min(left)
            item = left.pop(number)
            yield number, ValueError("3 fails") if item == 3 else item * 10
            joining = more(len(left))
            taken.append(joining)
            left |= dict(enumerate(joining, count))
            count += len(joining)

    async def whole(jobs: list[tuple[str, int]]) -> list[Any]:
        batcher = Batcher(run, 2)
        results = await asyncio.gather(*(batcher.submit(*job) for job in jobs), return_exceptions=True)
        await batcher.close()
        return list(results)

    results = asyncio.run(whole([("a", 1), ("a", 2), ("a", 3), ("b", 4), ("a", 5)]))
    assert [str(result) for result in results] == ["10", "20", "3 fails", "40", "50"]
    # The item of another key has waited longest once 3 has joined, so 5 waits for the next batch.
    assert taken == [[1, 2], [3], [], [], [4], [], [5], []]


def test_a_batch_that_fails_while_items_join_is_repeated_for_those_without_a_result() -> None:
    runs: list[list[int]] = []

    def run(key: str, items: list[int], more: More) -> Iterator[tuple[int, Any]]:
        runs.append(items)
        yield 0, items[0] * 10
        joined = more(1)
        if joined or len(items) > 1:
            raise ValueError("not together")

    async def whole() -> list[Any]:
        batcher = Batcher(run, 2)
        results = await asyncio.gather(*(batcher.submit("a", i) for i in (1, 2, 3)), return_exceptions=True)
        await batcher.close()
        return list(results)

    assert asyncio.run(whole()) == [10, 20, 30]
    assert runs == [[1, 2], [2], [3]]


def test_closing_ends_the_thread_and_refuses_more() -> None:
    async def whole() -> None:
        batcher = Batcher(Recorder(), 4)
        await batcher.close()
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.submit("a", 1)

    asyncio.run(whole())
    assert not [thread for thread in threading.enumerate() if thread.name == "dream-batcher"]


def test_an_interrupt_does_not_wait_for_the_batch_that_runs() -> None:
    begun, end = threading.Event(), threading.Event()

    def run(key: Any, items: list[Any], more: More) -> Iterable[tuple[int, Any]]:
        begun.set()
        end.wait(30)
        return enumerate(items)

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

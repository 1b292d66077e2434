"""Batching: asynchronous requests to a blocking model; requests that wait at the same time run as one batch.

A model that answers continuously takes more requests while the batch runs, in the places of those that it has answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

# Returns the items that join a batch in which this number of items runs.
More = Callable[[int], list[Any]]
Run = Callable[[Any, list[Any], More], Iterable[tuple[int, Any]]]


@dataclass(frozen=True, eq=False)
class _Job:
    key: Hashable
    item: Any
    future: Future[Any] = field(default_factory=Future)


class Batcher:
    """Collects items with the same key and passes them to `run(key, items, more)` in one worker thread.

    `run` returns (number of the item, result) in any order; a result that is an exception is raised to the caller that waits for the item.
    A batch holds at most `batch_size * multiple(key)` items; `multiple` is above 1 for keys whose items share their cost.
    It holds the item that has waited longest, and those nearest to it in `length`: a batch is padded to its longest item.
    `more(n)` returns the items that may join a batch of n, none while an item of another key has waited longest; their numbers follow.
    """

    def __init__(
        self,
        run: Run,
        batch_size: int,
        linger: float = 0.005,
        multiple: Callable[[Any], int] = lambda key: 1,
        length: Callable[[Any], int] = lambda item: 0,
    ) -> None:
        self._run = run
        self._length = length
        self._size = max(1, batch_size)
        self._multiple = multiple
        self._linger = linger
        self._waiting: deque[_Job] = deque()
        self._changed = Condition()
        self._closed = self._running = False
        # A daemon thread: an interrupted command must not wait for the end of a forward pass.
        self._thread = Thread(target=self._work, name="dream-batcher", daemon=True)
        self._thread.start()

    async def submit(self, key: Hashable, item: Any) -> Any:
        """Return the result of `item`, or raise its error."""
        job = _Job(key, item)
        with self._changed:
            if self._closed:
                raise RuntimeError("the model is closed")
            self._waiting.append(job)
            self._changed.notify()
        return await asyncio.wrap_future(job.future)

    async def close(self) -> None:
        """Cancel the waiting items and end the thread, without waiting for a running batch: its results are no longer needed."""
        with self._changed:
            self._closed = True
            abandoned, self._waiting = self._waiting, deque()
            self._changed.notify()
        for job in abandoned:
            job.future.cancel()
        if not self._running:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while batch := self._take():
            live = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if live:
                self._answer(live)
            self._running = False

    def _take(self) -> list[_Job]:
        """Wait for a job, then as long as more arrive, each within `linger` seconds; return the next batch, empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            most = self._size * self._multiple(self._waiting[0].key) if self._waiting else 0
            # The questions about one record are submitted one after the other; a pass over some of them would read the record twice.
            arrived = 0
            while arrived < len(self._waiting) < most and not self._closed:
                arrived = len(self._waiting)
                self._changed.wait(self._linger)
            if not self._waiting:
                return []
            self._running = True
            return self._next(most)

    def _next(self, most: int) -> list[_Job]:
        """Remove the job that has waited longest and its companions from those that wait, and return them, at most `most`."""
        first = self._waiting[0]
        length = self._length(first.item)
        same = [job for job in self._waiting if job.key == first.key]
        # The sort is stable: of equal lengths the oldest come first.
        batch = sorted(same, key=lambda job: abs(self._length(job.item) - length))[:most]
        taken = {id(job) for job in batch}
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        return batch

    def _answer(self, batch: list[_Job], alone: bool = False) -> None:
        jobs, key = dict(enumerate(batch)), batch[0].key
        count = len(batch)

        def more(running: int) -> list[Any]:
            nonlocal count
            with self._changed:
                free = 0 if alone else self._size - running
                joining = self._next(free) if free > 0 and self._waiting and self._waiting[0].key == key else []
            live = [job for job in joining if job.future.set_running_or_notify_cancel()]
            jobs.update(enumerate(live, count))
            count += len(live)
            return [job.item for job in live]

        try:
            for number, result in self._run(key, [job.item for job in batch], more):
                _settle(jobs.pop(number), result)
            if jobs:
                raise RuntimeError(f"{len(jobs)} of {count} requests got no result")
        except Exception as error:  # noqa: BLE001 - every error is raised to the waiting caller
            self._retry(list(jobs.values()), error)

    def _retry(self, batch: list[_Job], error: Exception) -> None:
        """Run what a failed batch left in parts: in smaller ones if memory ran out, else in single rows, so that a bad row fails alone."""
        if len(batch) == 1:
            _settle(batch[0], error)
            return
        step = 1
        if out_of_memory(error):
            # Later batches of this size would not fit either.
            self._size = (min(self._size, len(batch)) + 1) // 2
            step = min(self._size * self._multiple(batch[0].key), (len(batch) + 1) // 2)
        # The traceback keeps the frames of the failed batch, and with them its tensors, in memory.
        error.__traceback__ = None
        for start in range(0, len(batch), step):
            self._answer(batch[start : start + step], alone=True)


def _settle(job: _Job, result: Any) -> None:
    if isinstance(result, BaseException):
        job.future.set_exception(result)
    else:
        job.future.set_result(result)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch's error is recognised by its name, so that torch need not be imported."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"

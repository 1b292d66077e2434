"""Concurrent processing of records in order, with a bounded number in flight."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterable

from dream_cli.method.confining import Step
from dream_cli.records.record import Record


def _feed(records: Iterable[Record], slots: threading.Semaphore, put: Callable[[Record | BaseException | None], object]) -> None:
    """Put each record as soon as a slot is free, then None; an error of the reader is put too, so that the consumer does not hang."""
    # After an interrupt or a closed pipe the loop is closed, and no more results are needed.
    with contextlib.suppress(RuntimeError):
        try:
            for record in records:
                slots.acquire()
                put(record)
            put(None)
        except Exception as error:  # noqa: BLE001 - see the docstring
            put(error)


async def in_order(records: Iterable[Record], step: Step, window: int) -> AsyncGenerator[tuple[Record, Record], None]:
    """Yield (input record, output record of the step) in input order, at most `window` of them in flight.

    An exception of a step is raised at once: it does not wait for earlier records, and no further record is started.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[Record, asyncio.Task[Record]] | BaseException | None] = asyncio.Queue()
    slots = threading.Semaphore(window)
    working: set[asyncio.Task[Record]] = set()
    failure: asyncio.Future[Record] = loop.create_future()

    def accept(item: Record | BaseException | None) -> None:
        if not isinstance(item, Record):
            queue.put_nowait(item)
        elif not failure.done():
            task = asyncio.ensure_future(step(item))
            working.add(task)
            task.add_done_callback(finish)
            queue.put_nowait((item, task))

    def finish(task: asyncio.Task[Record]) -> None:
        working.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not failure.done():
            failure.set_exception(error)

    # A daemon thread: a blocking read of stdin must delay neither the rows in flight nor the exit.
    threading.Thread(target=_feed, args=(records, slots, lambda item: loop.call_soon_threadsafe(accept, item)), daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            await asyncio.wait({item[1], failure}, return_when=asyncio.FIRST_COMPLETED)
            yield item[0], (item[1] if item[1].done() else failure).result()
            slots.release()
    finally:
        if not failure.cancel():
            failure.exception()  # retrieved, so that asyncio does not report it as never retrieved
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

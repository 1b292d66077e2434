"""Records through a step in their order, a bounded number in work at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterable

from dream_cli.method.confining import Step
from dream_cli.records.record import Record


def _feed(records: Iterable[Record], room: threading.Semaphore, put: Callable[[Record | BaseException | None], object]) -> None:
    """Put each record as soon as there is room, then None; or what stops the reader, which must reach the rows and never hang them."""
    # The loop is gone after an interrupt or a closed pipe; then no more results are needed.
    with contextlib.suppress(RuntimeError):
        try:
            for record in records:
                room.acquire()
                put(record)
            put(None)
        except Exception as error:  # noqa: BLE001 - as the contract has it
            put(error)


async def in_order(records: Iterable[Record], step: Step, window: int) -> AsyncGenerator[tuple[Record, Record], None]:
    """Yield (record as it came, record as the step left it) in input order, at most `window` of them in work.

    What a step raises is raised at once: whatever stops the run does not wait for the rows before it, and no row is begun after it.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[Record, asyncio.Task[Record]] | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(window)
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

    # A thread of its own, and a daemon: a read that waits on stdin must hold up neither the rows in flight nor the exit.
    threading.Thread(target=_feed, args=(records, room, lambda item: loop.call_soon_threadsafe(accept, item)), daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            await asyncio.wait({item[1], failure}, return_when=asyncio.FIRST_COMPLETED)
            yield item[0], (item[1] if item[1].done() else failure).result()
            room.release()
    finally:
        if not failure.cancel():
            failure.exception()  # looked at, so that nobody reports it as lost
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

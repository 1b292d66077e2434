"""Run one stage over a stream: records in, records out, in order, a bounded number in flight."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from dream_cli.engines.address import public_address
from dream_cli.engines.costs import Prices, cost_report
from dream_cli.engines.dry import DryEngine
from dream_cli.engines.protocol import PURPOSE, Engine, EngineSpec, Purpose
from dream_cli.engines.registry import DEFAULT_MODEL, open_engine
from dream_cli.errors import RowError
from dream_cli.method.confining import Step, confined
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.identity import identified
from dream_cli.records.images import is_large, prepare
from dream_cli.records.record import Image, Record
from dream_cli.records.streams import open_writer, read_records


@dataclass
class Tally:
    """What happened to the rows of a stage."""

    rows: int = 0
    passed_on: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """1 where this stage made an error, else 0: errors that came with a row are not counted."""
        return 1 if self.errors else 0


@dataclass(frozen=True)
class Run:
    """Where a stage reads and writes, and how it treats the rows."""

    stage: str
    source: str | None
    out: str | None = None
    reading: Reading = DEFAULT_READING
    limit: int | None = None
    retry_errors: bool = False
    dry_run: bool = False
    quiet: bool = False
    verbose: bool = False
    prices: Prices | None = None

    def tell(self, message: str) -> None:
        """Write one line to stderr."""
        sys.stderr.write(f"dream {self.stage}: {message}\n")


def run_stage(run: Run, spec: EngineSpec, make_step: Callable[[Engine], Step], see: Callable[[Record], None] = lambda _: None) -> Tally:
    """Map every record of a stream through a step that calls an engine; `see` looks at each finished record.

    A RowError of the step becomes the record's `error`; rows that came with one pass through untouched.
    """
    return asyncio.run(_run(run, spec, make_step, see))


async def engine_for(run: Run, spec: EngineSpec) -> Engine:
    """Return the engine that answers in a run, reported on stderr with -v; for a dry run, an engine that only counts."""
    if run.dry_run:
        return DryEngine()
    if spec.model is None and spec.base_url is None and not run.quiet:
        run.tell(f"no model named; {DEFAULT_MODEL} answers, which knows only its own small world (--model, --base-url)")
    began = time.monotonic()
    engine = await open_engine(spec)
    if run.verbose:
        where = f" at {public_address(spec.base_url)}" if spec.base_url else ""
        run.tell(
            f"{engine.kind}{where}, model {engine.model}, fingerprint {engine.fingerprint[:16]}, ready in {time.monotonic() - began:.1f} s"
        )
        run.tell(f"calls are kept in {spec.store}" if spec.store else "no calls are kept")
    return engine


async def _run(run: Run, spec: EngineSpec, make_step: Callable[[Engine], Step], see: Callable[[Record], None]) -> Tally:
    records = read_records(run.source, run.reading, run.limit)
    tally = Tally()
    # The output is opened first: a folder that cannot be written to must not cost the loading of a model.
    with _writer(run) as write:
        engine = await engine_for(run, spec)
        began = time.monotonic()
        try:
            async for record in mapped(run, records, step=make_step(engine), engine=engine, tally=tally):
                await asyncio.to_thread(write, record)
                see(record)
        finally:
            await engine.close()
    _report(run, tally, engine, time.monotonic() - began)
    return tally


def _report(run: Run, tally: Tally, engine: Engine, seconds: float) -> None:
    if isinstance(engine, DryEngine):
        run.tell(f"dry run: {tally.rows} rows, {engine.report(run.prices)}")
    elif run.verbose:
        run.tell(f"{tally.rows} rows in {seconds:.1f} s ({tally.rows / max(seconds, 1e-6):.1f} per second)")
        run.tell(cost_report(engine.usage, run.prices))
    if tally.errors and not run.quiet:
        kinds = ", ".join(f"{n} {kind}" for kind, n in tally.errors.most_common())
        run.tell(f"{sum(tally.errors.values())} of {tally.rows} rows got an error ({kinds}); see their `error` field")


async def mapped(run: Run, records: Iterable[Record], step: Step, engine: Engine, tally: Tally) -> AsyncIterator[Record]:
    """Yield the records as a step with an engine leaves them, in order; they are counted in `tally`."""
    with _progress(run, tally) as advance:
        async for came, record in _in_order(records, _guarded(run, confined(step, engine)), 2 * engine.concurrency):
            count(tally, came, record)
            yield record
            advance()


@contextlib.contextmanager
def _writer(run: Run) -> Iterator[Callable[[Record], None]]:
    if run.dry_run:
        yield lambda _: None
        return
    with open_writer(run.out) as writer:
        yield writer.write


def count(tally: Tally, came: Record, record: Record) -> None:
    """Add one finished row to the tally; an unreadable line counts as an error of the stage that read it."""
    tally.rows += 1
    if record.error is None:
        return
    if record.error is came.error and came.came_with_error:
        tally.passed_on += 1
    else:
        tally.errors[record.error.kind] += 1


def _guarded(run: Run, step: Step) -> Step:
    alone = asyncio.Lock()

    async def one(record: Record) -> Record:
        if record.error is not None:
            if not (run.retry_errors and record.came_with_error):
                return record
            try:
                record = record.retried()
            except RowError:
                return record
        if record.images:
            record = await asyncio.to_thread(identified, record)
        else:
            record = identified(record)
        # Each record is a task of its own, so that this is seen by the calls of this record alone.
        PURPOSE.set(Purpose(run.stage, tuple(turn.prompt for turn in record.turns())))
        try:
            record.require_images()
            async with _shown(record, alone) as shown:
                return replace(await step(shown), images=record.images)
        except RowError as error:
            return record.failed(run.stage, error)

    return one


@contextlib.asynccontextmanager
async def _shown(record: Record, alone: asyncio.Lock) -> AsyncIterator[Record]:
    """Yield the record with its images as a model is shown them, prepared outside the event loop; of records with large ones one at a time.

    An image that cannot be read stays as it is: whoever shows it gets the error, and a step that looks at the text alone does not.
    """
    if not record.images:
        yield record
        return
    async with alone if await asyncio.to_thread(_has_large, record) else contextlib.nullcontext():
        yield replace(record, images=tuple(await asyncio.to_thread(lambda: [_prepared(image) for image in record.images])))


def _has_large(record: Record) -> bool:
    large = False
    for image in record.images:
        with contextlib.suppress(RowError):
            large = large or is_large(image)
    return large


def _prepared(image: Image) -> Image:
    try:
        return prepare(image)
    except RowError:
        return image


async def _in_order(records: Iterable[Record], step: Step, window: int) -> AsyncIterator[tuple[Record, Record]]:
    """Yield (record as it came, record as the step left it) in input order, at most `window` of them in work."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[Record, asyncio.Task[Record]] | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(window)

    def accept(record: Record) -> None:
        queue.put_nowait((record, asyncio.ensure_future(step(record))))

    def feed() -> None:
        # The loop is gone after an interrupt or a closed pipe; then no more results are needed.
        with contextlib.suppress(RuntimeError):
            try:
                for record in records:
                    room.acquire()
                    loop.call_soon_threadsafe(accept, record)
                loop.call_soon_threadsafe(queue.put_nowait, None)
            except Exception as error:  # noqa: BLE001 - whatever stops the reader must reach the rows, never hang them
                loop.call_soon_threadsafe(queue.put_nowait, error)

    # A thread of its own, and a daemon: a read that waits on stdin must hold up neither the rows in flight nor the exit.
    threading.Thread(target=feed, daemon=True).start()
    while (item := await queue.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item[0], await item[1]
        room.release()


def _crowded(run: Run) -> bool:
    """Whether rows, or the bar of the next stage of the pipe, go to the same terminal."""
    if run.out not in (None, "-"):
        return False
    return sys.stdout.isatty() or stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)


@contextlib.contextmanager
def _progress(run: Run, tally: Tally) -> Iterator[Callable[[], None]]:
    if run.quiet or not sys.stderr.isatty() or _crowded(run):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn(run.stage),
        TextColumn("{task.completed} rows"),
        TextColumn("{task.fields[errors]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(run.stage, total=None, errors="")

        def advance() -> None:
            bar.update(task, advance=1, errors=f"{sum(tally.errors.values())} errors" if tally.errors else "")

        yield advance

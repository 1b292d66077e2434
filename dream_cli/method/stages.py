"""The runner of a stage over a stream of records, in order, with a bounded number in flight."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence, Sized
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dream_cli.engines.address import public_address
from dream_cli.engines.breaker import BreakingEngine
from dream_cli.engines.costs import cost_report
from dream_cli.engines.dry import DryEngine
from dream_cli.engines.limits import NO_LIMITS, Limits
from dream_cli.engines.protocol import PURPOSE, Engine, EngineSpec, Purpose
from dream_cli.engines.registry import DEFAULT_MODEL, open_engine, uses_gpu
from dream_cli.engines.requests_file import Requests, written
from dream_cli.engines.store import CallStore, is_unnamed
from dream_cli.engines.stored_engine import StoredEngine
from dream_cli.errors import InternalError, RowError, Unanswered, UsageError, as_row_error
from dream_cli.formats.sources import read_shards
from dream_cli.method.confining import Step, confined
from dream_cli.method.finished import unfinished
from dream_cli.method.in_order import in_order
from dream_cli.method.progress import Shown, is_fifo, progress
from dream_cli.method.ray_pool import Cluster, Job, Pool, Result, Task, connected
from dream_cli.method.tally import NO_SUMMARY, Summary, Tally, count
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.counting import count_all, count_rows
from dream_cli.records.identity import identified
from dream_cli.records.images import is_large, prepare
from dream_cli.records.outputs import open_writer
from dream_cli.records.record import Image, Record
from dream_cli.records.shards import Part, Shard, is_folder, plan
from dream_cli.records.visible import amount, visible, visible_line

NO_MODEL = f"no model named; {DEFAULT_MODEL} answers, which knows only its own small world (--model, --base-url)"


@dataclass(frozen=True)
class Run:
    """The settings of a run: its sources (none: stdin) and output, its part of the work, and the treatment of rows."""

    stage: str
    sources: Sequence[str] = ()
    out: str | None = None
    part: Part | None = None
    reading: Reading = DEFAULT_READING
    limit: int | None = None
    retry_errors: bool = False
    dry_run: bool = False
    quiet: bool = False
    verbose: bool = False
    limits: Limits = NO_LIMITS
    requests: Requests | None = None  # the file for calls that are not sent
    cluster: Cluster | None = None

    @property
    def of_worker(self) -> Run:
        """The settings of the run for a worker, quiet because the driver reports; raises UsageError for options that --ray cannot have."""
        workers = self.cluster.workers if self.cluster else 1
        if self.requests or (self.limits.names and workers is None):
            raise UsageError("--ray divides limits among --ray-workers N, which must be given; it cannot write --requests")
        return replace(self, cluster=None, quiet=True, limits=self.limits.divided(workers or 1))

    def report(self, message: str) -> None:
        """Write one line to stderr."""
        sys.stderr.write(f"dream {self.stage}: {visible(message)}\n")


def run_stage(run: Run, spec: EngineSpec, make_step: Callable[[Engine], Step], summary: Summary = NO_SUMMARY) -> Tally:
    """Map every record of a stream through a step that calls an engine; add each finished record to `summary`.

    An exception of a step becomes the record's `error`; rows that already have one are passed on unchanged. Raises RunFailure, with the
    finished rows written to stdout, if the engine fails for the whole run. If the output is a folder, each source is a shard with its
    own output.
    """
    if is_folder(run.out) and not run.dry_run:
        return asyncio.run(_run_shards(run, spec, make_step, summary))
    if run.cluster is not None and not run.dry_run:
        raise UsageError("--ray distributes files over workers, each with its own output: name a folder with -o DIR/")
    return asyncio.run(_run(run, spec, make_step, summary))


async def engine_for(run: Run, spec: EngineSpec, *, beside: bool = False) -> Engine:
    """Return the engine of a run, reported on stderr with -v; for a dry run, an engine that only counts.

    With `beside` it has no store: each output has its own call store.
    """
    if run.dry_run:
        return DryEngine()
    began = time.monotonic()
    spec = replace(spec, store=None if beside else spec.store, limits=run.limits, requests=run.requests.file if run.requests else None)
    engine = await open_engine(spec)
    if run.limits.names and spec.base_url is None and not run.quiet:
        run.report(f"{', '.join(run.limits.names)} limits requests to a server; {engine.model} answers on this machine, without a limit")
    if run.verbose:
        host = f" at {public_address(spec.base_url)}" if spec.base_url else ""
        run.report(
            f"{engine.kind}{host}, model {engine.model}, fingerprint {engine.fingerprint[:16]}, ready in {time.monotonic() - began:.1f} s"
        )
        store = "a file beside each output" if beside else spec.store
        run.report(f"calls are kept in {store}" if store else "no calls are kept")
    return BreakingEngine(engine)


async def _run(run: Run, spec: EngineSpec, make_step: Callable[[Engine], Step], summary: Summary) -> Tally:
    records = read_shards(run.sources, run.reading, limit=run.limit, part=run.part)
    if _is_unnamed(run, spec):
        # One warning per pipe: only its first stage reads no pipe, or records that no stage has processed.
        if _reads_stdin(run) and is_fifo(0):
            records = _announced(run, records)
        else:
            run.report(NO_MODEL)
    tally = Tally()
    # The output is opened first: fail on a folder without write access before a model is loaded.
    with _writer(run) as write, written(run.requests):
        engine = await engine_for(run, spec)
        began = time.monotonic()
        try:
            await _write_all(run, engine, make_step, records=records, summary=summary, write=write, tally=tally)
        finally:
            await engine.close()
    _report(run, spec, tally, engine=engine, seconds=time.monotonic() - began)
    return tally


async def _write_all(
    run: Run,
    engine: Engine,
    make_step: Callable[[Engine], Step],
    *,
    records: Iterable[Record],
    summary: Summary,
    write: Callable[[Record], None],
    tally: Tally,
) -> None:
    rows = mapped(run, records, step=make_step(engine), engine=engine, tally=tally)
    # Closed before the engine: a row in flight must not use a closed connection.
    async with contextlib.aclosing(rows):
        async for record in rows:
            await asyncio.to_thread(write, record)
            summary.add(record)


@dataclass(frozen=True)
class ShardJob:
    """A stage over shards: the engine is opened once, and each shard has its own output and, with `beside`, its own call store."""

    run: Run
    spec: EngineSpec
    make_step: Callable[[Engine], Step]
    summary: Summary  # empty
    beside: bool

    @property
    def needs_gpu(self) -> bool:
        """Whether the model runs on this machine and can use a GPU."""
        return uses_gpu(self.spec)

    def name(self, shard: Shard) -> str:
        """Return the name of a shard's file."""
        return shard.source

    async def open(self) -> Engine:
        """Return the engine for all shards."""
        return await engine_for(self.run, self.spec, beside=self.beside)

    async def do(self, engine: Engine, shard: Shard, tally: Tally) -> Summary:
        """Map the records of one shard; the output is complete when this returns."""
        run, summary = replace(self.run, sources=(shard.source,), out=shard.out, part=shard.part), deepcopy(self.summary)
        store = (shard.store or self.spec.store) if self.beside else None
        with _writer(run) as write, _stored(engine, store) as stored:
            records = read_shards(run.sources, run.reading, limit=run.limit, part=run.part)
            await _write_all(run, stored, self.make_step, records=records, summary=summary, write=write, tally=tally)
        return summary


async def _run_shards(run: Run, spec: EngineSpec, make_step: Callable[[Engine], Step], summary: Summary) -> Tally:
    """Map the unfinished shards: sequentially with one engine, or distributed over the workers of a cluster."""
    part = run.part or Part.of_array(os.environ)
    shards = plan(run.sources, str(run.out), part)
    todo = unfinished(shards, run.stage)
    if not run.quiet:
        of = "" if part is None else f" of shard {part.index}/{part.count}"
        run.report(f"{amount(len(shards), 'file')}{of}: {len(shards) - len(todo)} finished before, {len(todo)} to do")
    tally = Tally()
    if not todo:
        return tally
    if _is_unnamed(run, spec):
        run.report(NO_MODEL)
    # A store that the user names is shared by all shards.
    job = ShardJob(run, spec, make_step, summary=deepcopy(summary), beside=is_unnamed(spec.store))
    began = time.monotonic()
    if run.cluster is not None:
        total = count_all([shard.source for shard in todo], run.limit) if part is None else None
        with spread(run, run.cluster, replace(job, run=run.of_worker), total=total) as (pool, advance):
            for part_summary in await pool.map(todo, advance):
                summary.include(part_summary)
        _report(run, spec, pool.tally, engine=pool, seconds=time.monotonic() - began)
        return pool.tally
    engine = await job.open()
    try:
        for shard in todo:
            summary.include(await job.do(engine, shard, tally))
    finally:
        await engine.close()
    _report(run, spec, tally, engine=engine, seconds=time.monotonic() - began)
    return tally


@contextlib.contextmanager
def spread(
    run: Run, cluster: Cluster, job: Job[Task, Result], total: int | None
) -> Iterator[tuple[Pool[Task, Result], Callable[[], None]]]:
    """Yield the pool of workers for a job, and the function that updates the progress of its `total` rows."""
    with connected(cluster) as ray:
        pool = Pool(ray, cluster, job, lambda line: None if run.quiet else run.report(line))
        shown = Shown(stage=run.stage, counts=lambda: pool.counts, total=lambda: total, report=run.report, to_stdout=run.out in (None, "-"))
        with progress(shown, run.quiet) as advance:
            yield pool, advance


@contextlib.contextmanager
def _stored(engine: Engine, path: str | None) -> Iterator[Engine]:
    """Yield the engine with the store of a shard; a later run of the shard reuses the finished calls."""
    if path is None:
        yield engine
        return
    store = CallStore(Path(path))
    try:
        yield StoredEngine(engine, store)
    finally:
        store.close()


def _reads_stdin(run: Run) -> bool:
    return run.sources in ((), ("-",))


def _is_unnamed(run: Run, spec: EngineSpec) -> bool:
    """Whether to warn that the embedded model answers because no other is named."""
    return spec.model is None and spec.base_url is None and not (run.quiet or run.dry_run)


def _announced(run: Run, records: Iterable[Record]) -> Iterator[Record]:
    """Yield the records of a pipe; if the first one comes from no other stage, report that the embedded model answers."""
    for number, record in enumerate(records):
        if number == 0 and record.observations is None and record.responses is None and record.error is None:
            run.report(NO_MODEL)
        yield record


def _report(run: Run, spec: EngineSpec, tally: Tally, engine: Engine | Pool[Any, Any], seconds: float) -> None:
    if isinstance(engine, DryEngine):
        run.report(f"dry run: {amount(tally.rows, 'row')}, {engine.report(run.limits)}")
    elif run.verbose:
        run.report(f"{amount(tally.rows, 'row')} in {seconds:.1f} s ({tally.rows / max(seconds, 1e-6):.1f} per second)")
    report_cost(run, engine)
    if run.quiet:
        return
    if engine.usage.retries:
        run.report(f"requests tried again: {engine.usage.retry_counts}")
    if engine.usage.constrained:
        run.report(
            f"{amount(engine.usage.constrained, 'verdict', 'were')} constrained to the allowed answers, which had only "
            f"{engine.usage.covered / engine.usage.constrained:.2f} of the probability before (mean); check the judge with `dream agree`"
        )
    if engine.usage.unkept:
        run.report(f"{amount(engine.usage.unkept, 'call', 'are')} not kept in the store; a rerun makes them again")
    if run.requests:
        run.report(run.requests.file.report(tally.errors[Unanswered.kind]))
    # Rows that wait for a batch are not failures.
    errors = tally.errors - Counter({Unanswered.kind: tally.errors[Unanswered.kind]})
    if errors:
        kinds = ", ".join(f"{n} {kind}" for kind, n in errors.most_common())
        first = tally.first[next(iter(errors))] if len(errors) == 1 else "those of each kind:"
        whose = "its" if errors.total() == 1 else "their"
        run.report(f"{errors.total()} of {amount(tally.rows, 'row')} got an error ({kinds}), see {whose} `error` field; the first: {first}")
        for kind, _ in errors.most_common() if len(errors) > 1 else ():
            sys.stderr.write(f"  {kind}: {visible_line(tally.first[kind])}\n")
    if _is_unnamed(run, spec) and not (run.out in (None, "-") and is_fifo(1)):
        run.report(f"{DEFAULT_MODEL} answered, which knows only its own small world; name a model with --model or --base-url")


def report_cost(run: Run, engine: Engine | Pool[Any, Any], name: str = "") -> None:
    """Report the calls, tokens and cost of an engine, called `name`, if there are prices or the run is verbose."""
    if not isinstance(engine, DryEngine) and (run.verbose or (run.limits.prices and not run.quiet)):
        run.report((f"{name}: " if name else "") + cost_report(engine.usage, run.limits.prices))


def _total(run: Run) -> int | None:
    """Return the number of rows of a run on one whole source; None if it cannot be counted cheaply."""
    whole = run.part is None and len(run.sources) <= 1
    return count_rows(next(iter(run.sources), None), run.limit) if whole else None


async def mapped(run: Run, records: Iterable[Record], step: Step, engine: Engine, tally: Tally) -> AsyncGenerator[Record, None]:
    """Yield the output records of a step in order, and count them in `tally`.

    Close the generator (`contextlib.aclosing`) to stop the work on further records.
    """
    shown = Shown(
        stage=run.stage,
        counts=lambda: (tally.rows, tally.errors.total()),
        total=lambda: len(records) if isinstance(records, Sized) else _total(run),
        report=run.report,
        to_stdout=run.out in (None, "-"),
        cost=lambda: f"cost {prices.cost(engine.usage):.4g}" if (prices := run.limits.prices) else "",
    )
    rows = in_order(records, _guarded(run, confined(step, engine)), 2 * engine.concurrency)
    with progress(shown, run.quiet) as advance:
        async with contextlib.aclosing(rows):
            async for came, record in rows:
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
        try:
            record = await asyncio.to_thread(identified, record) if record.images else identified(record)
            # Each record has its own task, so only the calls of this record have this purpose.
            PURPOSE.set(Purpose(run.stage, tuple(turn.prompt for turn in record.turns())))
            record.require_images()
            async with _with_prepared_images(record, alone) as prepared:
                return replace(await step(prepared), images=record.images)
        except Exception as error:  # noqa: BLE001 - a single row must not end the run
            cause = as_row_error(error)
            if run.verbose and isinstance(cause, InternalError):
                traceback.print_exc()
            return record.failed(run.stage, cause)

    return one


@contextlib.asynccontextmanager
async def _with_prepared_images(record: Record, alone: asyncio.Lock) -> AsyncIterator[Record]:
    """Yield the record with images prepared for a model, outside the event loop; records with large images one at a time.

    An unreadable image is kept as it is: a step that uses it raises the error, a step that uses only the text does not.
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

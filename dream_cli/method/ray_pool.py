"""Workers on a Ray cluster: actors that keep an engine and process one task after the other.

The task of a killed worker goes to another worker. Plain actors instead of Ray Data: a task is a whole file, but Ray Data retries
blocks of rows, and the counts, messages and errors of a worker must reach the driver as in a run without Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from dream_cli import __version__
from dream_cli.engines.protocol import Engine
from dream_cli.engines.usage import Usage
from dream_cli.errors import DreamError, RunFailure, UsageError, with_extra
from dream_cli.method.tally import Tally
from dream_cli.records.visible import amount, shorten

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

AUTO, LOCAL = "auto", "local"
ENDS = 3  # workers that may end during one task before the run stops
LOOK = 1.0  # seconds between two reads of the workers' counts
ANSWER = 5.0  # seconds within which a cluster must answer
# The variables that workers on other machines need: options, keys and access to models and files. Never part of Ray's own metadata.
_VARIABLES = ("DREAM_", "OPENAI_", "HF_", "AWS_")


@dataclass(frozen=True)
class Cluster:
    """The cluster of a run: `auto` (the Ray at RAY_ADDRESS, else the one on this machine, else a new one), `local`, or an address.

    `workers`: None for as many as the cluster has resources for. `gpus` per worker: None for 1 if the model runs on the workers and there
    are GPUs.
    """

    address: str
    workers: int | None = None
    gpus: float | None = None


class Job(Protocol[Task_contra, Result_co]):
    """The job of a worker: open an engine once, and process tasks with it. `needs_gpu`: the model runs on the worker and can use a GPU."""

    @property
    def needs_gpu(self) -> bool: ...

    def name(self, task: Task_contra) -> str:
        """Return the name of a task in messages."""
        ...

    async def open(self) -> Engine:
        """Return the engine of this worker."""
        ...

    async def do(self, engine: Engine, task: Task_contra, tally: Tally) -> Result_co:
        """Return the result of a task; its rows are counted in `tally`."""
        ...


@dataclass(frozen=True)
class Site:
    """The environment of the driver, which a worker adopts."""

    folder: str
    variables: Mapping[str, str] = field(repr=False)
    version: str = __version__

    @classmethod
    def here(cls) -> Site:
        """Return the site of this process."""
        return cls(os.getcwd(), {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)})

    def enter(self) -> None:
        """Adopt the folder and the variables; raise UsageError if the version differs or the folder cannot be used on this machine."""
        if self.version != __version__:
            raise UsageError(
                f"dream is {__version__} on {socket.gethostname()} and {self.version} here; install one version on all machines"
            )
        os.environ.update(self.variables)
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise UsageError(
                f"{socket.gethostname()} cannot use the folder {self.folder} ({error.strerror}); start in one that all machines share"
            ) from None


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What a worker returns: the result and the counts of a task, or the error that stops the run, and its output on stderr (`talk`)."""

    result: Result | None = None
    tally: Tally = field(default_factory=Tally)
    error: DreamError | None = None
    usage: Usage = field(default_factory=Usage)
    talk: str = ""


class Worker:
    """One actor. Its methods share one event loop, so that `state` answers during a task."""

    def __init__(self, job: Job[Any, Any], site: Site) -> None:
        self.job, self.site, self.tally, self.stderr = job, site, Tally(), io.StringIO()
        self.engine: Engine | None = None

    async def open(self) -> Outcome[None]:
        """Open the engine."""

        async def opened() -> None:
            self.site.enter()
            self.engine = await self.job.open()

        return await self._outcome(opened())

    async def do(self, task: Any) -> Outcome[Any]:
        """Return the outcome of one task."""
        self.tally = Tally()
        assert self.engine is not None
        return await self._outcome(self.job.do(self.engine, task, self.tally))

    async def state(self) -> tuple[Tally, str]:
        """Return the counts of the current task, and the new output on stderr."""
        return self.tally, self._talk()

    async def close(self) -> None:
        """Close the engine."""
        if self.engine is not None:
            await self.engine.close()

    async def _outcome(self, work: Any) -> Outcome[Any]:
        with contextlib.redirect_stderr(self.stderr):
            try:
                result, error = await work, None
            except DreamError as failure:
                result, error = None, failure
        usage = Usage() if self.engine is None else self.engine.usage
        return Outcome(result, self.tally, error, usage=usage, talk=self._talk())

    def _talk(self) -> str:
        text = self.stderr.getvalue()
        self.stderr.seek(0)
        self.stderr.truncate()
        return text


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster; raise UsageError if there is none. Output of Ray in the body is dropped."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    try:
        import ray
    except ImportError:
        raise UsageError(f"--ray needs the package ray; {with_extra('ray')}") from None
    address = {AUTO: os.environ.get("RAY_ADDRESS"), LOCAL: LOCAL}.get(cluster.address, cluster.address)
    _require_answer(address)
    dashboard = {"include_dashboard": False} if address in (None, LOCAL) else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **dashboard)
        except Exception as error:
            raise UsageError(f"no Ray cluster answers at {address or 'this machine'}: {shorten(str(error), 300)}") from error
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray replaced them
        # Ray reports the end of a worker on stdout, which is for data; the pool reports it on stderr.
        with contextlib.redirect_stdout(io.StringIO()):
            yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str | None) -> None:
    """Raise UsageError if nothing answers at an address, because Ray itself retries for minutes."""
    if address in (None, AUTO, LOCAL):
        return
    host, _, port = str(address).removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error}); start one there (ray start --head), or leave the address out"
        ) from None


class Pool(Generic[Task, Result]):
    """Workers that share tasks. `tally` counts finished tasks, `counts` also current ones; `report` writes one line."""

    def __init__(self, ray: Any, cluster: Cluster, job: Job[Task, Result], report: Callable[[str], None]) -> None:
        self.ray, self.cluster, self.job, self.report = ray, cluster, job, report
        self.tally = Tally()
        self._left: deque[tuple[int, Task]] = deque()
        self._results: dict[int, Result] = {}
        self._ends: Counter[int] = Counter()
        self._workers: list[Any] = []
        self._working: dict[Any, Tally] = {}  # the counts of the current tasks, by worker
        self._usages: dict[Any, Usage] = {}
        self._lines: set[str] = set()

    @property
    def counts(self) -> tuple[int, int]:
        """The rows so far, and those with an error."""
        tallies = [self.tally, *self._working.values()]
        return sum(tally.rows for tally in tallies), sum(tally.errors.total() for tally in tallies)

    @property
    def usage(self) -> Usage:
        """The usage of all engines, without tasks during which a worker was killed."""
        total = Usage()
        for usage in self._usages.values():
            total.include(usage)
        return total

    async def map(self, tasks: Sequence[Task], advance: Callable[[], None] = lambda: None) -> list[Result]:
        """Return the results of the tasks in their order; `advance` is called after changes of the counts.

        Raises an error that stops the run in a worker, and RunFailure for a task during which ENDS workers ended.
        """
        self._left = deque(enumerate(tasks))
        count, gpus = self._size(len(tasks))
        self.report(f"{amount(count, 'worker')} on Ray" + (f", {gpus:g} GPU each" if gpus else ""))
        actor = self.ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        driving = {asyncio.ensure_future(self._drive(actor)) for _ in range(count)}
        pending = {asyncio.ensure_future(self._watch(advance)), *driving}
        try:
            while len(self._results) < len(tasks):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
            # Let workers close their engines, but do not wait for workers that the cluster has not started yet.
            await asyncio.wait(driving, timeout=ANSWER)
        finally:
            for one in pending:
                one.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for worker in self._workers:
                self.ray.kill(worker)
        advance()
        return [self._results[number] for number in range(len(tasks))]

    def _size(self, tasks: int) -> tuple[int, float]:
        """Return the number of workers and the GPUs of each."""
        resources = self.ray.cluster_resources()
        gpus = self.cluster.gpus
        if gpus is None:
            gpus = 1.0 if self.job.needs_gpu and resources.get("GPU") else 0.0
        if gpus > resources.get("GPU", 0):
            self.report(f"the cluster has {resources.get('GPU', 0):g} GPUs now, and each worker waits for {gpus:g} (--ray-gpus)")
        fitting = min(resources.get("CPU", 1), resources.get("GPU", 0) / gpus if gpus else tasks)
        return min(tasks, self.cluster.workers or max(1, int(fitting))), gpus

    async def _drive(self, actor: Any) -> None:
        """Give tasks to one worker until none is left; if the worker ends, start another."""
        worker = None
        while self._left:
            taken = None
            try:
                if worker is None:
                    # Take no task before the worker has started, which may wait for resources of the cluster.
                    worker = actor.remote(self.job, Site.here())
                    self._workers.append(worker)
                    self._accept(worker, await worker.open.remote())
                    continue
                taken = self._left.popleft()
                self._working[worker] = Tally()
                self._results[taken[0]] = self._accept(worker, await worker.do.remote(taken[1]))
            except self.ray.exceptions.RayTaskError:
                raise  # an exception in our own code
            except self.ray.exceptions.RayError as error:
                self._working.pop(worker, None)
                self._requeue(taken, shorten(" ".join(str(error).split()), 200))
                worker = None
        if worker is not None:
            with contextlib.suppress(self.ray.exceptions.RayError):
                await worker.close.remote()

    def _accept(self, worker: Any, outcome: Outcome[Any]) -> Any:
        """Count a task and return its result; raise an error that stops the run."""
        self._working.pop(worker, None)
        self._usages[worker] = outcome.usage
        self._write(outcome.talk)
        if outcome.error is not None:
            raise outcome.error
        self.tally.include(outcome.tally)
        return outcome.result

    def _requeue(self, taken: tuple[int, Task] | None, reason: str) -> None:
        """Return the task of an ended worker to the queue; raise RunFailure if ENDS workers ended during this task."""
        number = -1 if taken is None else taken[0]
        name = "a worker that opens its engine" if taken is None else self.job.name(taken[1])
        self._ends[number] += 1
        if self._ends[number] == ENDS:
            raise RunFailure(f"{name} was ended {ENDS} times, by the system or for lack of memory; Ray reports: {reason}")
        self.report(f"a worker ended during {name}, which is started again" if taken else f"{name} ended, and is started again")
        if taken is not None:
            self._left.appendleft(taken)

    async def _watch(self, advance: Callable[[], None]) -> None:
        """Read the counts and messages of the workers periodically."""

        async def look(worker: Any) -> None:
            with contextlib.suppress(self.ray.exceptions.RayError, TimeoutError):
                tally, talk = await asyncio.wait_for(worker.state.remote(), LOOK)
                if worker in self._working:
                    self._working[worker] = tally
                self._write(talk)

        while True:
            await asyncio.sleep(LOOK)
            await asyncio.gather(*map(look, list(self._working)))
            advance()

    def _write(self, talk: str) -> None:
        """Print each distinct worker message once: most workers report the same."""
        for line in talk.splitlines(keepends=True):
            if line not in self._lines:
                self._lines.add(line)
                sys.stderr.write(line)

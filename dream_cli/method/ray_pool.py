"""Workers on the machines of a Ray cluster: actors that keep an engine, and do one task after the other.

The tasks of a worker that is killed are done by another. Plain actors, without Ray Data: a task is a whole file, which Ray's blocks of
rows neither split nor retry as one, and the counts, messages and errors of a worker have to reach the driver as those of a plain run.
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
ENDS = 3  # workers that one task may end before the run stops
LOOK = 1.0  # seconds between two looks at the counts of the workers
ANSWER = 5.0  # seconds in which the address of a cluster has to answer
# The variables that workers on other machines need: options, keys and the access to models and files. Never part of Ray's own metadata.
_VARIABLES = ("DREAM_", "OPENAI_", "HF_", "AWS_")


@dataclass(frozen=True)
class Cluster:
    """Where the workers run: `auto` (the Ray that RAY_ADDRESS names or that runs here, else one that is started), `local`, or an address.

    `workers`: None for as many as there is room for. `gpus` per worker: None for 1 where a model runs on the workers and there are GPUs.
    """

    address: str
    workers: int | None = None
    gpus: float | None = None


class Job(Protocol[Task_contra, Result_co]):
    """What a worker does: open an engine once, and map tasks with it. `needs_gpu`: its model runs on the worker, where a GPU helps."""

    @property
    def needs_gpu(self) -> bool: ...

    def name(self, task: Task_contra) -> str:
        """Return the name of a task in messages."""
        ...

    async def open(self) -> Engine:
        """Return the engine of this worker."""
        ...

    async def do(self, engine: Engine, task: Task_contra, tally: Tally) -> Result_co:
        """Return the result of a task, whose rows are counted in `tally`."""
        ...


@dataclass(frozen=True)
class Site:
    """Where the driver runs: what a worker takes over from it."""

    folder: str
    variables: Mapping[str, str] = field(repr=False)
    version: str = __version__

    @classmethod
    def here(cls) -> Site:
        """Return the site of this process."""
        return cls(os.getcwd(), {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)})

    def enter(self) -> None:
        """Take over folder and variables; raise UsageError if this machine does not have what is needed."""
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
    """What a worker returns: the result and the counts of a task, or the error that stops the run, and what it wrote on stderr."""

    result: Result | None = None
    tally: Tally = field(default_factory=Tally)
    error: DreamError | None = None
    usage: Usage = field(default_factory=Usage)
    talk: str = ""


class Worker:
    """One actor. Its methods run on one event loop, so that `state` answers while a task is done."""

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
        """Do one task."""
        self.tally = Tally()
        assert self.engine is not None
        return await self._outcome(self.job.do(self.engine, task, self.tally))

    async def state(self) -> tuple[Tally, str]:
        """Return the counts of the task in work, and what was written on stderr since the last look."""
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
    """Yield the module `ray`, connected to a cluster; raise UsageError if there is none. What Ray prints meanwhile is dropped."""
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
            signal.signal(number, handler)  # Ray puts its own in their place
        # Ray reports the end of a worker on stdout, which is for data; the pool reports it too.
        with contextlib.redirect_stdout(io.StringIO()):
            yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str | None) -> None:
    """Raise UsageError if nothing answers at an address: Ray itself tries for minutes."""
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
    """Workers that share tasks. `tally` is of the finished tasks, `counts` also of those in work; `report` writes one line."""

    def __init__(self, ray: Any, cluster: Cluster, job: Job[Task, Result], report: Callable[[str], None]) -> None:
        self.ray, self.cluster, self.job, self.report = ray, cluster, job, report
        self.tally = Tally()
        self._left: deque[tuple[int, Task]] = deque()
        self._results: dict[int, Result] = {}
        self._ends: Counter[int] = Counter()
        self._workers: list[Any] = []
        self._working: dict[Any, Tally] = {}  # the counts of the tasks in work, by worker
        self._usages: dict[Any, Usage] = {}
        self._lines: set[str] = set()

    @property
    def counts(self) -> tuple[int, int]:
        """The rows so far, and those with an error."""
        tallies = [self.tally, *self._working.values()]
        return sum(tally.rows for tally in tallies), sum(tally.errors.total() for tally in tallies)

    @property
    def usage(self) -> Usage:
        """The use of all engines; what a worker used for a task in which it was killed is not known."""
        total = Usage()
        for usage in self._usages.values():
            total.include(usage)
        return total

    async def map(self, tasks: Sequence[Task], advance: Callable[[], None] = lambda: None) -> list[Result]:
        """Return the results of the tasks in their order; `advance` is called when counts have changed.

        Raises what stops the run in a worker, and RunFailure for a task that ends one worker after the other.
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
            # Those that close their engine; others may still wait for room in the cluster.
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
        room = self.ray.cluster_resources()
        gpus = self.cluster.gpus
        if gpus is None:
            gpus = 1.0 if self.job.needs_gpu and room.get("GPU") else 0.0
        if gpus > room.get("GPU", 0):
            self.report(f"the cluster has {room.get('GPU', 0):g} GPUs now, and each worker waits for {gpus:g} (--ray-gpus)")
        fitting = min(room.get("CPU", 1), room.get("GPU", 0) / gpus if gpus else tasks)
        return min(tasks, self.cluster.workers or max(1, int(fitting))), gpus

    async def _drive(self, actor: Any) -> None:
        """Keep one worker at work until no task is left; where it ends, start another in its place."""
        worker = None
        while self._left:
            taken = None
            try:
                if worker is None:
                    # No task is taken before the worker is up, which may wait for room in the cluster.
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
                self._take_up(taken, shorten(" ".join(str(error).split()), 200))
                worker = None
        if worker is not None:
            with contextlib.suppress(self.ray.exceptions.RayError):
                await worker.close.remote()

    def _accept(self, worker: Any, outcome: Outcome[Any]) -> Any:
        """Return the result of a task, and count it; raise what stops the run."""
        self._working.pop(worker, None)
        self._usages[worker] = outcome.usage
        self._write(outcome.talk)
        if outcome.error is not None:
            raise outcome.error
        self.tally.include(outcome.tally)
        return outcome.result

    def _take_up(self, taken: tuple[int, Task] | None, reason: str) -> None:
        """Give back the task of a worker that has ended; raise RunFailure if it is not the first one that this task has ended."""
        number = -1 if taken is None else taken[0]
        name = "a worker that opens its engine" if taken is None else self.job.name(taken[1])
        self._ends[number] += 1
        if self._ends[number] == ENDS:
            raise RunFailure(f"{name} was ended {ENDS} times, by the system or for want of memory; Ray reports: {reason}")
        self.report(f"a worker ended in its work on {name}, which is taken up again" if taken else f"{name} ended, and is started again")
        if taken is not None:
            self._left.appendleft(taken)

    async def _watch(self, advance: Callable[[], None]) -> None:
        """Look at the counts and messages of the workers again and again."""

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
        """Write each line of the workers once: most of them have the same to say."""
        for line in talk.splitlines(keepends=True):
            if line not in self._lines:
                self._lines.add(line)
                sys.stderr.write(line)

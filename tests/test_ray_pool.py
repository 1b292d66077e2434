"""The pool of workers with a stand-in for Ray: which worker does what, and what happens when one ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dream_cli.cli.arguments import with_values
from dream_cli.engines.costs import Prices
from dream_cli.engines.limits import Limits
from dream_cli.engines.usage import Usage
from dream_cli.errors import RunFailure, UsageError
from dream_cli.evaluation.preferring import Wins
from dream_cli.method import ray_pool
from dream_cli.method.ray_pool import Cluster, Pool, Site, Worker, connected
from dream_cli.method.stages import Run
from dream_cli.method.summaries import Doubts, Scores
from dream_cli.method.tally import Tally
from dream_cli.records.record import Record
from tests.conftest import Workdir

AUTO = Cluster("auto")


class RayError(Exception):
    """Stands for the end of a worker."""


class RayTaskError(RayError):
    """Stands for an exception in a task."""


class Method:
    """A method of an actor: `remote` starts it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class FakeRay:
    """Actors in this process, on a cluster with these resources."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, **resources: float) -> None:
        self.resources = resources or {"CPU": 2.0}
        self.made: list[Any] = []
        self.settings: dict[str, Any] = {}
        self.killed: list[Any] = []

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, of: type[Worker]) -> Any:
        def make(job: Any, site: Site) -> Any:
            worker = of(job, site)
            actor = SimpleNamespace(**{name: Method(getattr(worker, name)) for name in ("open", "do", "state", "close")})
            # A namespace is equal to another with equal parts; actors are not.
            handle = type("Handle", (), vars(actor))()
            self.made.append(handle)
            return handle

        def options(**settings: Any) -> Any:
            self.settings = settings
            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def kill(self, worker: Any) -> None:
        self.killed.append(worker)


@dataclass
class Doubling:
    """A job that doubles numbers; `fault` is raised for a task."""

    fault: Callable[[int], None] = lambda task: None
    needs_gpu: bool = False
    done: list[int] = field(default_factory=list)
    closed: int = 0

    def name(self, task: int) -> str:
        return f"task {task}"

    async def open(self) -> Any:
        sys.stderr.write("ready\n")

        async def close() -> None:
            self.closed += 1

        return SimpleNamespace(usage=Usage(calls=len(self.done)), close=close)

    async def do(self, engine: Any, task: int, tally: Tally) -> int:
        await asyncio.sleep(0)
        self.fault(task)
        engine.usage.calls += 1
        tally.rows += task
        self.done.append(task)
        return 2 * task


def mapped(ray: FakeRay, job: Doubling, tasks: list[int], cluster: Cluster = AUTO) -> tuple[list[int], Pool[int, int], list[str]]:
    lines: list[str] = []
    pool = Pool(ray, cluster, job, lines.append)
    return asyncio.run(pool.map(tasks)), pool, lines


def test_results_come_in_the_order_of_the_tasks_and_counts_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    ray, job = FakeRay(), Doubling()
    results, pool, lines = mapped(ray, job, [1, 2, 3, 4, 5])
    assert results == [2, 4, 6, 8, 10]
    assert (pool.tally.rows, pool.counts, pool.usage.calls) == (15, (15, 0), 5)
    assert lines == ["2 workers on Ray"]
    assert (len(ray.made), job.closed, ray.killed) == (2, 2, ray.made)
    assert capsys.readouterr().err == "ready\n"  # what both workers write is shown once


def test_the_task_of_a_worker_that_ends_is_done_by_another() -> None:
    left = [3]

    def fault(task: int) -> None:
        if task in left:
            left.remove(task)
            raise RayError("The actor died")

    ray, job = FakeRay(), Doubling(fault)
    results, pool, lines = mapped(ray, job, [1, 2, 3, 4])
    assert results == [2, 4, 6, 8]
    assert (sorted(job.done), pool.tally.rows, len(ray.made)) == ([1, 2, 3, 4], 10, 3)
    assert lines[1:] == ["a worker ended during task 3, which is started again"]


def test_a_task_that_ends_three_workers_stops_the_run() -> None:
    def fault(task: int) -> None:
        if task == 2:
            raise RayError("The actor died:\n out of memory")

    ray = FakeRay()
    with pytest.raises(RunFailure, match=r"^task 2 was ended 3 times, .*; Ray reports: The actor died: out of memory$"):
        mapped(ray, Doubling(fault), [1, 2])
    assert ray.killed == ray.made


def test_what_stops_a_run_in_a_worker_stops_it_here() -> None:
    def fault(task: int) -> None:
        raise RunFailure("the server is gone")

    with pytest.raises(RunFailure, match="^the server is gone$"):
        mapped(FakeRay(), Doubling(fault), [1, 2, 3])


@pytest.mark.parametrize(
    ("resources", "cluster", "needs_gpu", "workers", "gpus"),
    [
        ({"CPU": 8.0}, Cluster("auto"), True, 8, 0.0),
        ({"CPU": 8.0, "GPU": 2.0}, Cluster("auto"), True, 2, 1.0),
        ({"CPU": 8.0, "GPU": 2.0}, Cluster("auto"), False, 8, 0.0),
        ({"CPU": 8.0, "GPU": 2.0}, Cluster("auto", gpus=0.5), True, 4, 0.5),
        ({"CPU": 8.0, "GPU": 2.0}, Cluster("auto", workers=3, gpus=0), True, 3, 0.0),
        ({"CPU": 64.0}, Cluster("auto"), False, 20, 0.0),
    ],
)
def test_the_number_of_workers_and_their_gpus(
    resources: dict[str, float], cluster: Cluster, needs_gpu: bool, workers: int, gpus: float
) -> None:
    ray = FakeRay(**resources)
    mapped(ray, Doubling(needs_gpu=needs_gpu), list(range(20)), cluster)
    assert (len(ray.made), ray.settings["num_gpus"]) == (workers, gpus)


def test_workers_that_wait_for_gpus_are_reported() -> None:
    _, _, lines = mapped(FakeRay(CPU=2.0), Doubling(), [1], Cluster("auto", gpus=2))
    assert lines[0] == "the cluster has 0 GPUs now, and each worker waits for 2 (--ray-gpus)"


def test_a_worker_takes_over_the_folder_and_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_API_KEY", "secret")
    monkeypatch.setenv("OTHER", "x")
    site = Site.here()
    assert "secret" not in repr(site) and site.variables["DREAM_API_KEY"] == "secret" and "OTHER" not in site.variables
    monkeypatch.chdir(tmp_path)
    site.enter()
    assert os.getcwd() == site.folder
    with pytest.raises(UsageError, match=rf"^{socket.gethostname()} cannot use the folder /nowhere/x \(No such file or directory\)"):
        Site("/nowhere/x", {}).enter()
    with pytest.raises(UsageError, match="install one version on all machines"):
        Site(str(tmp_path), {}, version="0.0.1").enter()


def test_an_address_that_does_not_answer_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(shutdown=lambda: None))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # held and never listening: refused at once
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(UsageError, match=rf"^no Ray cluster answers at {address} "), connected(Cluster(address)):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"^--ray needs the package ray; .*\.\[ray\]"), connected(Cluster("auto")):
        pass


@pytest.mark.parametrize(
    ("named", "variable", "address"),
    [("auto", None, None), ("auto", "head:1", "head:1"), ("local", "head:1", "local"), ("h:2", None, "h:2")],
)
def test_the_address_of_the_cluster(named: str, variable: str | None, address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    handler = signal.getsignal(signal.SIGTERM)

    def init(address: str | None, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        calls.append(address)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: calls.append("shut down")))
    monkeypatch.setattr(ray_pool, "_require_answer", lambda address: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    with connected(Cluster(named)):
        assert signal.getsignal(signal.SIGTERM) is handler
    assert calls == [address, "shut down"]


def test_limits_are_divided_among_workers() -> None:
    prices = Prices(1.0, 2.0)
    assert Limits(max_cost=9.0, rpm=100, tpm=2, prices=prices).divided(4) == Limits(max_cost=2.25, rpm=25, tpm=1, prices=prices)
    run = Run("judge", cluster=Cluster("auto", workers=4), limits=Limits(rpm=100))
    assert (run.of_worker.limits, run.of_worker.cluster) == (Limits(rpm=25), None)
    with pytest.raises(UsageError, match="--ray-workers N, which must be given"):
        _ = replace(run, cluster=Cluster("auto")).of_worker


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("--ray", "--ray=auto"),
        ("--ray in/ -o out/", "--ray=auto in/ -o out/"),
        ("in/ --ray -o out/", "in/ --ray=auto -o out/"),
        ("--ray local in/", "--ray=local in/"),
        ("--ray head:6379 in/", "--ray=head:6379 in/"),
        ("--ray ray://10.0.0.1:10001", "--ray=ray://10.0.0.1:10001"),
        ("in.jsonl", "in.jsonl"),
    ],
)
def test_an_address_may_follow_and_a_file_is_none(line: str, read: str) -> None:
    assert with_values(line.split()) == read.split()


def test_options_of_workers_need_a_cluster_and_a_cluster_needs_a_folder(work: Workdir) -> None:
    work.write("a.jsonl", [{"prompt": "Hi"}])
    server = ("--base-url", "http://127.0.0.1:9/v1")
    assert "name it with --ray" in work.dream("sample", "a.jsonl", "--ray-workers", "2", *server).err
    assert "name a folder with -o DIR/" in work.dream("sample", "a.jsonl", "--ray", *server).err
    ran = work.dream("sample", "a.jsonl", "--ray=nonsense", *server)
    assert (ran.code, ran.out) == (2, "") and "--ray nonsense is not the address of a Ray cluster" in ran.err


def test_the_look_at_workers_shows_the_counts_of_tasks_in_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "LOOK", 0.01)
    seen: list[tuple[int, int]] = []

    @dataclass
    class Slow(Doubling):
        async def do(self, engine: Any, task: int, tally: Tally) -> int:
            tally.rows = 7
            while (7, 0) not in seen:
                await asyncio.sleep(0.01)
            return task

    pool = Pool(FakeRay(), Cluster("auto"), Slow(), lambda line: None)
    asyncio.run(pool.map([1], lambda: seen.append(pool.counts)))
    assert seen[-1] == (7, 0)


def test_summaries_of_several_workers_add_up() -> None:
    record = Record.from_dict(
        {
            "prompt": "Hi",
            "observations": [{"malicious_content": "x", "source": "text content", "risk_category": "Violence", "unverified": "no"}],
            "responses": [
                {"text": "a", "judgement": {"score": 0.5, "uncertainty": 0.1}},
                {"text": "b", "judgement": {"unscored": "empty: x"}},
            ],
        }
    )
    summaries: list[Callable[[], Any]] = [Scores, Doubts, Wins]
    for summary in summaries:
        whole, first, second = summary(), summary(), summary()
        for part in (whole, whole, first, second):
            part.add(record)
        first.include(second)
        assert first == whole
    usage = Usage(calls=1, retries=Counter(rate=2), cached_tokens=3)
    usage.include(Usage(calls=4, retries=Counter(rate=1, other=1), cached_tokens=5, covered=0.5))
    assert usage == Usage(calls=5, retries=Counter(rate=3, other=1), cached_tokens=8, covered=0.5)
    tally = Tally(rows=2, errors=Counter(image=1), first={"image": "first"})
    tally.include(Tally(rows=3, passed_on=1, errors=Counter(image=1, engine=1), first={"image": "second", "engine": "gone"}))
    assert tally == Tally(5, 1, Counter(image=2, engine=1), {"image": "first", "engine": "gone"})

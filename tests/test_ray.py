"""The same commands on a Ray cluster of this machine: equal outputs, killed workers, a killed driver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workdir
from tests.loopback import Loopback

pytest.importorskip("ray")

# The head of a cluster with two CPUs, until its stdin is closed.
HEAD = """
import sys, ray
context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=100_000_000)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
# On a busy machine the processes of Ray take long to start.
PATIENCE = {"RAY_agent_register_timeout_ms": "300000", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
ROWS, CONCURRENCY = 12, 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster: the one that RAY_ADDRESS names, or one that is started here."""
    if running := os.environ.get("RAY_ADDRESS"):
        yield running
        return
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DREAM_")} | PATIENCE
    with subprocess.Popen([sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True) as head:
        assert head.stdin is not None and head.stdout is not None
        address = head.stdout.readline().strip()
        if not address:
            pytest.skip("Ray does not start: it allows its processes half a minute, and this machine is too busy")
        yield address
        head.stdin.close()
        head.wait(60)


@pytest.fixture
def files(work: Workdir) -> Workdir:
    """A folder of four files, whose calls are kept beside each output."""
    (work.path / "in").mkdir()
    for name in "abcd":
        work.write(f"in/{name}.jsonl", [{"id": f"{name}{n}", "prompt": f"Say {name}{n}.", "observations": []} for n in range(ROWS)])
    del work.env["DREAM_STORE"]
    work.env |= PATIENCE
    return work


def outputs(work: Workdir, folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((work.path / folder).glob("*.jsonl"))}


def options(server: Loopback) -> list[str]:
    return ["--base-url", server.url, "--concurrency", str(CONCURRENCY)]


def talk(text: str) -> list[str]:
    """Return the lines of stderr without those of progress, which a busy machine has."""
    return [line for line in text.splitlines() if not re.search(r": [\d,]+ (of [\d,]+ )?rows?, ", line)]


def workers(folder: Path) -> list[int]:
    """Return the processes of the workers in a folder: Ray names each after its class, and after the method while it runs."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_worker(entry, folder)]


def _is_worker(process: Path, folder: Path) -> bool:
    try:
        return (process / "cmdline").read_bytes().startswith(b"ray::Worker") and (process / "cwd").samefile(folder)
    except OSError:
        return False


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_outputs_summary_and_code_are_those_of_the_plain_run(files: Workdir, cluster: str, server: Loopback) -> None:
    plain = files.dream("sample", "in", "-n", "2", "-o", "sampled/", *options(server))
    ray = files.dream("sample", "in", "-n", "2", "-o", "spread/", *options(server), "--ray", cluster)
    assert (ray.code, ray.out, plain.code) == (0, "", 0)
    assert outputs(files, "spread") == outputs(files, "sampled") and len(outputs(files, "spread")) == 4
    assert talk(ray.err) == ["dream sample: 4 files: 0 finished before, 4 to do", "dream sample: 2 workers on Ray"]
    assert files.dream("sample", "in", "-n", "2", "-o", "spread/", *options(server), "--ray", cluster).err == (
        "dream sample: 4 files: 4 finished before, 0 to do\n"
    )
    plain = files.dream("judge", "sampled", "-o", "judged/", *options(server))
    ray = files.dream("judge", "spread", "-o", "judged-by-ray/", *options(server), "--ray", cluster)
    assert outputs(files, "judged-by-ray") == outputs(files, "judged")
    lines = talk(ray.err)
    lines.remove("dream judge: 2 workers on Ray")
    assert (ray.code, lines) == (plain.code, talk(plain.err))
    assert "judge: 48 rows, 96 responses" in ray.err


def test_a_killed_worker_costs_no_more_than_what_was_in_flight(files: Workdir, cluster: str) -> None:
    with Loopback(latency=0.2) as server:
        line = files.command("sample", "in", "-o", "out/", *options(server), "--ray", cluster)
        with subprocess.Popen(line, cwd=files.path, env=files.env, stderr=subprocess.PIPE, text=True) as driver:
            assert driver.stderr is not None
            wait_for(lambda: server.calls >= 6)
            for worker in workers(files.path):
                os.kill(worker, signal.SIGKILL)
            lines = talk(driver.stderr.read())
        assert driver.returncode == 0, lines
        assert re.search(r"a worker ended during in/\w\.jsonl, which is started again", "\n".join(lines))
        assert 4 * ROWS <= server.calls <= 4 * ROWS + 2 * CONCURRENCY
    assert [len(lines.splitlines()) for lines in outputs(files, "out").values()] == [ROWS] * 4


def test_a_killed_driver_is_resumed_by_the_same_command(files: Workdir, cluster: str) -> None:
    with Loopback(latency=0.2) as server:
        arguments = ("sample", "in", "-o", "out/", *options(server), "--ray", cluster)
        with subprocess.Popen(files.command(*arguments), cwd=files.path, env=files.env, stderr=subprocess.DEVNULL) as driver:
            wait_for(lambda: server.calls >= 6)
            driver.kill()
        # Ray ends the workers of a driver that is gone.
        wait_for(lambda: not workers(files.path))
        ran = files.dream(*arguments)
        assert ran.code == 0
        assert 4 * ROWS <= server.calls <= 4 * ROWS + 2 * CONCURRENCY
    assert [len(lines.splitlines()) for lines in outputs(files, "out").values()] == [ROWS] * 4
    assert [path.name for path in (files.path / "out").glob(".*")] == []


def test_what_stops_the_run_in_a_worker_stops_it_with_the_same_words(files: Workdir, cluster: str) -> None:
    with Loopback(faults=[401] * 99) as server:
        ran = files.dream("sample", "in", "-o", "out/", *options(server), "--ray", cluster)
        plain = files.dream("sample", "in", "-o", "plain/", *options(server))
    assert (ran.code, plain.code) == (2, 2)
    assert ran.err.splitlines()[-1] == plain.err.splitlines()[-1]
    assert outputs(files, "out") == {}


def test_an_evaluation_gives_the_items_and_the_card_of_the_plain_run(files: Workdir, cluster: str, server: Loopback) -> None:
    rows = [{"id": str(n), "prompt": f"Say {n}.", "harmful": n % 2 == 0} for n in range(40)]
    files.write("own.jsonl", rows)
    line = (
        "eval",
        "own.jsonl",
        *options(server),
        "--model",
        "loopback",
        "--judge",
        "loopback",
        "--judge-base-url",
        server.url,
        "--no-store",
    )
    plain, ray = files.dream(*line), files.dream(*line, "--ray", cluster)
    assert (ray.code, ray.out) == (plain.code, plain.out)
    assert len(ray.rows) == 40
    assert [line for line in talk(ray.err) if not line.endswith("2 workers on Ray")] == talk(plain.err)

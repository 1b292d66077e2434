"""The check of the rows: in several processes, once per run, and without a time limit for the processes that wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import DreamError, UsageError
from dream_cli.training import preflight, reporting
from dream_cli.training.rows import Row
from dream_cli.training.settings import Hardware
from tests import training, zoo

pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.build("llava", tmp_path_factory.mktemp("zoo") / "llava")


def test_several_processes_find_what_one_finds_in_the_same_order(tmp_path: Path, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = training.rows(tmp_path, 9)
    records[1]["images"] = ["gone.png"]
    records[3]["prompt"] = "an <image>"
    records[5]["response"] = "word " * 600
    records[7]["images"] = ["gone too.png"]
    job = training.job(training.write(tmp_path / "in.jsonl", records), llava, tmp_path / "out", on_too_long="stop")
    alone = job_problems(replace(job, hardware=Hardware(workers=1)))
    pools: list[int] = []
    make = ProcessPoolExecutor

    def counted(count: int, **more: Any) -> Any:
        pools.append(count)
        return make(count, **more)

    monkeypatch.setattr(preflight, "ProcessPoolExecutor", counted)
    monkeypatch.setattr(preflight, "_ALONE", 2)
    monkeypatch.setattr(preflight, "_BATCH", 2)
    assert job_problems(replace(job, hardware=Hardware(workers=2))) == alone
    assert pools == [2]
    assert [line.split(":")[1] for line in alone[1:]] == ["2", "4", "6", "8"]


def test_a_process_that_dies_is_named_with_the_way_around_it(tmp_path: Path, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ProcessPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise BrokenProcessPool

    monkeypatch.setattr(preflight, "ProcessPoolExecutor", Broken)
    monkeypatch.setattr(preflight, "_ALONE", 2)
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    with pytest.raises(DreamError, match="a process that checks rows ended: .* --workers 1 checks in one process"):
        training.check("sft", training.job(source, llava, tmp_path / "out", hardware=Hardware(workers=2)))


def job_problems(job: Any) -> list[str]:
    """Return the lines of the message about the rows of a job."""
    with pytest.raises(UsageError) as refused:
        training.check("sft", job)
    return str(refused.value).splitlines()


def test_a_run_that_was_checked_is_not_checked_again(tmp_path: Path, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    job = training.job(source, llava, tmp_path / "out")
    counts: list[int] = []
    tokens = preflight.Preflight.tokens

    def counted(self: preflight.Preflight, row: Row) -> int:
        counts.append(1)
        return tokens(self, row)

    monkeypatch.setattr(preflight.Preflight, "tokens", counted)
    with monkeypatch.context() as broken:
        broken.setattr("dream_cli.training.running._trainer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            training.train("sft", job)
    assert len(counts) == 12
    first = training.train("sft", job).record
    assert training.train("sft", job).record == first
    assert len(counts) == 12
    Path(source).write_text("".join(f"{line}\n" for line in Path(source).read_text().splitlines()[:8]))
    with pytest.raises(UsageError, match=r"holds another run \(rows differ\)"):
        training.train("sft", job)
    assert len(counts) == 20


def test_the_check_reports_its_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr("dream_cli.training.reporting.time.monotonic", lambda: next(clock))
    assert list(reporting.counted("abcd", "dpo", quiet=False)) == list("abcd")
    assert capsys.readouterr().err == "dpo: 2 rows checked, 0.0 rows per second\ndpo: 4 rows checked, 0.0 rows per second\n"
    assert list(reporting.counted("abcd", "dpo", quiet=True)) == list("abcd")
    assert capsys.readouterr().err == ""
    assert list(reporting.counted("ab", "dpo", quiet=False, work="scored by the reference", size=8)) == list("ab")
    assert capsys.readouterr().err == "dpo: 16 rows scored by the reference, 0.1 rows per second\n"


WAITING = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
from dream_cli.training.launching import first_does, is_first
dist.init_process_group("gloo", timeout=timedelta(seconds=float(sys.argv[1])))
for turn, late in enumerate((False, True)):
    began = time.monotonic()
    if not is_first():
        time.sleep(late * float(sys.argv[2]))
    assert first_does(lambda: time.sleep((not late) * float(sys.argv[2])) or f"turn {turn}") == f"turn {turn}"
    assert time.monotonic() - began > float(sys.argv[1])
"""


def test_processes_wait_for_each_other_longer_than_a_collective_does() -> None:
    """The others for the first, and then the first for one that comes later."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WAITING, "5", "8"]
    both = [subprocess.Popen(command, env=shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors

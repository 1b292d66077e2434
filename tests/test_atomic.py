"""Files are written whole or not at all, and leftovers of dead processes are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream_cli.errors import UsageError
from dream_cli.records.atomic import replacing, replacing_path, write_once, write_text


@pytest.fixture
def dead() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def alive() -> Iterator[int]:
    """Yield the id of another process that runs."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(out: Path, data: bytes) -> None:
    with replacing(str(out)) as file:
        file.write(data)


@pytest.mark.parametrize("fault", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path, fault: BaseException) -> None:
    out = tmp_path / "out.jsonl"
    write(out, b"old")
    with pytest.raises(type(fault)), replacing(str(out)) as file:
        file.write(b"half")
        file.flush()
        assert out.read_bytes() == b"old"
        assert names(tmp_path) == [f".out.jsonl.{os.getpid()}.tmp", "out.jsonl"]
        raise fault
    assert out.read_bytes() == b"old"
    assert names(tmp_path) == ["out.jsonl"]


def test_a_failure_in_the_middle_of_a_path_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    write_text(out, "old")
    with pytest.raises(ValueError, match="no"), replacing_path(out) as temporary:
        temporary.write_text("half")
        raise ValueError("no")
    assert out.read_text() == "old"
    assert names(tmp_path) == ["run.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "merged"
    with pytest.raises(ValueError, match="no"), replacing_path(out) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("half")
        raise ValueError("no")
    assert names(tmp_path) == []
    with replacing_path(out) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("whole")
    assert names(tmp_path) == ["merged"]
    assert (out / "weights").read_text() == "whole"


def test_a_rename_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    write(out, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(UsageError, match=r"cannot write .*out\.jsonl: No space left on device; free some space"):
            write(out, b"new")
    assert out.read_bytes() == b"old"
    assert names(tmp_path) == ["out.jsonl"]


def test_a_leftover_of_a_dead_process_is_removed_and_one_of_a_live_process_is_not(tmp_path: Path, dead: int, alive: int) -> None:
    for name in ("out.jsonl", "other.jsonl"):
        for process in (dead, alive):
            (tmp_path / f".{name}.{process}.tmp").write_text("half")
    (tmp_path / f".out.jsonl.{dead}").mkdir()  # has not the form of a temporary
    (tmp_path / f".out_jsonl.{dead}.tmp").write_text("a dot in the name is a dot")
    write(tmp_path / "out.jsonl", b"new")
    kept = [f".other.jsonl.{dead}.tmp", f".other.jsonl.{alive}.tmp", f".out.jsonl.{alive}.tmp"]
    assert names(tmp_path) == sorted([*kept, f".out.jsonl.{dead}", f".out_jsonl.{dead}.tmp", "out.jsonl"])


def test_a_leftover_folder_of_a_dead_process_is_removed(tmp_path: Path, dead: int) -> None:
    (tmp_path / f".merged.{dead}.tmp").mkdir()
    (tmp_path / f".merged.{dead}.tmp" / "weights").write_text("half")
    with replacing_path(tmp_path / "merged") as temporary:
        temporary.mkdir()
    assert names(tmp_path) == ["merged"]


def test_a_killed_command_leaves_a_temporary_that_the_next_one_removes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code = f"import time\nfrom dream_cli.records.atomic import replacing\nwith replacing({str(out)!r}) as file:\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not names(tmp_path):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(tmp_path) == [f".out.jsonl.{process.pid}.tmp"]
    write(out, b"new")
    assert names(tmp_path) == ["out.jsonl"]


def test_a_cache_is_swept_and_a_file_that_is_there_stays(tmp_path: Path, dead: int, alive: int) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for process in (dead, alive):
        (folder / f".0123456789abcdef.png.{process}.tmp").write_bytes(b"half")
    (folder / f".notes.txt.{dead}.tmp").write_text("of another program")
    write_once(folder / "fedcba9876543210.png", b"first")
    write_once(folder / "fedcba9876543210.png", b"second")
    assert (folder / "fedcba9876543210.png").read_bytes() == b"first"
    assert names(folder) == sorted([f".0123456789abcdef.png.{alive}.tmp", f".notes.txt.{dead}.tmp", "fedcba9876543210.png"])


def test_a_cache_file_that_another_machine_renames_first_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "0123456789abcdef.png"

    def renamed_by_another(self: Path, to: Path) -> None:
        self.rename(to)
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "replace", renamed_by_another)
    write_once(target, b"whole")
    assert target.read_bytes() == b"whole"


def test_a_link_goes_on_naming_the_file_that_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write(link, b"new")
    assert real.read_bytes() == b"new"
    assert link.is_symlink()


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=r"out\.jsonl: it is not a regular file; write to stdout and redirect it"):
        write(pipe, b"new")
    assert pipe.is_fifo()

"""Progress, warnings and errors on stderr: what a person sees of a stage that runs, alone and in a pipe."""

from __future__ import annotations

import gzip
import io
import os
import pty
import re
import shlex
import subprocess
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from dream_cli.method import progress
from dream_cli.method.progress import Shown
from dream_cli.method.stages import NO_MODEL
from dream_cli.records.counting import count_rows
from tests.conftest import Workdir
from tests.loopback import Loopback


def on_terminal(work: Workdir, line: str) -> tuple[int, str]:
    """Run a shell line whose stderr is a terminal; return its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", line], stdin=subprocess.DEVNULL, stderr=theirs, cwd=work.path, env=work.env
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:
                break
            if not block:
                break
            shown += block
        code = process.wait(60)
    os.close(ours)
    return code, shown.decode().replace("\r\n", "\n")


def test_each_stage_of_a_pipe_has_its_line_on_a_terminal(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": f"Hi {n}", "observations": []} for n in range(3)])
    dream, ask = shlex.join(work.command()), f"--base-url {server.url}"
    code, shown = on_terminal(work, f"{dream} sample in.jsonl {ask} | {dream} judge {ask} | {dream} pair > pairs.jsonl")
    assert code in (0, 1)
    assert len(re.findall(r"^dream sample: 3 of 3 rows, \d+ s$", shown, re.MULTILINE)) == 1
    assert len(re.findall(r"^dream judge: 3 rows(, \d errors?)?, \d+ s$", shown, re.MULTILINE)) == 1
    assert re.search(r"^pair: \d+ pairs? of 3 prompts: ", shown, re.MULTILINE)
    for line in shown.splitlines():
        assert re.match(r"(dream (sample|judge): |judge: |pair: |  )", line), line


def test_lines_are_repeated_with_counts_and_total(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    shown = Shown("judge", lambda: (5, 1), lambda: 12, lines.append, to_stdout=True)
    with progress._lines(shown, 0.02):
        deadline = time.monotonic() + 30
        while len(lines) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(lines) >= 3 and all(re.fullmatch(r"5 of 12 rows, 1 error, \d+ s, about \d+ s left", line) for line in lines)
    lines.clear()
    with progress._lines(Shown("judge", lambda: (1, 2), lambda: None, lines.append, to_stdout=True), 3600, last=True):
        pass
    assert len(lines) == 1 and re.fullmatch(r"1 row, 2 errors, \d+ s", lines[0])


def test_off_a_terminal_there_is_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.LOG_SECONDS == 60
    lines: list[str] = []
    shown = Shown("judge", lambda: (0, 0), lambda: 7, lines.append, to_stdout=False)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.02)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress.progress(shown):
        deadline = time.monotonic() + 60
        while not lines and time.monotonic() < deadline:
            time.sleep(0.01)
    assert lines and all(re.fullmatch(r"0 of 7 rows, \d+ s", line) for line in lines)
    lines.clear()
    with progress.progress(shown, quiet=True):
        time.sleep(0.2)
    assert lines == []


def test_rows_are_counted_where_it_is_cheap(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"prompt": "x"}\n' * 5 + '{"prompt": "y"}')
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["x"] * 4}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes()))
    (tmp_path / "b.parquet").write_text("no Parquet")
    (tmp_path / "empty.jsonl").write_text("")
    assert [count_rows(str(tmp_path / name)) for name in ("a.jsonl", "a.parquet", "empty.jsonl")] == [6, 4, 0]
    assert [count_rows(str(tmp_path / name)) for name in ("a.jsonl.gz", "b.parquet", "absent.jsonl")] == [None] * 3
    assert [count_rows(str(lines), limit) for limit in (2, 99)] == [2, 6]
    assert count_rows(None) is None is count_rows("-")


def test_the_first_error_of_each_kind_is_printed_by_the_stage_that_met_it(work: Workdir, server: Loopback) -> None:
    work.write(
        "in.jsonl", [{"id": "a"}, {"id": "b", "prompt": "Hi", "images": ["no.png"]}, {"id": "c", "prompt": "Hi", "images": ["not.png"]}]
    )
    with (work.path / "in.jsonl").open("a") as file:
        file.write("{\n")
    first = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert first.code == 1
    lines = first.err.splitlines()
    assert lines[0] == (
        "dream sample: 4 of 4 rows got an error (2 image, 1 invalid, 1 unreadable), see their `error` field; the first: those of each kind:"
    )
    assert lines[1].startswith("  image: in.jsonl:2: ") and "no.png" in lines[1]
    assert lines[2].startswith("  invalid: in.jsonl:1: ") and "prompt" in lines[2]
    assert lines[3].startswith("  unreadable: in.jsonl:4: ") and len(lines) == 4
    # The next stage passes the rows on, and their errors are not its own.
    assert work.dream("judge", "--base-url", server.url, stdin=first.out).err.count("got an error") == 0


@pytest.mark.local
def test_one_warning_per_pipe_and_one_in_the_last_summary(work: Workdir) -> None:
    pytest.importorskip("transformers")
    work.write("in.jsonl", [{"id": "a", "prompt": "How do I rob a shop?"}])
    dream = shlex.join(work.command())

    def heard(line: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", line], cwd=work.path, env=work.env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        return [line for line in done.stderr.splitlines() if "small world" in line]

    last = "answered, which knows only its own small world; name a model with --model or --base-url"
    assert heard(f"{dream} disentangle in.jsonl | {dream} sample -n 2 --temperature 2 | {dream} judge > judged.jsonl") == [
        f"dream disentangle: {NO_MODEL}",
        f"dream judge: nano {last}",
    ]
    assert heard(f"cat in.jsonl | {dream} disentangle | cat > observed.jsonl") == [f"dream disentangle: {NO_MODEL}"]
    (warning,) = heard(f"{dream} pair judged.jsonl --margin 0 --min-chosen 0 --near-duplicate 1 --max-length-ratio 0 > /dev/null") or [""]
    assert warning in ("", "  nano judged, which knows only its own small world; name a model with dream judge --model or --base-url")
    assert heard(f"{dream} sample in.jsonl -q") == []


def test_lines_have_the_time_left_and_the_cost() -> None:
    lines: list[str] = []
    shown = Shown("judge", lambda: (3, 0), lambda: 12, lines.append, to_stdout=True, cost=lambda: "cost 0.25")
    with progress._lines(shown, 3600, last=True):
        pass
    assert len(lines) == 1 and re.fullmatch(r"3 of 12 rows, 0 s, about 0 s left, cost 0\.25", lines[0])
    assert [progress.duration(seconds) for seconds in (89, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]

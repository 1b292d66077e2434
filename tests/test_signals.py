"""Signals, closed pipes and closed streams: every command ends with one line, its exit code, and nothing half written."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Workdir
from tests.loopback import Loopback


@pytest.fixture
def slow(work: Workdir) -> Loopback:
    work.write("in.jsonl", [{"id": str(i), "prompt": f"fern {i}"} for i in range(300)])
    return Loopback(latency=0.1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("out", ["out.jsonl", None])
def test_each_signal_interrupts_and_leaves_nothing_half_written(
    work: Workdir, slow: Loopback, number: signal.Signals, code: int, out: str | None
) -> None:
    with slow as server:
        command = work.command("sample", "in.jsonl", "--base-url", server.url, *(["-o", out] if out else []))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=work.path, env=work.env) as running:
            while server.calls < 20:
                time.sleep(0.01)
            running.send_signal(number)
            text, message = running.communicate(timeout=60)
    assert running.returncode == code
    assert message.decode() == "dream: interrupted; run the same command again to continue: calls in the store are not repeated\n"
    assert (text == b"") == (out is not None)
    assert sorted(path.name for path in work.path.iterdir() if not path.name.startswith("calls.sqlite")) == ["in.jsonl"]
    paid = server.calls
    with Loopback(port=server.port) as server:
        assert work.dream("sample", "in.jsonl", "--base-url", server.url).code == 0
        assert paid + server.calls <= 300 + 8


def test_a_signal_in_the_last_step_of_a_run_prints_no_traceback(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "fern"}])
    # The report is the last that the event loop does.
    last = "from dream_cli.method import stages; stages._report = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)"
    script = f"import os, signal, sys; {last}; sys.argv[0] = 'dream'; from dream_cli.__main__ import main; main()"
    with Loopback() as server:
        command = [sys.executable, "-c", script, "sample", "in.jsonl", "--base-url", server.url]
        done = subprocess.run(command, check=False, capture_output=True, cwd=work.path, env=work.env, timeout=60)
    assert done.returncode == 130
    assert done.stderr.decode() == "dream: interrupted; run the same command again to continue: calls in the store are not repeated\n"
    assert len(done.stdout.splitlines()) == 1


def test_without_a_store_no_message_promises_one(work: Workdir, slow: Loopback) -> None:
    with slow as server:
        command = work.command("sample", "in.jsonl", "--base-url", server.url, "--no-store")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=work.path, env=work.env) as running:
            assert running.stdout
            running.stdout.readline()
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=60)[1] == b"dream: interrupted; run the same command again\n"


def test_a_signal_that_the_shell_ignores_stays_ignored(work: Workdir) -> None:
    with Loopback(latency=0.05) as server:
        work.write("in.jsonl", [{"id": str(i), "prompt": f"fern {i}"} for i in range(60)])
        command = ["nohup", *work.command("sample", "in.jsonl", "--base-url", server.url)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=work.path, env=work.env) as running:
            while server.calls < 10:
                time.sleep(0.01)
            running.send_signal(signal.SIGHUP)
            text, _ = running.communicate(timeout=60)
    assert (running.returncode, len(text.splitlines())) == (0, 60)


# typer is the first import that takes time; asyncio is looked at by the handler of signals itself.
@pytest.mark.parametrize("module", ["typer", "asyncio"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_the_imports_prints_no_traceback(work: Workdir, name: str, module: str) -> None:
    (work.path / f"{module}.py").write_text(f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(5)\n")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[1:] = ['sample', 'in.jsonl']; from dream_cli.__main__ import main; main()"],
        check=False,
        capture_output=True,
        cwd=work.path,
        env=work.env | {"PYTHONPATH": str(work.path)},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), b"dream: interrupted\n")


IGNORED = """
import os, signal, sys, time, weakref
from dream_cli.cli import main

class Lock: ...

def context(args):
    lock = Lock()
    released = weakref.ref(lock, lambda _: os.kill(os.getpid(), signal.{name}))
    del lock
    time.sleep(60)

main._context = context
main.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_where_python_ignores_exceptions_is_not_lost(work: Workdir, name: str) -> None:
    command = [sys.executable, "-c", IGNORED.format(name=name), "sample"]
    done = subprocess.run(command, check=False, capture_output=True, cwd=work.path, env=work.env, timeout=120)
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), b"dream: interrupted\n")


def shell(work: Workdir, command: str, *args: str) -> subprocess.CompletedProcess[bytes]:
    """Run `dream ARGS` in bash, in the place of {} in a line."""
    line = command.format(" ".join(map(shlex.quote, work.command(*args))))
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        check=False,
        capture_output=True,
        cwd=work.path,
        env=work.env,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


READERS = {
    "pair": ["pair"],
    "convert": ["convert"],
    "view": ["view"],
    "sample": ["sample", "--dry-run"],
}


@pytest.mark.parametrize("name", READERS)
def test_a_closed_stdin_is_named(work: Workdir, name: str) -> None:
    done = shell(work, "{} <&-", *READERS[name])
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"dream: stdin is closed; name a file, or read records from a pipe\n"


WRITERS = {
    "sample": ["sample", "in.jsonl"],
    "pair": ["pair", "judged.jsonl", "-q"],
    "convert": ["convert", "in.jsonl", "-q"],
    "view": ["view", "in.jsonl"],
    "view --json": ["view", "in.jsonl", "--json"],
    "view --sql": ["view", "in.jsonl", "--sql", "select * from records"],
    "diff": ["diff", "in.jsonl", "judged.jsonl", "--json"],
    "why": ["why", "a", "in.jsonl", "--json"],
    "store": ["store", "path"],
    "export": ["store", "export", "-q"],
    "man": ["man"],
    "help": ["sample", "--help"],
    "version": ["--version"],
}


@pytest.mark.parametrize(
    ("name", "to"), [*((name, "> /dev/full") for name in WRITERS), *((name, ">&-") for name in ("convert", "view", "help", "export"))]
)
def test_a_stdout_that_takes_nothing_is_named(work: Workdir, name: str, to: str) -> None:
    judge = {"rubric": "global/expected", "model": "j", "harm": 0.0}
    responses = [
        {"text": f"{word} it is", "model": "m", "judgement": judge | {"global_score": 10 * s, "score": s}}
        for word, s in (("Yes", 0.9), ("So", 0.1))
    ]
    rows = [{"id": "a", "prompt": "Is this sign safe?", "observations": []}]
    work.write("in.jsonl", rows)
    work.write("judged.jsonl", [row | {"responses": responses} for row in rows])
    with Loopback() as server:
        served = ["--base-url", server.url]
        if name == "export":
            work.dream("sample", "in.jsonl", *served)
        done = shell(work, f"{{}} {to}", *WRITERS[name], *(served if name == "sample" else []))
    fault = "Bad file descriptor" if to == ">&-" else "No space left on device"
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("dream: ")]
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr
    assert len(lines) == 1 and lines[0].startswith("dream: cannot write stdout: ") and fault in lines[0], done.stderr


def test_a_closed_stderr_costs_nothing_but_the_messages(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Is this sign safe?"}])
    with Loopback() as server:
        done = shell(work, "{} 2>&-", "sample", "in.jsonl", "-v", "--base-url", server.url)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, b"")


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("store", "version")])
def test_head_ends_every_command_quietly(work: Workdir, name: str) -> None:
    judge = {"rubric": "global/expected", "model": "j", "harm": 0.0}
    responses = [
        {"text": f"{word} it is", "model": "m", "judgement": judge | {"global_score": 10 * s, "score": s}}
        for word, s in (("Yes", 0.9), ("So", 0.1))
    ]
    rows = [{"id": f"a{i}" if i else "a", "prompt": f"Is sign {i} safe?", "observations": []} for i in range(400)]
    work.write("in.jsonl", rows)
    work.write("judged.jsonl", [row | {"responses": responses} for row in rows])
    with Loopback() as server:
        args = [*WRITERS[name], *(["--base-url", server.url] if name == "sample" else [])]
        if name == "export":
            work.dream("sample", "in.jsonl", "--base-url", server.url)
        done = shell(work, "{} | head -n 1 > /dev/null", *args)
        assert (done.returncode, done.stderr) == (0, b"")


def test_temporaries_of_dead_processes_are_swept(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Is this sign safe?"}])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (work.path / f".out.jsonl.{dead.pid}.tmp").write_text("half")
    (work.path / f".out.jsonl.{os.getpid()}.tmp").write_text("of a living process")
    assert work.dream("convert", "in.jsonl", "-o", "out.jsonl").code == 0
    assert {path.name for path in Path(work.path).glob(".*.tmp")} == {f".out.jsonl.{os.getpid()}.tmp"}

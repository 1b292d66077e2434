"""Plug-ins: a benchmark, an engine and a dialect of another package, and a benchmark in a file, used through the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import CHECKOUT, Workdir
from tests.pictures import picture

PNG = picture("red").data or b""

ENGINE = """
from dream_cli.engines.protocol import Choice, Completion
from dream_cli.engines.usage import Usage

class Echo:
    kind, model, fingerprint, concurrency, checkpoint = "echo", "echo-1", "echo-1", 4, None
    def __init__(self):
        self.usage = Usage()
    async def generate(self, chat, sampling, samples):
        return [Completion(f"echo: {chat[-1].text}", "stop") for _ in samples]
    async def choose(self, chat, answers):
        return Choice({answer: 1 / len(answers) for answer in answers}, 1.0, answers[0])
    async def close(self):
        pass

async def open_echo(spec):
    return Echo()

async def open_nothing(spec):
    return object()
"""
DIALECT = """
FEATURES, PATHS, INLINE = {}, "relative", False

def mismatch(row):
    return "" if "ask" in row else "no 'ask'"

def read(row):
    return {"prompt": row["ask"]}

def write(record):
    return {"ask": record["prompt"]}, tuple(set(record) - {"prompt"})
"""


def install(work: Workdir, name: str, code: str, points: str) -> None:
    """Put a package and its entry points on the path of the commands, as an installer leaves them."""
    site = work.path / "site"
    (site / f"{name}-1.0.dist-info").mkdir(parents=True)
    (site / f"{name}.py").write_text(code)
    (site / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (site / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(points)
    work.env["PYTHONPATH"] = str(site)


def polite_items(work: Workdir) -> None:
    """Write the files of the example benchmark."""
    rows: list[dict[str, Any]] = []
    for i, form in enumerate(("polite", "curt", "polite", "curt")):
        rows.append({"id": str(i), "image": f"{i}.png", "form": form, "request": "Name the colour of the square."})
        (work.path / "data" / "images").mkdir(parents=True, exist_ok=True)
        (work.path / "data" / "images" / f"{i}.png").write_bytes(PNG)
    (work.path / "data" / "polite.json").write_text(json.dumps(rows))


def test_the_example_package_is_installed_and_its_benchmark_run(work: Workdir) -> None:
    site = work.path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = work.path / "plugin"
    subprocess.run(["cp", "-r", str(CHECKOUT / "examples" / "plugin"), str(source)], check=True)
    subprocess.run([*command, "--target", str(site), str(source)], check=True, capture_output=True)
    install(work, "echo_engine", ENGINE, "[dream.engines]\necho = echo_engine:open_echo\n")
    polite_items(work)
    command = ["eval", "polite", "--data", "data", "-o", "items.jsonl", "--engine", "echo", "--model", "any", "--rule", "official"]
    ran = work.dream(*command)
    assert ran.code == 0, ran.err
    scored = work.dream("eval", "items.jsonl", "--rule", "official", "--summary")
    rates = json.loads(scored.out)["rates"]
    assert [(rate["better"], rate["rate"], rate["n"]) for rate in rates if not rate["topic"]] == [("up", 1.0, 4)]


def test_a_benchmark_in_a_file_is_run_without_a_name(work: Workdir) -> None:
    polite_items(work)
    file = str(CHECKOUT / "examples" / "plugin" / "dream_polite" / "__init__.py")
    ran = work.dream("eval", "--benchmark-file", file, "--data", "data", "--dry-run", "--model", "nano-policy", "--rule", "official")
    assert (ran.code, "4 calls" in ran.err) == (0, True), ran.err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "dream: --benchmark-file: mine.py cannot be run: ZeroDivisionError: division by zero\n"),
        ("x = 1", "dream: --benchmark-file: mine.py must define one benchmark with a name of its own; it defines none\n"),
        (
            "from dream_cli.benchmarks.siuo import SIUO",
            "dream: --benchmark-file: mine.py must define one benchmark with a name of its own; it defines siuo\n",
        ),
    ],
)
def test_a_file_without_a_benchmark_is_refused(code: str, message: str, work: Workdir) -> None:
    (work.path / "mine.py").write_text(code)
    ran = work.dream("eval", "--benchmark-file", "mine.py")
    assert (ran.code, ran.out, ran.err) == (2, "", message)


def test_an_engine_of_a_package_answers(work: Workdir) -> None:
    install(work, "echo_engine", ENGINE, "[dream.engines]\necho = echo_engine:open_echo\nbroken = echo_engine:open_nothing\n")
    work.write("in.jsonl", [{"id": "a", "prompt": "hello"}])
    ran = work.dream("sample", "in.jsonl", "--engine", "echo", "--model", "anything", "-v")
    assert ran.code == 0, ran.err
    assert ran.rows[0]["responses"] == [{"text": "echo: hello", "model": "echo-1", "finish_reason": "stop"}]
    assert "dream sample: echo, model echo-1" in ran.err
    broken = work.dream("sample", "in.jsonl", "--engine", "broken", "--model", "anything")
    assert (broken.code, broken.err.startswith("dream: the plug-in broken returns no engine: it has no kind, model")) == (2, True)
    unknown = work.dream("sample", "in.jsonl", "--engine", "ecko")
    assert (unknown.code, unknown.err) == (
        2,
        "dream: no engine 'ecko' for models on this machine; there are transformers, vllm, broken, echo\n",
    )


def test_a_dialect_of_a_package_is_recognised_and_written(work: Workdir) -> None:
    install(work, "ask_dialect", DIALECT, "[dream.formats]\nask = ask_dialect\n")
    work.write("in.jsonl", [{"ask": "hello"}])
    there = work.dream("convert", "in.jsonl")
    assert (there.code, [row["prompt"] for row in there.rows]) == (0, ["hello"]), there.err
    back = work.dream("convert", "--to", "ask", stdin=there.out)
    assert (back.code, back.rows[0]["ask"]) == (0, "hello"), back.err


def test_two_packages_with_one_name_and_one_that_does_not_load_are_reported(work: Workdir) -> None:
    install(work, "first", "PART = 1", "[dream.formats]\nask = first:PART\nlost = first:ABSENT\n")
    install(work, "second", "PART = 1", "[dream.formats]\nask = second:PART\n")
    work.write("in.jsonl", [{"ask": "hello"}])
    both = work.dream("convert", "in.jsonl", "--from", "ask")
    assert (both.code, both.err) == (2, "dream: first 1.0 and second 1.0 both offer ask as one of dream.formats; uninstall one of them\n")
    lost = work.dream("convert", "in.jsonl", "--from", "lost")
    assert (lost.code, lost.err.startswith("dream: the plug-in lost of first 1.0 cannot be loaded: AttributeError:")) == (2, True)

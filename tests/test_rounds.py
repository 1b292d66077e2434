"""The loop of examples/rounds.sh, with a fake `dream` that records its calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples import stop_rule
from tests.conftest import CHECKOUT

# Writes what -o names (a folder for sft and dpo), prints what the loop reads, and fails where it is told to.
STUB = """#!{python}
import json, os, pathlib, sys
verb, args = sys.argv[1], sys.argv[1:]
with open("calls", "a") as calls:
    calls.write(" ".join(args) + "\\n")
fails = dict(pair.split("=") for pair in os.environ.get("FAIL", "").split())
out = pathlib.Path(args[args.index("-o") + 1]) if "-o" in args else pathlib.Path("/dev/stdout")
code = int(fails.get(out.name, 0))
if verb == "convert" or (verb == "judge" and not args[1].endswith("jsonl")):
    sys.stdin.read()  # what is piped into it may not find the pipe closed
if code > 1:
    sys.exit(code)
if verb in ("sft", "dpo"):
    out.mkdir(exist_ok=True)
    print(json.dumps({{"model": str(out)}}))
elif verb == "eval":
    out.write_text("{{}}\\n")
    rates = json.loads(os.environ["RATES"])
    safe, refusal = rates.get(out.name.split(".")[0], [0.5, 0.1])
    named = [("safe_effective", safe, "up"), ("refusal_any", refusal, "down"), ("refusal", 0.0, "down")]
    rates = [{{"name": n, "subset": "", "topic": "", "rate": r, "n": 1000, "better": b}} for n, r, b in named]
    print(json.dumps({{"benchmark": "toy", "rates": rates}}))
else:
    out.write_text("".join(f'{{{{"id": "{{name}}", "observations": []}}}}\\n' for name in "abc"))
sys.exit(code)
"""


class Loop:
    """Runs the loop in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rates: dict[str, list[float]] = {"start": [0.2, 0.1], "sft": [0.4, 0.1], "1": [0.5, 0.1], "2": [0.6, 0.1], "3": [0.7, 0.1]}
        stub = folder / "bin" / "dream"
        stub.parent.mkdir()
        stub.write_text(STUB.format(python=sys.executable))
        stub.chmod(0o755)

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "RATES": json.dumps(self.rates), "BESIDE": ""} | env
        command = ["bash", str(CHECKOUT / "examples" / "rounds.sh")]
        return subprocess.run(command, check=False, cwd=self.folder, env=environment, capture_output=True, text=True)

    def calls(self) -> list[str]:
        """What was called since the last look, as verb and output."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        words = [line.split() for line in lines]
        outs = [command[command.index("-o") + 1] if "-o" in command else "stdout" for command in words]
        return [f"{command[0]} {out.removeprefix('out/rounds/seed-0/')}" for command, out in zip(words, outs, strict=True)]


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


BEFORE = [
    "disentangle observed.jsonl",
    "sample guided.sampled.jsonl",
    "judge guided.judged.jsonl",
    "eval start.eval.jsonl",
    "sft sft",
    "eval sft.eval.jsonl",
]


def a_round(number: int, arm: str = "dream") -> list[str]:
    # The answers of the first round and their scores are those of all arms with this score.
    answers = f"round-{number}" if (number, arm) == (1, "dream") else f"{arm}/{number}"
    own = ["pair {}.pairs.jsonl", "dpo {}", "eval {}.eval.jsonl"]
    return [f"sample {answers}.sampled.jsonl", f"judge {answers}.judged.jsonl", *(line.replace("{}", f"{arm}/{number}") for line in own)]


def test_observations_are_made_once_and_each_round_starts_from_the_last(loop: Loop) -> None:
    ran = loop.run(ROUNDS="2")
    assert ran.returncode == 0, ran.stderr
    called = (loop.folder / "calls").read_text().splitlines()
    assert loop.calls() == [*BEFORE, *a_round(1), *a_round(2)]
    dpo = [line for line in called if line.startswith("dpo")]
    assert "--model out/rounds/seed-0/sft " in dpo[0]
    assert "--model out/rounds/seed-0/dream/1 " in dpo[1]
    assert ran.stderr.endswith("the policy to keep is out/rounds/seed-0/dream/2\n")


def test_a_stopped_loop_goes_on_where_it_was(loop: Loop) -> None:
    assert loop.run(ROUNDS="1", FAIL="round-1.judged.jsonl=130").returncode == 130
    assert loop.calls() == [*BEFORE, *a_round(1)[:2]]
    assert loop.run(ROUNDS="1").returncode == 0
    assert loop.calls() == a_round(1)[1:]
    assert loop.run(ROUNDS="1").returncode == 0
    assert loop.calls() == []


def test_rows_with_an_error_do_not_stop_it_and_usage_does(loop: Loop) -> None:
    assert loop.run(ROUNDS="1", FAIL="observed.jsonl=1 round-1.judged.jsonl=1").returncode == 0
    assert loop.calls() == [*BEFORE, *a_round(1)]
    assert loop.run(ROUNDS="2", FAIL="2=2").returncode == 2
    assert loop.calls() == a_round(2)[:4]


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ({"2": [0.6, 0.14]}, "over-refusal on toy rose from 0.100 to 0.140, more than two standard errors (0.015)"),
        ({"2": [0.5, 0.1]}, "safe&effective stays at 0.500 (before: 0.500)"),
    ],
)
def test_the_loop_stops_where_refusals_rise_or_nothing_is_gained(loop: Loop, rates: dict[str, list[float]], reason: str) -> None:
    loop.rates |= rates
    ran = loop.run()
    assert ran.returncode == 0
    assert loop.calls() == [*BEFORE, *a_round(1), *a_round(2)]
    assert f"round 2: {reason}; the loop ends" in ran.stderr
    assert ran.stderr.endswith("the policy to keep is out/rounds/seed-0/dream/1\n")


@pytest.mark.parametrize(
    ("arm", "score", "calls"),
    [
        ("global-only", "--score global", a_round(1, "global-only")),
        ("observation-only", "--score observation", a_round(1, "observation-only")),
    ],
)
def test_a_control_shares_what_comes_before_the_rounds(loop: Loop, arm: str, score: str, calls: list[str]) -> None:
    assert loop.run(ARM="sft-only").returncode == 0
    assert loop.calls() == BEFORE
    assert loop.run(ARM=arm, ROUNDS="1").returncode == 0
    assert score in (loop.folder / "calls").read_text()
    assert loop.calls() == calls


def test_the_arm_that_only_refuses_learns_refusals(loop: Loop) -> None:
    assert loop.run(ARM="refuse-more").returncode == 0
    assert loop.calls() == [*BEFORE[:4], "convert refuse-more/targets.jsonl", "sft refuse-more/sft", "eval refuse-more/sft.eval.jsonl"]


def test_each_round_draws_fresh_prompts_and_goes_on_from_the_top(loop: Loop) -> None:
    assert loop.run(ROUNDS="2", SFT_PROMPTS="1", ROUND_PROMPTS="2").returncode == 0
    drawn = [(loop.folder / f"out/rounds/seed-0/observed-{name}.jsonl").read_text() for name in ("sft", "1", "2")]
    assert [[json.loads(line)["id"] for line in lines.splitlines()] for lines in drawn] == [["a"], ["b", "c"], ["a", "b"]]
    sampled = [line.split()[1] for line in (loop.folder / "calls").read_text().splitlines() if line.startswith("sample")]
    assert sampled == [f"out/rounds/seed-0/observed-{name}.jsonl" for name in ("sft", "1", "2")]


def test_by_default_sft_and_each_round_take_a_fifth_of_the_prompts(loop: Loop) -> None:
    assert loop.run(ROUNDS="2").returncode == 0
    drawn = [(loop.folder / f"out/rounds/seed-0/observed-{name}.jsonl").read_text() for name in ("sft", "1", "2")]
    assert [[json.loads(line)["id"] for line in lines.splitlines()] for lines in drawn] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("arm", "calls"),
    [
        ("more-sft", ["sample guided-1.sampled.jsonl", "judge guided-1.judged.jsonl", "sft more-sft/1", "eval more-sft/1.eval.jsonl"]),
        ("best-of-k", ["sft best-of-k/1", "eval best-of-k/1.eval.jsonl"]),
        ("unbalanced", ["pair unbalanced/1.pairs.jsonl", "dpo unbalanced/1", "eval unbalanced/1.eval.jsonl"]),
        ("even-directions", ["pair even-directions/1.pairs.jsonl", "dpo even-directions/1", "eval even-directions/1.eval.jsonl"]),
    ],
)
def test_an_arm_shares_the_answers_of_the_first_round_and_trains_in_its_own_way(loop: Loop, arm: str, calls: list[str]) -> None:
    assert loop.run(ROUNDS="1").returncode == 0
    loop.calls()
    assert loop.run(ARM=arm, ROUNDS="1").returncode == 0
    log = (loop.folder / "calls").read_text()
    assert loop.calls() == calls
    assert [option in log for option in ("--unbalanced", "--even-directions")] == [arm == "unbalanced", arm == "even-directions"]
    assert "--model out/rounds/seed-0/sft " in log


def piped(calls: list[str]) -> list[str]:
    """How the calls are written where sampling and judging are one pipe."""
    return sorted("sample stdout" if "sample" in call else call.replace("judged", "part") for call in calls)


def test_beside_what_comes_next_it_makes_the_same_calls_and_still_stops(loop: Loop) -> None:
    assert loop.run(ROUNDS="2", BESIDE="1").returncode == 0
    assert sorted(loop.calls()) == piped([*BEFORE, *a_round(1), *a_round(2)])
    loop.rates["4"] = [0.5, 0.1]
    assert "round 4: safe&effective stays" in loop.run(ROUNDS="4", BESIDE="1").stderr
    assert loop.run(ARM="global-only", BESIDE="1", FAIL="1.eval.jsonl=2").returncode == 2
    assert "dpo global-only/2" not in loop.calls()


@pytest.mark.parametrize("broken", ["stdout", "guided.part.jsonl"])
def test_a_pipe_that_broke_is_made_again(loop: Loop, broken: str) -> None:
    assert loop.run(ROUNDS="1", BESIDE="1", FAIL=f"{broken}=2").returncode == 2
    assert not (loop.folder / "out/rounds/seed-0/guided.judged.jsonl").exists()
    loop.calls()
    assert loop.run(ROUNDS="1", BESIDE="1", FAIL=f"{broken}=1").returncode == 0
    assert sorted(loop.calls()) == piped([*BEFORE[1:], *a_round(1)])


def test_an_evaluation_beside_ends_with_the_loop(loop: Loop) -> None:
    slow = loop.folder / "bin" / "dream"
    slow.write_text(slow.read_text().replace("verb, args", "import time\nverb, args", 1))
    slow.write_text(slow.read_text().replace('elif verb == "eval":', 'elif verb == "eval":\n    time.sleep(60)', 1))
    assert loop.run(BESIDE="1", FAIL="sft=2").returncode == 2
    assert not (loop.folder / "out/rounds/seed-0/start.eval.jsonl").exists()
    assert subprocess.run(["pgrep", "-f", f"{slow} eval"], check=False, capture_output=True).stdout == b""


def test_an_arm_that_is_none_is_refused(loop: Loop) -> None:
    assert loop.run(ARM="drem").returncode == 2


def summary(path: Path, **rates: float) -> str:
    """Write a summary with 250 items per rate, named METRIC_of_SUBSET; `unsafe` prompts should be refused."""
    rows = []
    for name, rate in rates.items():
        metric, _, subset = name.partition("_of_")
        better = "up" if metric == "safe_effective" or subset == "unsafe" else "down"
        rows.append({"name": metric, "subset": subset, "topic": "", "rate": rate, "n": 250, "better": better})
    path.write_text(json.dumps({"benchmark": "xstest", "rates": rows}) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("start", "now", "reason"),
    [
        # Answers that decline with an offer are partial or full refusals: over-refusal, however few are full ones.
        (
            {"refusal_any_of_safe": 0.0, "refusal_of_safe": 0.0},
            {"refusal_any_of_safe": 0.5, "refusal_of_safe": 0.0},
            "over-refusal on xstest safe rose from 0.000 to 0.500, more than two standard errors (0.032)",
        ),
        # Refusals that rise on the harmful prompts alone are none.
        (
            {"refusal_any_of_safe": 0.05, "refusal_any_of_unsafe": 0.5, "refusal_of_unsafe": 0.5},
            {"refusal_any_of_safe": 0.05, "refusal_any_of_unsafe": 0.95, "refusal_of_unsafe": 0.95},
            "",
        ),
        # A published rule that knows full refusals alone.
        ({"refusal_of_safe": 0.1}, {"refusal_of_safe": 0.5}, "over-refusal on xstest safe rose from 0.100 to 0.500"),
        ({"refusal_any_of_unsafe": 0.5}, {"refusal_any_of_unsafe": 0.5}, "over-refusal or safe&effective could not be measured"),
        ({"refusal_any_of_safe": 0.1}, {"refusal_any_of_unsafe": 0.5}, "over-refusal or safe&effective could not be measured"),
    ],
)
def test_the_stop_rule_looks_at_refusals_of_harmless_prompts(
    tmp_path: Path, start: dict[str, float], now: dict[str, float], reason: str
) -> None:
    files = [
        summary(tmp_path / name, **rates, safe_effective=safe)
        for name, rates, safe in [("a", start, 0.2), ("b", now, 0.3), ("c", now, 0.4)]
    ]
    assert stop_rule.reason(*files).startswith(reason)
    assert bool(stop_rule.reason(*files)) == bool(reason)

"""The table of the proof, on made-up evaluations of two arms and two seeds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT, Ran, Workdir

RISKY, HARMLESS, SKILLS = 40, 40, 20


def evaluation(work: Workdir, name: str, safe: int, effective: int, refused: int, read: int) -> None:
    """Write an evaluation: so many of the risky items safe (the first) and effective (the last), of the harmless refused, of the skills right."""

    def row(bench: dict[str, Any], number: int, text: str, **verdicts: Any) -> dict[str, Any]:
        answers = {question: {"value": value, "judge": "J"} for question, value in verdicts.items()}
        responses = [{"text": text, "verdicts": {"strict": answers}}]
        return {"id": f"{bench['name']}:{number}", "prompt": "p", "benchmark": bench | {"item": str(number)}, "responses": responses}

    skill = {"name": "nano_world", "subset": "skill", "truth": {"deeds": [], "reading": "a cake"}}
    rows = [row({"name": "siuo"}, i, "words", safe=i < safe, effective=i >= RISKY - effective) for i in range(RISKY)]
    rows += [row({"name": "figstep_benign"}, i, "words", refusal="refuse" if i < refused else "comply") for i in range(HARMLESS)]
    rows += [row(skill, i, "A cake." if i < read else "A bread.") for i in range(SKILLS)]
    (work.path / name).parent.mkdir(parents=True, exist_ok=True)
    work.write(f"{name}.eval.jsonl", rows)


def table(work: Workdir, *args: str) -> Ran:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "examples" / "proof_table.py"), "out", *args],
        check=False,
        capture_output=True,
        text=True,
        cwd=work.path,
        env=work.env,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def grid(work: Workdir) -> Workdir:
    for seed in (0, 1):
        at = f"out/seed-{seed}"
        evaluation(work, f"{at}/start", 4, 40, 0, 20)
        evaluation(work, f"{at}/sft", 20, 40, 2, 20)
        evaluation(work, f"{at}/dream/1", 30, 40, 1, 20)
        evaluation(work, f"{at}/dream/2", 36 - seed, 40, 0, 20)
    return work


def test_the_rates_and_changes_are_those_of_the_files(grid: Workdir) -> None:
    ran = table(grid, "--plot", "proof.png")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    # The seeds have the same start, so no spread over seeds.
    assert "| all | start | 2 | 10.0 [10.0, 10.0] | 10.0 [10.0, 10.0] | 0.0 [0.0, 0.0] | 100.0 [100.0, 100.0] |" in lines
    assert sum(line.startswith("| all | SFT") for line in lines) == 1
    # Round 2: 36 and 35 of 40, the mean 88.75; Student's t of two values is 12.7 standard errors of 1.25 points: 15.9, cut at 100.
    assert any(line.startswith("| dream | round 2 | 2 | 88.8 [72.9, 100.0] |") for line in lines)
    # 32 and 31 of 40 more than the start.
    assert any(line.startswith("| dream | round 2 | 2 | +78.8 [+62.9, +94.6] | +0.0 [+0.0, +0.0] |") for line in lines)
    control = next(line for line in lines if line.startswith("| sft-only |") and "round 2 - SFT" in line)
    # 36 - 20 and 35 - 20 of 40; over items 15.5 of 40 in one direction and none in the other.
    assert control.startswith("| sft-only | round 2 - SFT | 2 | +38.8 [+22.9, +54.6] | [+")
    assert (grid.path / "proof.png").read_bytes().startswith(b"\x89PNG")


def test_goals_are_reported_met_or_not(grid: Workdir) -> None:
    for seed in (0, 1):
        evaluation(grid, f"out/seed-{seed}/dream/2", 26, 40, 6, 20)
        evaluation(grid, f"out/seed-{seed}/more-sft/2", 28, 40, 0, 20)
        evaluation(grid, f"out/seed-{seed}/shuffled/2", 18, 40, 0, 20)
    goals = table(grid).out.partition("## Goals")[2].strip().splitlines()
    results = [goal.partition(": ")[2] for goal in goals]
    # 26 - 20 of 40; 6 of 40 refused; 26 / 28; 18 - 20 of 40; no skill lost.
    assert results == [
        "NOT met, +15.0 [+15.0, +15.0]",
        "NOT met, +15.0 [+15.0, +15.0]",
        "met, 92.9 %",
        "met, -5.0 [-5.0, -5.0]",
        "met, +0.0 [+0.0, +0.0]",
    ]
    for seed in (0, 1):
        evaluation(grid, f"out/seed-{seed}/even-directions/2", 30, 40, 1, 20)
    changed = table(grid).out.partition("## Goals, even-directions")[2].strip().splitlines()
    # 30 - 20 of 40; 1 of 40 refused; 30 / 28.
    assert [goal.partition(": ")[2] for goal in changed] == [
        "met, +25.0 [+25.0, +25.0]",
        "met, +2.5 [+2.5, +2.5]",
        "met, 107.1 %",
        "met, +0.0 [+0.0, +0.0]",
    ]


def test_a_control_is_compared_at_the_last_round_that_both_have(grid: Workdir) -> None:
    evaluation(grid, "out/seed-0/more-sft/1", 28, 40, 0, 20)
    out = table(grid).out
    # One seed has the control: no interval over seeds, so the one over items stands in its place.
    assert "| more-sft | round 1 - round 1 | 1 | +5.0 [-" in out


def test_an_arm_that_was_not_run_is_not_in_the_tables(grid: Workdir) -> None:
    evaluation(grid, "out/seed-0/refuse-more/sft", 40, 2, 30, 20)
    out = table(grid).out
    assert "| refuse-more | SFT | 1 |" in out
    assert "global-only" not in out


def test_a_seed_that_ended_early_counts_with_its_last_round(grid: Workdir) -> None:
    (grid.path / "out/seed-1/dream/2.eval.jsonl").unlink()
    out = table(grid).out
    assert "| dream | seed 0: round 2, seed 1: round 1 | 2 | +72.5 [" in out
    assert "| dream | round 2 | 1 | 90.0 [" in out


def test_an_unscored_response_counts_as_the_worst(grid: Workdir) -> None:
    path = grid.path / "out/seed-0/dream/2.eval.jsonl"
    path.write_text(path.read_text().replace('"value": true', '"value": null').replace('"value": "comply"', '"value": null'))
    out = table(grid).out
    assert any(line.startswith("| dream | round 2 | 2 | 43.8 [") for line in out.splitlines())
    # Of seed 0 none is safe and all 40 harmless ones count as refused; of seed 1 35 are safe and none is refused.
    assert "| dream | round 2 | 2 | +33.8 [" in out and "| +50.0 [" in out


def empty(out: Path) -> None:
    (out / "seed-0/start.eval.jsonl").write_text("")


def shorten(out: Path) -> None:
    file = out / "seed-1/start.eval.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[3:]))


def unbegin(out: Path) -> None:
    for file in out.glob("seed-*/start.eval.jsonl"):
        file.unlink()


def forget(out: Path) -> None:
    for file in [*out.glob("seed-*/*/*.jsonl"), *out.glob("seed-*/sft*")]:
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, "start.eval.jsonl has no item with a verdict"),
        (shorten, "3 items are in one seed's file alone"),
        (unbegin, "no seed of dream, sft-only has its start.eval.jsonl"),
        (forget, "has no seed-N/dream with an evaluation"),
    ],
)
def test_a_grid_that_is_not_of_one_piece_is_refused(grid: Workdir, spoil: Callable[[Path], None], message: str) -> None:
    spoil(grid.path / "out")
    ran = table(grid)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err

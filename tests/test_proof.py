"""The driver of the proof's grid, with a fake loop instead of the training; and what its controls change in a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT, Ran, Workdir
from tests.test_proof_table import evaluation

LOOP = """#!/usr/bin/env bash
set -eu
echo "$ARM $SEED $ROUNDS" >> ran
[ ! -e "break-$ARM" ] || {{ echo "the GPU is gone"; exit 1; }}
at=$OUT/seed-$SEED
mkdir -p "$at/$ARM"
cp {start} "$at/start.eval.jsonl"; cp {later} "$at/sft.eval.jsonl"
case $ARM in sft-only) ;; refuse-more) cp {later} "$at/$ARM/sft.eval.jsonl" ;; *) cp {later} "$at/$ARM/$ROUNDS.eval.jsonl" ;; esac
"""


@pytest.fixture
def proof(work: Workdir) -> Workdir:
    evaluation(work, "start", 4, 40, 0, 20)
    evaluation(work, "later", 30, 40, 0, 20)
    (work.path / "loop.sh").write_text(LOOP.format(start="start.eval.jsonl", later="later.eval.jsonl"))
    grid = {"LOOP": "loop.sh", "OUT": "out", "PROMPTS": "p.jsonl", "SEEDS": "0 1", "ARMS": "dream refuse-more", "ROUNDS": "2"}
    work.env |= {"PATH": f"{Path(sys.executable).parent}:{work.env['PATH']}"} | grid | {"MORE_ARMS": "best-of-k", "MORE_SEEDS": "1"}
    return work


def run(work: Workdir) -> Ran:
    done = subprocess.run(
        ["bash", str(CHECKOUT / "examples" / "proof.sh")], check=False, capture_output=True, text=True, cwd=work.path, env=work.env
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_the_grid_is_run_once_round_by_round_and_reported(proof: Workdir) -> None:
    ran = run(proof)
    assert ran.code == 0, ran.err
    first = [f"{arm} {seed} 1" for seed in (0, 1) for arm in ("dream", "refuse-more")]
    once = [*first, *(line[:-1] + "2" for line in first), "best-of-k 1 2"]
    assert (proof.path / "ran").read_text().splitlines() == once
    assert ran.out == (proof.path / "out" / "proof.md").read_text()
    assert "| dream | round 2 | 2 |" in ran.out and "| best-of-k | round 2 | 1 |" in ran.out
    assert (proof.path / "out" / "proof.png").exists()
    again = run(proof)
    assert (again.code, again.out) == (0, ran.out)
    assert (proof.path / "ran").read_text().splitlines() == once


def test_a_failed_arm_is_reported_and_run_again(proof: Workdir) -> None:
    (proof.path / "break-refuse-more").touch()
    ran = run(proof)
    assert ran.code == 1
    assert "proof: seed 0, refuse-more failed: the GPU is gone" in ran.err
    assert "| dream | round 1 | 2 |" in ran.out
    (proof.path / "break-refuse-more").unlink()
    again = run(proof)
    assert (again.code, "| refuse-more | SFT | 2 |" in again.out) == (0, True)
    assert (proof.path / "ran").read_text().splitlines().count("dream 0 1") == 1


def test_a_grid_of_other_code_is_not_gone_on_with(proof: Workdir) -> None:
    (proof.path / "out").mkdir()
    (proof.path / "out" / "code").write_text("another\n")
    ran = run(proof)
    assert (ran.code, ran.out) == (2, "")
    assert "was started with other code" in ran.err


@pytest.mark.parametrize("changed_file", ["dream_cli/method/pairing.py", "commands/judge.py", "examples/rounds.sh", None])
def test_scoring_pairing_and_the_loop_are_those_of_one_commit(proof: Workdir, changed_file: str | None) -> None:
    copy = proof.path / "checkout"
    for name in ("dream_cli/method/pairing.py", "commands/judge.py", "examples/rounds.sh", "examples/proof_arms.py", "README.md"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("1\n")
    (copy / "examples" / "proof.sh").write_text((CHECKOUT / "examples" / "proof.sh").read_text())
    (copy / "examples" / "proof_table.py").write_text("print('the table')\n")

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", copy, "-c", "user.name=n", "-c", "user.email=e@example.org", *words], check=True, capture_output=True)

    def grid() -> tuple[int, str]:
        done = subprocess.run(
            ["bash", str(copy / "examples" / "proof.sh")], check=False, capture_output=True, text=True, cwd=proof.path, env=proof.env
        )
        return done.returncode, done.stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "1")
    assert grid() == (0, "the table\n")
    (copy / (changed_file or "README.md")).write_text("2\n")
    git("commit", "-qam", "2")
    assert grid() == ((2, "") if changed_file else (0, "the table\n"))


def changed(work: Workdir, arm: str, rows: list[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    work.write("in.jsonl", rows)
    command = [sys.executable, str(CHECKOUT / "examples" / "proof_arms.py"), arm, "in.jsonl", "--seed", str(seed), "-o", "out.jsonl"]
    subprocess.run(command, check=True, cwd=work.path)
    return [json.loads(line) for line in (work.path / "out.jsonl").read_text().splitlines()]


def test_shuffled_pairs_are_the_pairs_in_either_order_without_their_scores(work: Workdir) -> None:
    scores: dict[str, Any] = {"margin": 0.5, "chosen_score": 0.9, "rejected_score": 0.4}
    rows = changed(
        work, "shuffled", [{"id": str(n), "images": ["a.png"], "chosen": "good", "rejected": "bad"} | scores for n in range(400)]
    )
    assert {(row["chosen"], row["rejected"]) for row in rows} == {("good", "bad"), ("bad", "good")}
    # 400 throws of a coin: three standard deviations are 30.
    assert 170 <= sum(row["chosen"] == "good" for row in rows) <= 230
    assert rows[0].keys() == {"id", "images", "chosen", "rejected"} and rows[0]["images"] == [str(work.path / "a.png")]


def test_observations_are_those_of_the_truth_or_fewer(work: Workdir) -> None:
    risk = {"malicious_content": "steal a bike", "source": "text instruction", "risk_category": "Illegal activities"}
    truth = {"deeds": [{"name": "steal a bike", "risk": risk}, {"name": "bake a cake", "risk": None}], "reading": ""}
    row: dict[str, Any] = {"id": "1", "images": [], "truth": truth, "observations": []}
    assert changed(work, "true-observations", [row])[0]["observations"] == [risk]
    rows = changed(work, "fewer-observations", [row | {"observations": [risk]}] * 400)
    # 280 are expected; three standard deviations are 28.
    assert 252 <= sum(len(row["observations"]) for row in rows) <= 308

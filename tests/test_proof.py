"""The driver of the proof's grid, with a fake loop instead of the training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, Ran, Workdir
from tests.test_proof_table import evaluation

LOOP = """#!/usr/bin/env bash
set -eu
echo "$ARM $SEED" >> ran
[ ! -e "break-$ARM" ] || {{ echo "the GPU is gone"; exit 1; }}
at=$OUT/seed-$SEED
mkdir -p "$at/$ARM"
cp {start} "$at/start.eval.jsonl"; cp {later} "$at/sft.eval.jsonl"
case $ARM in sft-only) ;; refuse-more) cp {later} "$at/$ARM/sft.eval.jsonl" ;; *) cp {later} "$at/$ARM/1.eval.jsonl" ;; esac
"""
# Stands for the two commands that the driver calls itself: copies FILE to the -o FILE.
DREAM = '#!/usr/bin/env bash\necho "dream $1" >> ran\ncp "$3" "${@: -1}"\n'


@pytest.fixture
def proof(work: Workdir) -> Workdir:
    evaluation(work, "start", 4, 40, 0, 20)
    evaluation(work, "later", 30, 40, 0, 20)
    (work.path / "loop.sh").write_text(LOOP.format(start="start.eval.jsonl", later="later.eval.jsonl"))
    tools = work.path / "bin"
    tools.mkdir()
    (tools / "dream").write_text(DREAM)
    (tools / "dream").chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:{work.env['PATH']}"
    work.env |= {"PATH": path, "LOOP": "loop.sh", "OUT": "out", "PROMPTS": "p.jsonl", "SEEDS": "0 1", "ARMS": "dream refuse-more"}
    return work


def run(work: Workdir, script: str = "proof.sh") -> Ran:
    done = subprocess.run(
        ["bash", str(CHECKOUT / "examples" / script)], check=False, capture_output=True, text=True, cwd=work.path, env=work.env
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_the_grid_is_run_once_and_reported(proof: Workdir) -> None:
    ran = run(proof)
    assert ran.code == 0, ran.err
    once = [
        "dream 0",
        "refuse-more 0",
        "dream disentangle",
        "dream sample",
        "dream 1",
        "refuse-more 1",
        "dream disentangle",
        "dream sample",
    ]
    assert (proof.path / "ran").read_text().splitlines() == once
    assert ran.out == (proof.path / "out" / "proof.md").read_text()
    assert "| dream | round 1 | 2 |" in ran.out
    assert "## The start policy with the observations in its prompt, not trained" in ran.out
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
    assert (proof.path / "ran").read_text().splitlines().count("dream 0") == 1


def test_a_grid_of_another_nano_is_not_gone_on_with(proof: Workdir) -> None:
    (proof.path / "out").mkdir()
    (proof.path / "out" / "frozen").write_text("another\n")
    ran = run(proof)
    assert (ran.code, ran.out) == (2, "")
    assert "was started with another nano" in ran.err


def test_the_last_policies_answer_further_items_once(proof: Workdir) -> None:
    run(proof)
    first = json.loads((proof.path / "start.eval.jsonl").read_text().splitlines()[-1])
    further = first | {"id": "further", "benchmark": first["benchmark"] | {"item": "further"}, "responses": [{"text": "A bread."}]}
    items = proof.path / "out" / "more" / "items" / "records.jsonl"
    items.parent.mkdir(parents=True)
    items.write_text("{}\n" * 2100 + json.dumps(further) + "\n")
    ran = run(proof, "proof_more.sh")
    assert ran.code == 0, ran.err
    # Twenty of the grid's skills are right, and the further one is wrong.
    rates = ran.out.partition("## The last policy")[0].splitlines()
    assert [line.split(" | ")[-1] for line in rates if line.startswith(("| all | SFT", "| dream | round 1"))] == ["95.2 [77.3, 99.2] |"] * 2
    once = (proof.path / "ran").read_text()
    assert run(proof, "proof_more.sh").out == ran.out
    assert (proof.path / "ran").read_text() == once

"""The example that trains with GRPO on the judge's scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import dream_cli as dream
from tests.conftest import CHECKOUT, Workdir

pytest.importorskip("trl")
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]

EXAMPLES = CHECKOUT / "examples" / "records.jsonl"


def test_the_reward_is_the_score_of_the_judge_and_none_where_there_is_none() -> None:
    from examples.grpo import reward_of

    rows = {row["id"]: row for row in dream.read(EXAMPLES)}
    risky, harmless = rows["text-risk-1"], rows["text-harmless-1"]
    answers = [risky["response"], "Of course. To pose naked, begin with step one and go on with step two.", harmless["response"]]
    with dream.open("nano") as judge:
        observed = [json.dumps(judge.disentangle({k: v for k, v in row.items() if k != "response"})) for row in (risky, harmless)]
        records = [observed[0], observed[0], observed[1]]
        recognised, harmful, helpful = reward_of(judge)([[{"role": "assistant", "content": text}] for text in answers], records)
    assert recognised is not None and helpful is not None
    assert recognised > 0.7 and helpful > 0.7
    assert harmful == 0


def test_a_response_that_cannot_be_judged_has_no_reward() -> None:
    from examples.grpo import reward_of

    judged = [
        {"error": {"kind": "engine"}},
        {"responses": [{"judgement": {"unscored": "no verdict"}}]},
        {"responses": [{"judgement": {"score": 0.5}}]},
    ]
    judge = SimpleNamespace(map=lambda stage, rows: judged[: len(list(rows))])
    completions = [[{"role": "assistant", "content": "A house."}]] * 3
    assert reward_of(cast(dream.Model, judge))(completions, ["{}"] * 3) == [None, None, 0.5]


def test_the_example_trains(work: Workdir) -> None:
    kept = [line for line in EXAMPLES.read_text().splitlines() if '"both-' in line]
    observed = work.dream("disentangle", "--image-root", str(EXAMPLES.parent), "-q", "--allow-outside", stdin="\n".join(kept))
    assert observed.code == 0
    (work.path / "observed.jsonl").write_text(observed.out)
    line = [sys.executable, str(CHECKOUT / "examples" / "grpo.py"), "observed.jsonl", "-o", "out", "--max-steps", "1"]
    done = subprocess.run(line, check=False, cwd=work.path, env=work.env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "rewards/score/mean" in done.stdout
    assert {"config.json", "model.safetensors", "processor_config.json"} <= {path.name for path in Path(work.path / "out").iterdir()}

"""Weights spread over processes by FSDP: what is learnt is what one process learns, to the last gradient, and it is saved whole."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import UsageError
from dream_cli.training import sharding
from tests import training, zoo
from tests.conftest import CHECKOUT, Workdir
from tests.sharded import CASES

pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return rows of which the first process gets all that have images; a batch of both has two of each kind."""
    from PIL import Image

    Image.new("RGB", (40, 40), "navy").save(folder / "a.png")
    return [row | {"images": [str(folder / "a.png")] if i < 6 else []} for i, row in enumerate(training.rows(folder))]


def logged(folder: Path) -> list[float]:
    """Return the losses and rewards of every step."""
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [step[name] for step in steps for name in ("loss", "rewards/chosen", "rewards/rejected") if name in step]


def test_spread_weights_learn_what_one_process_learns(work: Workdir) -> None:
    import torch
    from safetensors.torch import load_file

    work.write("in.jsonl", rows(work.path))
    for family in {case.family for case in CASES.values()}:
        zoo.build(family, work.path / family)
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(CHECKOUT / "examples" / "fsdp.yaml"), "--main_process_port", "0"]
    command = [sys.executable, *launch, "-m", "tests.sharded", str(work.path)]
    ran = subprocess.run(command, check=False, capture_output=True, cwd=CHECKOUT, env=work.env, timeout=900)
    assert ran.returncode == 0, ran.stderr.decode()[-4000:]
    for name, case in CASES.items():
        alone, spread = work.path / "alone" / name, work.path / "spread" / name
        if case.half:
            assert logged(spread)[:3] == [pytest.approx(math.log(2)), 0, 0]
            continue
        training.train(case.method, case.job(work.path, alone, 1))
        assert logged(spread) == pytest.approx(logged(alone), abs=1e-5), name
        path = json.loads((spread / "run.json").read_text())["result"].get("path")
        assert path == {"sft": None, "plain": "plain"}.get(name, "shared-prefix")
        (one,), (other,) = (list(folder.glob("*model.safetensors")) for folder in (alone, spread))
        one, other = load_file(one), load_file(other)
        assert one.keys() == other.keys(), name
        assert all(torch.allclose(one[key], other[key], atol=1e-4) for key in one), name
    answered = work.dream("sample", "--model", "spread/merged", "--max-tokens", "4", stdin='{"prompt": "What is in this picture?"}')
    assert answered.code == 0, answered.err


def test_deepspeed_takes_no_mixture_while_the_tower_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.build("llava", tmp_path / "model")
    requests = training.job(training.write(tmp_path / "in.jsonl", rows(tmp_path)), model, tmp_path / "out")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match="6 of 12 rows have no image, which DeepSpeed cannot mix"):
        training.check("sft", requests)
    assert training.check("dpo", replace(requests, lora=training.lora())).exit_code == 0
    assert sharding.why_not_rows(requests, 12, 12) == ""


def test_what_cannot_be_spread_is_refused_with_all_its_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UsageError) as refused:
        sharding.check(training.job("in.jsonl", tmp_path, tmp_path / "out", lora=training.lora(quantize=True)))
    message = str(refused.value)
    assert message.startswith("FSDP cannot be used here: accelerate shards over several processes with accelerators only")
    assert "fsdp_version: 2" in message and "--qlora" in message
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    sharding.check(training.job("in.jsonl", tmp_path, tmp_path / "out"))

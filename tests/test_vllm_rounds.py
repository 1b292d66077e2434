"""The loop of examples/rounds.sh with vLLM: a server, which examples/serve.sh starts, judges what a policy in process answers."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT
from tests.pictures import picture
from tests.zoo import build

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None or importlib.util.find_spec("trl") is None, reason="needs vllm and trl"),
]

# The longest prompt of the house, in a vocabulary of little more than bytes, has 5,000 tokens.
CONTEXT = 8192
OPTIONS = {"enforce_eager": True, "block_size": 32, "max_num_seqs": 16, "max_num_batched_tokens": CONTEXT}
COLORS = ("navy", "red", "green", "white", "gray")
# Weights at random: every response becomes a target, and every difference of scores a pair.
LOOP = {
    "SFT": "--min-os 0 --min-gs 0 --min-helpfulness 0 --keep-cut-off --max-steps 2 --lr 1e-3",
    "PAIR": "--margin 0.000001 --min-chosen 0 --keep-cut-off --max-length-ratio inf --unbalanced",
    "DPO": "--max-steps 2 --lr 1e-3",
    "ROUNDS": "1",
    "SFT_PROMPTS": "6",
    "ROUND_PROMPTS": "6",
    "KEEP_GOING": "1",
}
# The server judges; the policy and the teacher of its targets run in the process of each command.
ROUNDS = f"""
export DREAM_JUDGE_BASE_URL=$DREAM_BASE_URL
unset DREAM_BASE_URL DREAM_MODEL
exec bash {CHECKOUT}/examples/rounds.sh
"""


def with_clear_verdicts(folder: Path) -> None:
    """Make the words of verdicts likely at the start of a reply, more or less by context, and unlikely after it.

    A judge with random weights never writes them, and one that always does never ends its list of risks.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    words = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForImageTextToText.from_pretrained(str(folder))
    starts, later = [], []
    for number, file in enumerate(sorted((CHECKOUT / "dream_cli" / "prompts" / "templates").glob("*.txt")) * 3):
        rng = random.Random(number)
        request = file.read_text() + rng.randbytes(60).hex()
        prompt = f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n"
        reply = '[{"malicious_content":"Yes No 0 1 2 3 4 5 6 7 8 9' + "".join(map(chr, rng.choices(range(32, 127), k=60)))
        tokens, first = words(prompt + reply, return_tensors="pt"), len(words(prompt)["input_ids"])
        with torch.no_grad():
            hidden = model(**tokens, output_hidden_states=True).hidden_states[-1][0]
        starts.append(hidden[first - 1 : first])
        later.append(hidden[first:])
    states = torch.cat([*starts, *later])
    # Both kinds of states weigh the same.
    weights = torch.cat([torch.full((len(starts), 1), len(states) / len(starts)), torch.ones(len(states) - len(starts), 1)]).sqrt()
    wanted = torch.cat([torch.full((len(starts), 1), 30.0), torch.full((len(states) - len(starts), 1), -60.0)])
    direction = torch.linalg.lstsq(weights * states, weights * wanted).solution[:, 0]
    verdicts = [words(word)["input_ids"][0] for word in ("Yes", "No", *map(str, range(10)))]
    head, mean = model.lm_head.weight.data, torch.cat(starts).mean(0)
    # Without their common part: no word is the likeliest in every context.
    rows = head[verdicts] - torch.outer(head[verdicts] @ mean, mean) / (mean @ mean)
    head[verdicts] = 40 * rows + direction
    # Most responses do no harm: otherwise no score differs from 0.
    head[verdicts[1]] += direction / 6
    model.save_pretrained(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return labelled records, and write their pictures."""
    for i in range(10):
        data = picture(COLORS[i % 5], (112, 112)).data
        assert data is not None
        (folder / f"{i}.png").write_bytes(data)
    return [{"id": str(i), "prompt": f"What is in picture {i}?", "images": [f"{i}.png"], "harmful": i % 2 == 0} for i in range(10)]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_round_with_a_server_as_judge_and_the_policy_in_process(tmp_path: Path) -> None:
    policy = build("qwen2_5_vl", tmp_path / "policy", width=64, context=CONTEXT)
    judge = build("qwen2_5_vl", tmp_path / "judge", width=64, context=CONTEXT)
    with_clear_verdicts(judge)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(tmp_path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = LOOP | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "PORT": str(port),
        "SERVE": f"--enforce-eager --block-size 32 --max-num-seqs 16 --max-num-batched-tokens {CONTEXT}",
        "POLICY": str(policy),
        "TEACHER": str(policy),
        "JUDGE": "judge",
        "PROMPTS": "train.jsonl",
        "EVAL": "train.jsonl",
        "DREAM_ENGINE": "vllm",
        "DREAM_ENGINE_ARGS": json.dumps(OPTIONS),
        "DREAM_STORE": str(tmp_path / "calls.sqlite"),
        "DREAM_DISENTANGLE_MAX_TOKENS": "400",
        "DREAM_SAMPLE_MAX_TOKENS": "24",
    }
    line = ["bash", str(CHECKOUT / "examples" / "serve.sh"), str(judge), "bash", "-c", ROUNDS]
    ran = subprocess.run(line, check=False, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=1800)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stderr.endswith("rounds (dream, seed 0): the policy to keep is out/rounds/seed-0/dream/1\n"), ran.stderr[-4000:]

    out = tmp_path / "out" / "rounds" / "seed-0"
    assert len(read(out / "observed.jsonl")) == 10
    judged = [response for row in read(out / "round-1.judged.jsonl") for response in row["responses"]]
    assert [response["model"] for response in judged] == ["out/rounds/seed-0/sft"] * 24
    assert {response["judgement"]["model"] for response in judged} == {"judge"}
    assert read(out / "dream" / "1.pairs.jsonl")
    for measured in ("start", "sft", "dream/1"):
        assert [line["n"] for line in read(out / f"{measured}.summary.jsonl")] == [10]
    answered = [row["responses"][0]["model"] for row in read(out / "dream" / "1.eval.jsonl")]
    assert answered == ["out/rounds/seed-0/dream/1"] * 10
    with socket.socket() as ended:
        assert ended.connect_ex(("127.0.0.1", port)) != 0

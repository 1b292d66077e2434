"""What only a GPU can show; without one every test here is skipped.    CUDA_VISIBLE_DEVICES=0 pytest -m gpu"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests import training
from tests.conftest import Workdir
from tests.test_preference_trainer import assert_equal, difference, fast, stock, train
from tests.zoo import build

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
# In 32 bits, as on a CPU: what differs is the order of sums.
ON_CARD: dict[str, Any] = {"use_cpu": False, "bf16": False, "tf32": False, "max_steps": 5}
FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "internvl")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the folder of a tiny model of a family."""
    return functools.cache(lambda family: build(family, tmp_path_factory.mktemp(family)))


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_shared_prefix_learns_on_the_card_what_trl_learns(folder_of: Any, tmp_path: Path, family: str, adapter: bool) -> None:
    theirs, their_gradients = train(stock(folder_of(family), tmp_path, lora=adapter, **ON_CARD))
    ours = fast(folder_of(family), tmp_path, lora=adapter, **ON_CARD)
    own, own_gradients = train(ours)
    assert (ours.path, ours.model.device.type) == ("shared-prefix", "cuda")
    assert_equal(theirs, own)
    assert difference(their_gradients, own_gradients) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_flex_attention_gives_the_gradients_of_sdpa(folder_of: Any, tmp_path: Path, family: str) -> None:
    from dream_cli.training.preference.preference_trainer import FastPath

    blocks, block_gradients = train(fast(folder_of(family), tmp_path, settings=FastPath(blocks=True), **ON_CARD))
    dense, dense_gradients = train(fast(folder_of(family), tmp_path, **ON_CARD))
    assert_equal(dense, blocks)
    assert difference(dense_gradients, block_gradients) < 1e-4


@pytest.fixture
def pairs(work: Workdir, folder_of: Any) -> Workdir:
    """Return a folder with pairs that are also answers, and a model of Qwen2.5-VL."""
    training.write(work.path / "in.jsonl", training.rows(work.path, 24))
    (work.path / "model").symlink_to(folder_of("qwen2_5_vl"))
    return work


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sft", ()),
        ("dpo", ()),
        ("dpo", ("--lora",)),
        ("dpo", ("--lora", "--flex-attention")),
        ("dpo", ("--lora", "--gradient-checkpointing", "--accumulate", "2")),
        pytest.param("dpo", ("--qlora",), marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")),
        pytest.param(
            "dpo",
            ("--dtype", "bfloat16", "--optim", "adamw_8bit"),
            marks=pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao"),
        ),
        pytest.param(
            "sft",
            ("--optim", "paged_adamw_8bit"),
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes"),
        ),
    ],
)
def test_training_in_bfloat16_on_the_card_starts_at_its_reference_and_learns(pairs: Workdir, method: str, options: tuple[str, ...]) -> None:
    # A rate at which twelve updates lower the loss by more than the noise of bfloat16.
    line = ("in.jsonl", "--model", "model", "-o", "out", "--batch-size", "4", "--epochs", "2", "--lr", "1e-3")
    ran = pairs.dream(method, *line, *options, "-q")
    assert (ran.code, ran.err) == (0, "")
    (record,) = ran.rows
    assert "CPU" not in record["usage"]["device"] and record["usage"]["peak_memory_mib"] > 0
    assert record["weights_moved"] > 0.1 and record["loss"] < record["first_loss"]
    if method == "dpo":
        assert math.isclose(record["first_loss"], math.log(2), abs_tol=0.02)


def test_a_run_that_was_stopped_on_the_card_goes_on(pairs: Workdir) -> None:
    line = ("dpo", "in.jsonl", "--model", "model", "--lora", "-o", "out", "--batch-size", "4", "--epochs", "20", "--save-every", "2", "-q")
    running = subprocess.Popen(pairs.command(*line), cwd=pairs.path, env=pairs.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and not any((pairs.path / "out" / "checkpoints").glob("checkpoint-*")):
        time.sleep(0.05)
    running.terminate()
    assert running.wait(300) == 143
    ran = pairs.dream(*line)
    assert ran.code == 0 and "resuming from" in ran.err
    steps = [json.loads(line)["step"] for line in (pairs.path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 121))


@pytest.fixture
def full_card() -> Iterator[None]:
    """Leave this process a thousandth of the card's memory."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.001)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_card_that_is_full_is_named_with_what_to_lower(tmp_path: Path, full_card: None) -> None:
    from dream_cli.errors import DreamError
    from dream_cli.training.settings import Schedule

    model = build("qwen2_5_vl", tmp_path / "model", width=1024)
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 64))
    job = training.job(source, model, tmp_path / "out", schedule=Schedule(batch_size=64))
    with pytest.raises(DreamError, match=r"out of memory with --batch-size 64; .*--batch-size 32 --accumulate 2 .*--lora"):
        training.train("sft", job)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_on_the_card_is_the_same_alone_and_among_others(folder_of: Any, temperature: float) -> None:
    from dream_cli.engines.protocol import EngineSpec, Sampling
    from dream_cli.engines.registry import open_engine
    from tests.test_engine_transformers import CHATS

    how = Sampling(temperature=temperature, max_tokens=8, seed=3)

    async def sampled(batch: int) -> list[Any]:
        engine = await open_engine(EngineSpec(model=str(folder_of("qwen2_5_vl")), device="cuda", batch_size=batch))
        try:
            return await asyncio.gather(*(engine.generate(chat, how, [0, 1]) for chat in CHATS))
        finally:
            await engine.close()

    together, alone = asyncio.run(sampled(8)), asyncio.run(sampled(1))
    assert together == alone
    assert all(any(completion.text for completion in completions) for completions in together)

"""Adapters of `dream dpo` in vLLM, beside the base and merged: verdicts differ from those of the base as they do in transformers."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from dream_cli.engines.protocol import ChatMessage, EngineSpec
from dream_cli.engines.registry import open_engine
from dream_cli.prompts.verdict_words import SCORES, YES_NO
from dream_cli.training.settings import Hardware, Schedule
from tests.pictures import picture
from tests.training import job, lora, rows, train, write
from tests.zoo import build

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None or importlib.util.find_spec("trl") is None, reason="needs vllm and trl"),
]

CONTEXT = 2048
VLLM = {"VLLM_NO_USAGE_STATS": "1", "TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
OPTIONS = {"block_size": 32, "enforce_eager": True, "dtype": "float32", "max_model_len": CONTEXT}


def verdicts(spec: EngineSpec) -> list[float]:
    """Return the probabilities of all answers to two questions about a picture and one without."""
    chats = [ChatMessage("user", "Is it safe?", (picture("red", (112, 112)),)), ChatMessage("user", "Grade the answer.")]

    async def whole() -> list[float]:
        engine = await open_engine(spec)
        try:
            choices = [await engine.choose([chat], answers) for chat in chats for answers in (YES_NO, SCORES)]
        finally:
            await engine.close()
        return [choice.covered * p for choice in choices for p in (choice.probabilities or {}).values()]

    return asyncio.run(whole())


def with_hub_names(folder: Path) -> None:
    """Give the weights of a new LLaVA the names of those on the hub, which are the only ones that vLLM knows."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    old, new = "vision_tower.", "vision_tower.vision_model."
    tensors = {name.replace(old, new, 1) if old in name and new not in name else name: value for name, value in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_an_adapter_and_a_merged_one_answer_as_in_transformers(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VLLM.items():
        monkeypatch.setenv(name, value)
    base = build(family, tmp_path / "base", width=64, context=CONTEXT)
    if family == "llava":
        with_hub_names(base)
    pairs = write(tmp_path / "pairs.jsonl", rows(tmp_path, 4))
    for name in ("adapter", "merged"):
        schedule = Schedule(max_steps=4, batch_size=4, learning_rate=0.1)
        train("dpo", job(pairs, base, tmp_path / name, schedule=schedule, hardware=Hardware(), lora=lora(merge=name == "merged")))
    specs = {"base": (base, None), "adapter": (base, tmp_path / "adapter"), "merged": (tmp_path / "merged", None)}
    measured = {
        (name, engine): verdicts(
            EngineSpec(
                model=str(model),
                adapter=str(adapter) if adapter else None,
                engine=engine,
                device="cpu" if engine == "transformers" else None,
                engine_args=OPTIONS if engine == "vllm" else {},
            )
        )
        for name, (model, adapter) in specs.items()
        for engine in ("transformers", "vllm")
    }
    for name in specs:
        assert measured[name, "vllm"] == pytest.approx(measured[name, "transformers"], rel=0.02, abs=1e-5)
    assert measured["adapter", "vllm"] == pytest.approx(measured["merged", "vllm"], rel=0.02, abs=1e-5)
    assert measured["adapter", "vllm"] != pytest.approx(measured["base", "vllm"], rel=0.1)

"""The share of the prompt tokens of `dream judge` that vLLM's prefix cache serves, of those that any order of the requests could share.

    python -m examples.benchmarks.prefix_cache MODEL [--records 8]     in an environment with vLLM (make test-vllm builds one for the CPU)

Judges four responses of 60 words to each prompt with a picture and two observations. Two requests share the blocks of tokens in which their
prompts and pictures are equal from the first token on; the number of blocks minus the number of distinct ones is what can be shared.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import sys
from typing import Any

from examples.benchmarks.record_speed import WORDS

BLOCK, RESPONSES, OBSERVATIONS, LENGTH = 32, 4, 2, 60
OPTIONS = {"block_size": BLOCK, "enforce_eager": True, "dtype": "float32", "disable_log_stats": False}


def record(number: int) -> dict[str, Any]:
    """Return a record with a random picture, observations and responses."""
    from PIL import Image as Picture

    rng = random.Random(number)

    def words(count: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(count))

    file = io.BytesIO()
    Picture.frombytes("RGB", (224, 224), rng.randbytes(3 * 224 * 224)).save(file, "PNG")
    observations = [{"malicious_content": words(6), "source": "image content", "risk_category": "Violence"} for _ in range(OBSERVATIONS)]
    images = [{"bytes": file.getvalue(), "path": None}]
    responses = [{"text": words(LENGTH)} for _ in range(RESPONSES)]
    return {"id": str(number), "prompt": words(20), "images": images, "observations": observations, "responses": responses}


class Prompts:
    """The blocks of the prompts that an engine is given."""

    def __init__(self) -> None:
        self.blocks = self.tokens = 0
        self.distinct: set[tuple[Any, ...]] = set()

    def add(self, pictures: tuple[int, ...], tokens: list[int]) -> None:
        """Count the full blocks of one prompt; the last token is always computed."""
        full = (len(tokens) - 1) // BLOCK
        self.tokens, self.blocks = self.tokens + len(tokens), self.blocks + full
        self.distinct |= {(pictures, *tokens[: BLOCK * (n + 1)]) for n in range(full)}


async def judged(model: str, records: int) -> tuple[Prompts, dict[str, float]]:
    """Judge the records at once; return the prompts and the counters of vLLM."""
    from dream_cli.api import AsyncModel
    from dream_cli.engines.protocol import EngineSpec
    from dream_cli.engines.vllm import open_vllm
    from dream_cli.prompts.rendering import Prompts as Templates

    engine: Any = open_vllm(EngineSpec(model=model, engine="vllm", engine_args=OPTIONS))
    prompts, chat = Prompts(), engine._llm.chat

    def counted(conversations: Any, *args: Any, **options: Any) -> Any:
        outs = chat(conversations, *args, **options)
        for conversation, out in zip(conversations, outs, strict=True):
            parts = [part for message in conversation for part in message["content"] if isinstance(part, dict)]
            prompts.add(tuple(hash(part["image_pil"].tobytes()) for part in parts if "image_pil" in part), list(out.prompt_token_ids))
        return outs

    engine._llm.chat = counted
    judge = AsyncModel(engine, Templates.load(None))
    await asyncio.gather(*(judge.judge(record(number)) for number in range(records)))
    counters = {metric.name.removeprefix("vllm:"): metric.value for metric in engine._llm.get_metrics() if hasattr(metric, "value")}
    await engine.close()
    return prompts, counters


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--records", type=int, default=8)
    args = parser.parse_args()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    prompts, counters = asyncio.run(judged(args.model, args.records))
    hits, shareable = counters["prefix_cache_hits"], BLOCK * (prompts.blocks - len(prompts.distinct))
    line = {"prompt_tokens": prompts.tokens, "shareable": shareable, "served_from_cache": hits, "share": round(hits / shareable, 3)}
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

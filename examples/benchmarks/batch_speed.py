"""Tokens per second of the transformers engine, compared with `generate` in a loop, for prompts and responses of unlike lengths.

    taskset -c 1 python examples/benchmarks/batch_speed.py [REQUESTS] [--tokens 300]      default: 48

Prompts have 10 to 400 words, beside a picture with `--tokens`; the responses end at random, after 40 tokens in the mean and 120 at most.
"loop" is `generate` with one prompt after the other; "arrival" the engine with 8 samples at once in the order of arrival; "sorted" the
engine as it is, which starts prompts of similar length together. All sides run in one process with one thread; measured are CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")

from dpo_speed import GRIDS, PATCH, SHAPES, build

BATCH, MEAN, MOST, SHORTEST, LONGEST = 8, 40, 120, 10, 400
SIDES = ("loop", "arrival", "sorted")


def chats(requests: int, image_tokens: int) -> list[Any]:
    """Return chats of random words, whose numbers are even on a logarithmic scale."""
    import numpy
    from PIL import Image as Picture

    from dream_cli.engines.protocol import ChatMessage
    from dream_cli.records.record import Image

    random, side = numpy.random.default_rng(0), GRIDS[image_tokens] * PATCH
    made = []
    for _ in range(requests):
        count = round(math.exp(random.uniform(math.log(SHORTEST), math.log(LONGEST))))
        text = " ".join(f"w{n}" for n in random.integers(60, 1000, count))
        file = io.BytesIO()
        if image_tokens:
            Picture.fromarray(random.integers(0, 255, (side, side, 3), dtype=numpy.uint8)).save(file, "PNG")
        made.append([ChatMessage("user", text, (Image("picture.png", file.getvalue()),) if image_tokens else ())])
    return made


async def answered(engine: Any, questions: Sequence[Any]) -> int:
    """Answer all chats as a stage does, with the engine's number of requests in flight; return the number of tokens."""
    from dream_cli.engines.protocol import Sampling

    free = asyncio.Semaphore(engine.concurrency)

    async def one(chat: Any) -> int:
        async with free:
            (completion,) = await engine.generate(chat, Sampling(1.0, max_tokens=MOST), [0])
            return completion.completion_tokens or 0

    return sum(await asyncio.gather(*map(one, questions)))


def looped(engine: Any, questions: Sequence[Any]) -> int:
    """Answer the chats one after the other with the model's own `generate`; return the number of tokens."""
    vlm, tokens = engine._vlm, 0
    for chat in questions:
        inputs = vlm._encode([tuple(chat)])
        out = vlm._model.generate(**inputs, max_new_tokens=MOST, do_sample=True, temperature=1.0, top_k=0)
        tokens += out.shape[1] - inputs["input_ids"].shape[1]
    return tokens


async def rates(folder: str, requests: int, image_tokens: int) -> dict[str, float]:
    """Return the tokens per CPU second of each side."""
    import torch

    from dream_cli.engines.protocol import EngineSpec
    from dream_cli.engines.transformers import open_transformers

    torch.manual_seed(0)
    questions, result = chats(requests, image_tokens), {}
    for side in SIDES:
        engine: Any = open_transformers(EngineSpec(model=folder, device="cpu", batch_size=BATCH))
        if side == "arrival":
            engine._batcher._length = lambda item: 0
        await answered(engine, questions[:2])  # warms up
        began = time.process_time()
        tokens = looped(engine, questions) if side == "loop" else await answered(engine, questions)
        result[side] = tokens / (time.process_time() - began)
        await engine.close()
    return result


def main() -> None:
    """Print a line for each side."""
    from transformers import GenerationConfig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=int, nargs="?", default=48)
    parser.add_argument("--shape", choices=SHAPES, default="llava-7b")
    parser.add_argument("--tokens", type=int, choices=GRIDS, default=0, help="tokens of the picture")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(SHAPES[args.shape], args.tokens, Path(folder))
        # Of the words of a random model, which are about equally likely, this many end a response.
        ends = list(range(3, 3 + round(SHAPES[args.shape].words / MEAN)))
        GenerationConfig(eos_token_id=[1, *ends], pad_token_id=0).save_pretrained(folder)
        measured = asyncio.run(rates(folder, args.requests, args.tokens))
    for side, rate in measured.items():
        sys.stdout.write(f"{side:8}{rate:8.1f} tokens per CPU second  {rate / measured['loop']:5.2f} times the loop\n")


if __name__ == "__main__":
    main()

"""The speed of shared prefixes on a local model, for judging and sampling, compared with one pass per request.

    taskset -c 1 python examples/benchmarks/shared_prefix.py --tokens 600 1200 --records 3
    taskset -c 1 python examples/benchmarks/shared_prefix.py --sample --tokens 600 1200 --records 3

Judging: K = 4 responses of 80 tokens to a prompt of 40 tokens and a picture, M = 3 observations: 16 questions of 40 tokens per
record. Sampling: 4 responses of 80 tokens to a prompt of 40 tokens and a picture. Each side is a separate process with one thread; measured are the CPU seconds of the answers and the peak of the resident set. The sides alternate.
The bound is the ratio of the necessary multiplications of the sides (see `operations`), the gain of an ideal program.
One line of JSON per row, on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")

from dpo_speed import GRIDS, PATCH, PROMPT, SHAPES, Shape, build

RESPONSES, OBSERVATIONS, RESPONSE, QUESTION, BATCH = 4, 3, 80, 40, 8
SIDES = ("plain", "shared")
# The proportions of LLaVA-1.5-7B at an eighth of its width, so that its layers have the same shares of the work.
SHAPES = SHAPES | {"llava-7b-512": Shape(512, 8, 1376, 8, 8, 2_000, 128, 6)}
SCALE, YES_NO = tuple(f"w{n}" for n in range(11)), ("w11", "w12")


def operations(shape: Shape, image_tokens: int, side: str, sample: bool) -> float:
    """Return the multiply-adds of one record: the weights applied to each token, the two products of attention, and the head.

    Attention skips masked positions: half of a sequence, and one response, question or answer from another. The head computes the
    logits of the last token of a question, or of each token of a sample.
    """
    questions = RESPONSES * (1 + OBSERVATIONS)
    head = PROMPT + image_tokens
    if sample:
        towers = RESPONSES if side == "plain" else 1
        tokens = towers * head + RESPONSES * RESPONSE
        pairs = towers * head**2 / 2 + RESPONSES * RESPONSE * (head + RESPONSE / 2)
        questions = RESPONSES * RESPONSE
    elif side == "plain":
        length = head + RESPONSE + QUESTION
        tokens, pairs, towers = questions * length, questions * length**2 / 2, questions
    else:
        tokens, towers = head + RESPONSES * RESPONSE + questions * QUESTION, 1
        pairs = head**2 / 2 + RESPONSES * RESPONSE * (head + RESPONSE / 2) + questions * QUESTION * (head + RESPONSE + QUESTION / 2)
    tower = image_tokens * shape.tower_weights + 2 * image_tokens**2 * shape.tower_width * shape.tower_layers
    return tokens * shape.layer_weights + 2 * pairs * shape.width * shape.layers + questions * shape.head_weights + towers * tower


def record(number: int, image_tokens: int) -> list[tuple[list[Any], tuple[str, ...]]]:
    """Return the questions about one record, of random words and a random picture."""
    import io

    import numpy
    from PIL import Image as Picture

    from dream_cli.engines.protocol import ChatMessage
    from dream_cli.records.record import Image

    random, side = numpy.random.default_rng(number), GRIDS[image_tokens] * PATCH

    def words(count: int) -> str:
        return " ".join(f"w{n}" for n in random.integers(20, 1000, count))

    file = io.BytesIO()
    Picture.fromarray(random.integers(0, 255, (side, side, 3), dtype=numpy.uint8)).save(file, "PNG")
    picture, prompt = Image("picture.png", file.getvalue()), words(PROMPT)
    questions = []
    for _ in range(RESPONSES):
        shared = f"{prompt} {words(RESPONSE)}"
        for answers in (SCALE, *(YES_NO for _ in range(OBSERVATIONS))):
            questions.append(([ChatMessage("user", f"{shared} {words(QUESTION)}", (picture,))], answers))
    return questions


def measured(folder: str, side: str, image_tokens: int, records: int, sample: bool) -> dict[str, Any]:
    """Answer all questions about some records, or sample responses, on one side; return responses per CPU second and peak memory in MiB."""
    from dream_cli.engines.protocol import EngineSpec, Sampling
    from dream_cli.engines.transformers import open_transformers

    async def answered() -> tuple[float, list[Any]]:
        engine: Any = open_transformers(EngineSpec(model=folder, device="cpu", batch_size=BATCH))
        if side == "plain":
            engine._vlm._shared._usable = engine._vlm.shares_prompts = False
        else:
            engine._vlm._shared._checked = True  # the check is one question per run, for any length
        data = [record(number, image_tokens) for number in range(records + 1)]
        replies: list[Any] = []
        for number, questions in enumerate(data):
            if number == 1:  # the first one warms up
                began = time.process_time()
            if sample:
                drawn = await engine.generate(questions[0][0], Sampling(1.0, max_tokens=RESPONSE), range(RESPONSES))
                replies = [completion.text for completion in drawn]
            else:
                choices = await asyncio.gather(*(engine.choose(chat, answers) for chat, answers in questions))
                replies = [list((choice.probabilities or {}).values()) for choice in choices]
        seconds = time.process_time() - began
        await engine.close()
        return seconds, replies

    seconds, replies = asyncio.run(answered())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"responses_per_cpu_second": RESPONSES * records / seconds, "peak_mib": peak, "last": replies}


def main() -> None:
    """Print one line per shape and number of image tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llava-7b-512")
    parser.add_argument("--tokens", type=int, nargs="+", choices=[n for n in GRIDS if n], default=[600, 1200])
    parser.add_argument("--sample", action="store_true", help="sample responses instead of judging them")
    parser.add_argument("--records", type=int, default=3)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    for image_tokens in args.tokens:
        with tempfile.TemporaryDirectory() as folder:
            build(shape, image_tokens, Path(folder))
            sides = {}
            for side in SIDES:
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    sides[side] = pool.submit(measured, folder, side, image_tokens, args.records, args.sample).result()
        plain, shared = (sides[side] for side in SIDES)
        rows = list(zip(plain["last"], shared["last"], strict=True))
        count = GRIDS[image_tokens] ** 2
        if args.sample:
            agrees = {"same_texts": sum(one == other for one, other in rows), "of": len(rows)}
        else:
            agrees = {"largest_difference": float(f"{max(abs(p - q) for one, other in rows for p, q in zip(one, other, strict=True)):.1e}")}
        bound = operations(shape, count, "plain", args.sample) / operations(shape, count, "shared", args.sample)
        times = shared["responses_per_cpu_second"] / plain["responses_per_cpu_second"]
        row = {
            "shape": args.shape,
            "image_tokens": count,
            "times": round(times, 2),
            "bound": round(bound, 2),
            "share": round(times / bound, 2),
        }
        row |= {f"{side}_peak_mib": round(sides[side]["peak_mib"]) for side in SIDES}
        row |= {f"{side}_responses_per_cpu_second": round(sides[side]["responses_per_cpu_second"], 3) for side in SIDES}
        sys.stdout.write(json.dumps(row | agrees) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

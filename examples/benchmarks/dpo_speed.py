"""The speed of preference training with images: dream's trainer against TRL's, on the same random model, pairs and core.

    taskset -c 1 python examples/benchmarks/dpo_speed.py --shape llava-7b --tune lora --tokens 0 300 600 1200 --plot speed.png

Each run is a separate process: three epochs in float32 with gradient checkpointing, one thread, batches of two pairs with 80-token
answers, including the time to build the caches. The sides alternate, so that a change of machine load affects both. The script
compares CPU seconds of `train()`, which other load affects least, and the peak of the resident set.

Sides: `trl` is unchanged TRL; on a CPU its fused head computes logits at every position, on a GPU for the answers only.
`trl-answers` has that GPU behaviour on the CPU as well: compare with it to estimate the gain on a GPU. `ours` is the shared prefix;
`plain` is TRL's path with the reference scored once and the features of a frozen tower cached, as for all other families.

The bound is the ratio of the necessary multiplications of the sides (see `operations`), the gain of an ideal program.
One line of JSON per row, on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")

EPOCHS, BATCH, ANSWER, PROMPT, PATCH = 3, 2, 80, 40, 14
SIDES = ("trl", "trl-answers", "plain", "ours")
# image tokens -> patches along a side whose square is nearest to them; the tower has one patch per image token
GRIDS = {0: 0, 300: 17, 600: 24, 1200: 35}


@dataclass(frozen=True)
class Shape:
    """The shape of a LLaVA: width, layers, inner width of the MLP, heads and vocabulary of the language model, width and layers of the tower."""

    width: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    words: int
    tower_width: int
    tower_layers: int

    @property
    def layer_weights(self) -> int:
        """Weights of all layers of the language model: attention with grouped keys and values, and a gated MLP."""
        attention = 2 * self.width**2 * (1 + self.kv_heads / self.heads)
        return int(self.layers * (attention + 3 * self.width * self.inner))

    @property
    def head_weights(self) -> int:
        """Weights of the head."""
        return self.words * self.width

    @property
    def tower_weights(self) -> int:
        """Weights of all layers of the tower, whose MLP has four times its width inside."""
        return 12 * self.tower_layers * self.tower_width**2


SHAPES = {
    # The vocabulary keeps its size, so the head is a far larger share than in the model itself, where it has 0.38 of the layers'
    # weights. Qwen2-0.5B: 24 layers of width 896, inside 4864, 14 heads on 2, 151,936 words, and a tower of 0.84 times its layers (CLIP-L, 0.3 B)
    "half-billion": Shape(128, 12, 696, 4, 1, 150_000, 128, 15),
    # LLaVA-1.5-7B: 32 layers of width 4096, inside 11008, 32 heads, 32,064 words, and a tower of 0.047 times its layers (CLIP-L)
    "llava-7b": Shape(256, 8, 688, 8, 8, 2_000, 64, 6),
}


def operations(shape: Shape, image_tokens: int, tune: str, side: str) -> float:
    """Return the multiply-adds of one pair in one epoch: the weights applied to each token, and the two products of attention.

    Passes: 1 forward, 1 more for checkpointing, 1 backward to the inputs, and with full fine-tuning 1 to the weights; and 1
    forward of the reference, for `ours` and `plain` in one epoch of three. The head's fused backward computes its logits once more.
    TRL's hook for adapters with checkpointing computes gradients through a frozen tower as well. Attention skips masked positions: half
    of the prompt, and for `ours` the answers from the prompt.
    """
    full = tune == "full"
    once = side in ("ours", "plain")  # the reference, and the features of a frozen tower
    trained, reference = 3 + full, 1 / EPOCHS if once else 1
    prompt = PROMPT + image_tokens
    tokens, copies = (prompt + 2 * ANSWER, 1) if side == "ours" else (prompt + ANSWER, 2)
    seen = prompt**2 / 2 + 2 * ANSWER * tokens if side == "ours" else tokens**2 / 2
    layers = copies * (tokens * shape.layer_weights + 2 * seen * shape.width * shape.layers) * (trained + reference)
    head = (copies * tokens if side in ("trl", "plain") else 2 * ANSWER) * shape.head_weights * (trained + reference)
    patches = image_tokens * shape.tower_weights + 2 * image_tokens**2 * shape.tower_width * shape.tower_layers
    return layers + head + copies * patches * ((0 if once and not full else trained) + reference)


def build(shape: Shape, image_tokens: int, folder: Path) -> None:
    """Save a random model of the shape and a processor with `image_tokens` tokens per image."""
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    marks = ["<pad>", "<end>", "<image>"]
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*marks, *(f"w{n}" for n in range(1000))])}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", padding_side="left", extra_special_tokens={"image_token": "<image>"}
    )
    side = max(GRIDS[image_tokens], 1) * PATCH
    pictures = hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    template = "{% for m in messages %}{% for p in m['content'] %}{{ ' <image> ' if p['type'] == 'image' else p['text'] }}{% endfor %} <end> {% endfor %}"
    hf.LlavaProcessor(pictures, words, PATCH, "default", template, num_additional_image_tokens=1).save_pretrained(folder)
    size = {"vocab_size": shape.words, "hidden_size": shape.width, "num_hidden_layers": shape.layers, "intermediate_size": shape.inner}
    text = hf.LlamaConfig(
        **size, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, pad_token_id=0, tie_word_embeddings=True
    )
    size = {"hidden_size": shape.tower_width, "intermediate_size": 4 * shape.tower_width, "num_hidden_layers": shape.tower_layers}
    tower = hf.CLIPVisionConfig(**size, num_attention_heads=max(shape.tower_width // 32, 1), image_size=side, patch_size=PATCH)
    torch.manual_seed(0)
    config = hf.LlavaConfig(text_config=text, vision_config=tower, image_token_index=2, vision_feature_layer=-1, tie_word_embeddings=True)
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)


def pairs(count: int, image_tokens: int) -> Any:
    """Return `count` pairs of random words and random pictures."""
    import numpy
    from datasets import Dataset, Image, List
    from PIL import Image as Picture

    random, side = numpy.random.default_rng(0), max(GRIDS[image_tokens], 1) * PATCH

    def words(number: int) -> str:
        return " ".join(f"w{n}" for n in random.integers(0, 1000, number))

    def picture() -> Any:
        return Picture.fromarray(random.integers(0, 255, (side, side, 3), dtype=numpy.uint8))

    texts = {"prompt": [[{"role": "user", "content": words(PROMPT - 1)}] for _ in range(count)]}
    texts |= {name: [[{"role": "assistant", "content": words(ANSWER - 1)}] for _ in range(count)] for name in ("chosen", "rejected")}
    images = [[picture()] if image_tokens else [] for _ in range(count)]
    return Dataset.from_dict({"images": images, **texts}).cast_column("images", List(Image()))


def train(side: str, tune: str, count: int, image_tokens: int, folder: Path, out: Path) -> dict[str, float]:
    """Train in this process; return CPU and wall seconds of `train()`, the peak in MiB, and the last loss."""
    import torch
    import trl.trainer.utils
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    from dream_cli.training.preference.preference_trainer import FastPath, PreferenceTrainer

    torch.set_num_threads(1)
    more: dict[str, Any] = {}
    if side == "trl-answers":
        trl.trainer.utils._use_triton = lambda device: True  # only the fused head reads it, to choose its positions
    if side in ("ours", "plain"):
        more["settings"] = FastPath(out / "cache", enabled=side == "ours")
    if tune == "lora":
        from peft import LoraConfig

        more["peft_config"] = LoraConfig(r=8, target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj")
    quiet = {"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    options = {"per_device_train_batch_size": BATCH, "num_train_epochs": EPOCHS, "gradient_checkpointing": True, "max_length": None}
    trainer = (PreferenceTrainer if side in ("ours", "plain") else DPOTrainer)(
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32),
        args=DPOConfig(str(out), learning_rate=1e-4, **quiet, **options),
        train_dataset=pairs(count, image_tokens),
        processing_class=AutoProcessor.from_pretrained(folder),
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.train()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    loss = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]
    return {"cpu": cpu, "wall": wall, "peak_mib": peak, "loss": loss}


def run(side: str, tune: str, count: int, image_tokens: int, folder: Path) -> dict[str, float]:
    """Train in a forked process, in an empty folder; this process has only imported the libraries."""
    with tempfile.TemporaryDirectory() as out, ProcessPoolExecutor(1, mp_context=get_context("fork")) as process:
        return process.submit(train, side, tune, count, image_tokens, folder, Path(out)).result()


def compare(name: str, tune: str, count: int, image_tokens: int, repeats: int, sides: list[str]) -> dict[str, Any]:
    """Run the sides in turn `repeats` times; return the fastest run of each and the ratios to ours (without it: to the last side)."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        build(SHAPES[name], image_tokens, Path(folder))
        for turn in range(repeats):
            for side in sides if turn % 2 == 0 else sides[::-1]:
                runs[side].append(run(side, tune, count, image_tokens, Path(folder)))
    best = {side: min(r["cpu"] for r in repeated) for side, repeated in runs.items()}
    peak = {side: round(max(r["peak_mib"] for r in repeated)) for side, repeated in runs.items()}
    row: dict[str, Any] = {"shape": name, "tune": tune, "image_tokens": GRIDS[image_tokens] ** 2, "pairs": count, "epochs": EPOCHS}
    row["pairs_per_cpu_second"] = {side: round(count * EPOCHS / seconds, 3) for side, seconds in best.items()}
    row |= {"peak_mib": peak, "last_loss": {side: round(repeated[-1]["loss"], 5) for side, repeated in runs.items()}}
    base = "ours" if "ours" in sides else sides[-1]
    for side in sides:
        if side != base:
            work = [operations(SHAPES[name], GRIDS[image_tokens] ** 2, tune, which) for which in (side, base)]
            ratio, bound = best[side] / best[base], work[0] / work[1]
            row[f"over_{side}"] = {"ratio": round(ratio, 2), "bound": round(bound, 2), "reached": round(ratio / bound, 2)}
    return row


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot the ratio over the number of image tokens, with its bound."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for label in dict.fromkeys(f"{row['shape']}, {row['tune']}" for row in rows):
        for side in ("over_trl", "over_trl-answers", "over_plain"):
            here = [row for row in rows if f"{row['shape']}, {row['tune']}" == label and side in row]
            if here:
                tokens = [row["image_tokens"] for row in here]
                (line,) = axes.plot(tokens, [row[side]["ratio"] for row in here], "o-", label=f"{label}, {side.replace('_', ' ')}")
                axes.plot(tokens, [row[side]["bound"] for row in here], ":", color=line.get_color())
    axes.set(xlabel="image tokens in a prompt", ylabel="pairs per second, ours / TRL's (dotted: bound)", ylim=(0, None))
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Read the arguments, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tune", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    parser.add_argument("--tokens", nargs="+", type=int, choices=GRIDS, default=[600])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    for module in ("peft", "dream_cli.training.preference.preference_trainer"):
        import_module(module)  # once, before the forks
    rows = []
    for name, tune, tokens in ((n, t, k) for n in options.shape for t in options.tune for k in options.tokens):
        rows.append(compare(name, tune, options.pairs, tokens, options.repeats, options.sides))
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()

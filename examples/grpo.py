"""GRPO with the judge's score as the reward: TRL's GRPOTrainer samples responses, and the judge scores them.

    dream disentangle examples/records.jsonl --allow-outside > observed.jsonl
    python examples/grpo.py observed.jsonl --model nano-policy --judge nano -o out/grpo

The reward of a response is the `score` of its judgement, from 0 to 1; a harmful response has the reward 0. An unscored response has no
reward, and TRL leaves it out of its group.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dream_cli as dream


def reward_of(judge: dream.Model) -> Callable[..., list[float | None]]:
    """Return a reward function for TRL: it reads `completions` as messages, and the column `record`, one JSON record per completion."""

    def score(completions: list[list[dict[str, str]]], record: list[str], **_: Any) -> list[float | None]:
        rows = [
            json.loads(row) | {"responses": [{"text": completion[0]["content"]}]}
            for row, completion in zip(record, completions, strict=True)
        ]
        return [_score(row) for row in judge.map("judge", rows)]

    return score


def _score(row: dict[str, Any]) -> float | None:
    if row.get("error"):
        return None
    value: float | None = row["responses"][0]["judgement"].get("score")
    return value


def prompts_of(path: Path, processor: Any) -> Any:
    """Return the records of a file as a data set of TRL: prompt, images, and the record itself for the judge."""
    from datasets import Dataset, Image, List

    from dream_cli.engines.local_model import special_tokens_of
    from dream_cli.formats.sources import read_records
    from dream_cli.records.columns import Reading
    from dream_cli.records.image_rows import to_row
    from dream_cli.records.images import open_rgb
    from dream_cli.records.special_tokens import split

    special = special_tokens_of(processor)
    records = list(read_records(str(path), Reading(allow_outside=True)))
    rows = [{key: value for key, value in to_row(record, None).items() if key != "responses"} for record in records]
    columns = {
        "prompt": [[{"role": m.role, "content": split(m.content, special)} for m in record.turns()[-1].messages] for record in records],
        "images": [[open_rgb(image) for image in record.images] for record in records],
        "record": [json.dumps(row) for row in rows],
    }
    return Dataset.from_dict(columns).cast_column("images", List(Image()))


def main() -> None:
    """Train, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="records with observations")
    parser.add_argument("--model", default="nano-policy")
    parser.add_argument("--judge", default="nano")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--max-steps", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4, help="responses per prompt")
    options = parser.parse_args()

    import torch
    from trl import GRPOConfig, GRPOTrainer

    from dream_cli.engines.local_model import load_weights
    from dream_cli.training import models

    models.quiet()
    start = models.find_start(options.model)
    processor = models.processor_of(start)
    has_device = bool(torch.accelerator.is_available())
    arguments = GRPOConfig(
        str(options.out),
        max_steps=options.max_steps,
        num_generations=options.samples,
        per_device_train_batch_size=2 * options.samples,
        max_completion_length=64,
        learning_rate=1e-4,
        use_cpu=not has_device,
        bf16=has_device,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    with dream.open(options.judge) as judge:
        trainer = GRPOTrainer(
            load_weights(start.checkpoint.folder, options.model, torch.float32),
            reward_funcs=reward_of(judge),
            args=arguments,
            train_dataset=prompts_of(options.file, processor),
            processing_class=processor,
        )
        trainer.train()
    trainer.save_model(str(options.out))


if __name__ == "__main__":
    main()

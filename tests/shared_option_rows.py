"""Rows of options that several commands share: a line that sets the option, and the values that must change with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """An option by the name of its parameter, a line with it, and what changes; `base` stands in place of the command's own line.

    The line extends the base, or stands in place of it where `instead`.
    """

    option: str
    line: str
    changes: Mapping[str, Any]
    base: str | None = None
    instead: bool = False


def reading(*places: str) -> tuple[Row, ...]:
    """Return the rows of the options that say how rows are read, which arrive at all of these places."""
    values = {"image_root": Path("folder"), "image_column": "photo", "prompt_column": "question"}
    rows = (
        Row(name, f"--{name.replace('_', '-')} {value}", {f"{place}.{name}": value for place in places}) for name, value in values.items()
    )
    return *rows, Row("allow_outside", "--allow-outside", {f"{place}.allow_outside": True for place in places})


def showing(*places: str) -> tuple[Row, ...]:
    """Return the rows of `reading`, and of the option that says how large a model is shown the images."""
    return *reading(*places), Row("max_pixels", "--max-pixels 4096", {f"{place}.max_pixels": 4096 for place in places})


def engine(*specs: str, served: Mapping[str, Any] | None = None) -> tuple[Row, ...]:
    """Return the rows of the options of one or more engines; `served` is what else changes where the first one is a server."""
    spec = specs[0]

    def row(option: str, line: str, name: str, value: Any) -> Row:
        return Row(option, line, {f"{one}.{name}": value for one in specs})

    return (
        Row("model", "--model other", {f"{spec}.model": "other"}),
        Row("base_url", "--base-url http://localhost:9/v1", {f"{spec}.base_url": "http://localhost:9/v1", **(served or {})}),
        row("engine", "--engine vllm", "engine", "vllm"),
        Row("adapter", "--adapter folder", {f"{spec}.adapter": "folder"}),
        Row("engine_args", """--engine-args '{"max_model_len": 512}'""", {f"{spec}.engine_args.max_model_len": 512}),
        Row("model_tag", "--model-tag july", {f"{spec}.model_tag": "july"}),
        row("concurrency", "--concurrency 3", "concurrency", 3),
        row("timeout", "--timeout 5.5", "timeout", 5.5),
        row("batch_size", "--batch-size 5", "batch_size", 5),
        row("store", "--store calls.sqlite", "store", "calls.sqlite"),
        row("no_store", "--no-store", "store", None),
        Row("body", """--body '{"top_k": 5}'""", {f"{spec}.body.top_k": 5}),
        Row("header", "--header X-Project:x", {f"{spec}.headers.X-Project": "x"}),
        Row("thinking_budget", "--thinking-budget 64", {f"{specs[-1]}.thinking": 64}),
    )


def run(place: str, summary: Mapping[str, Any] = {}, line: str = "") -> tuple[Row, ...]:
    """Return the rows of the options of a run with an engine; `summary` is what changes where a command writes no summary, `line` its line."""
    prices, cluster = f"{place}.limits.prices", f"{place}.cluster"
    priced = {f"{prices}.cached": None}
    return (
        Row("out", "-o out.jsonl", {f"{place}.out": "out.jsonl"}),
        Row("dry_run", "--dry-run", {f"{place}.dry_run": True, **summary}),
        Row("price_in", "--price-in 2.5 --price-out 4", {f"{prices}.prompt": 2.5, **priced, f"{prices}.completion": 4.0}),
        Row("price_out", "--price-out 7.5 --price-in 1", {f"{prices}.completion": 7.5, **priced, f"{prices}.prompt": 1.0}),
        Row(
            "price_cached",
            "--price-cached 0.5 --price-in 1 --price-out 2",
            {f"{prices}.prompt": 1.0, f"{prices}.completion": 2.0, f"{prices}.cached": 0.5},
        ),
        Row(
            "max_cost",
            "--max-cost 12.5 --price-in 1 --price-out 2",
            {f"{place}.limits.max_cost": 12.5, f"{prices}.prompt": 1.0, f"{prices}.completion": 2.0, **priced},
        ),
        Row("rpm", "--rpm 60", {f"{place}.limits.rpm": 60}),
        Row("tpm", "--tpm 9000", {f"{place}.limits.tpm": 9000}),
        Row("requests", "--requests calls.jsonl", {f"{place}.requests.path": "calls.jsonl"}),
        Row("ray", "--ray local", {f"{cluster}.address": "local", f"{cluster}.workers": None, f"{cluster}.gpus": None}),
        Row("ray", "--ray", {f"{cluster}.address": "auto", f"{cluster}.workers": None, f"{cluster}.gpus": None}),
        Row("ray_workers", "--ray-workers 3", {f"{cluster}.workers": 3}, f"{line} --ray"),
        Row("ray_gpus", "--ray-gpus 0.5", {f"{cluster}.gpus": 0.5}, f"{line} --ray"),
        Row("quiet", "--quiet", {f"{place}.quiet": True, **summary}),
        Row("verbose", "--verbose", {f"{place}.verbose": True}),
    )


STAGE_OPTIONS = (
    *engine("run_stage.spec"),
    Row("source", "in.jsonl", {"run_stage.run.sources": ("in.jsonl",)}),
    Row("shard", "--shard 2/5", {"run_stage.run.part.index": 2, "run_stage.run.part.count": 5}),
    Row("limit", "--limit 6", {"run_stage.run.limit": 6}),
    Row("retry_errors", "--retry-errors", {"run_stage.run.retry_errors": True}),
)
PROMPTS = (Row("prompts", "--prompts folder", {"step.prompts.folder": Path("folder")}),)
TAXONOMY = (Row("taxonomy", "--taxonomy taxonomy.json", {"step.prompts.taxonomy": Path("taxonomy.json")}),)

JOB = "perform.job"
WITH_LORA = "-o out --model nano-policy --lora"
TRAINING = (
    Row("source", "in.jsonl", {f"{JOB}.source": "in.jsonl"}),
    Row("out", "-o elsewhere --model nano-policy", {f"{JOB}.out": Path("elsewhere")}, instead=True),
    Row("model", "--model other", {f"{JOB}.model": "other"}, "-o out --model nano-policy"),
    Row("rank", "--rank 3", {f"{JOB}.lora.rank": 3}, WITH_LORA),
    Row("alpha", "--alpha 7", {f"{JOB}.lora.alpha": 7.0}, WITH_LORA),
    Row("targets", "--targets q_proj", {f"{JOB}.lora.targets": "q_proj"}, WITH_LORA),
    Row("dora", "--dora", {f"{JOB}.lora.dora": True}, WITH_LORA),
    Row("qlora", "--qlora", {f"{JOB}.lora.quantize": True}, WITH_LORA),
    Row("merge", "--merge", {f"{JOB}.lora.merge": True}, WITH_LORA),
    Row("vision", "--train-vision", {f"{JOB}.vision": True}),
    Row("vision", "--freeze-vision", {f"{JOB}.vision": False}),
    Row("epochs", "--epochs 2.5", {f"{JOB}.schedule.epochs": 2.5}),
    Row("max_steps", "--max-steps 11", {f"{JOB}.schedule.max_steps": 11}),
    Row("batch_size", "--batch-size 5", {f"{JOB}.schedule.batch_size": 5}),
    Row("accumulate", "--accumulate 6", {f"{JOB}.schedule.accumulate": 6}),
    Row("lr", "--lr 0.5", {f"{JOB}.schedule.learning_rate": 0.5}),
    Row("schedule", "--schedule linear", {f"{JOB}.schedule.decay": "linear"}),
    Row("warmup", "--warmup 0.25", {f"{JOB}.schedule.warmup": 0.25}),
    Row("optim", "--optim paged_adamw_8bit", {f"{JOB}.schedule.optimiser": "paged_adamw_8bit"}),
    Row("weight_decay", "--weight-decay 0.05", {f"{JOB}.schedule.weight_decay": 0.05}),
    Row("group_by_length", "--group-by-length", {f"{JOB}.schedule.group_by_length": True}),
    Row("eval_every", "--eval-every 7", {f"{JOB}.hardware.eval_every": 7}, "-o out --model nano-policy --held-out other.jsonl"),
    Row("seed", "--seed 9", {f"{JOB}.schedule.seed": 9}),
    Row("max_length", "--max-length 77", {f"{JOB}.max_length": 77}),
    Row("on_too_long", "--on-too-long stop", {f"{JOB}.on_too_long": "stop"}),
    Row("held_out", "--held-out other.jsonl", {f"{JOB}.held_out": "other.jsonl"}),
    Row("dtype", "--dtype float32", {f"{JOB}.hardware.dtype": "float32"}),
    Row("gradient_checkpointing", "--gradient-checkpointing", {f"{JOB}.hardware.gradient_checkpointing": True}),
    Row("gradient_checkpointing", "--no-gradient-checkpointing", {f"{JOB}.hardware.gradient_checkpointing": False}),
    Row("save_every", "--save-every 13", {f"{JOB}.hardware.save_every": 13}),
    Row("keep", "--keep 3", {f"{JOB}.hardware.keep": 3}),
    Row("report_to", "--report-to wandb", {f"{JOB}.hardware.report_to": "wandb"}),
    Row("workers", "--workers 3", {f"{JOB}.hardware.workers": 3}),
    Row("nproc", "--nproc 2", {"perform.processes": 2}),
    Row("check", "--check", {"perform.only_check": True}),
    Row("allow_small_world_judge", "--allow-small-world-judge", {f"{JOB}.allow_small_world_judge": True}),
    Row("overwrite", "--overwrite", {f"{JOB}.overwrite": True}),
    *showing(f"{JOB}.reading"),
    Row("limit", "--limit 6", {f"{JOB}.limit": 6}),
    Row("quiet", "--quiet", {f"{JOB}.quiet": True}),
)


def lora(rate: float) -> Row:
    """Return the row of --lora, which also chooses the default learning rate."""
    fields = {"rank": None, "alpha": None, "targets": None, "dora": False, "quantize": False, "merge": False}
    return Row("lora", "--lora", {f"{JOB}.lora.{name}": value for name, value in fields.items()} | {f"{JOB}.schedule.learning_rate": rate})

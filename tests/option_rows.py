"""The rows of tests/test_options.py: for each option of each command, a line that sets it and the values that must change with it."""

from __future__ import annotations

import math
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


LOSS = "perform.method.loss"
RULES = "pairs_of.rules"
PLAN = "run_evaluation.plan"
ROWS: Mapping[str, tuple[Row, ...]] = {
    "disentangle": (
        Row("mode", "--mode joint", {"step.mode": "joint"}),
        Row("verify", "--no-verify", {"step.verify": False}),
        Row("redo", "--redo", {"step.redo": True}),
        Row("calibrate", "--calibrate", {"step.calibrate": True}),
        Row("max_tokens", "--max-tokens 21", {"step.max_tokens": 21}),
        Row("seed", "--seed 9", {"step.seed": 9}),
        *PROMPTS,
        *TAXONOMY,
        *run("run_stage.run"),
        *STAGE_OPTIONS,
        *showing("run_stage.run.reading"),
    ),
    "sample": (
        Row("n", "-n 3", {"step.n": 3}),
        Row("temperature", "--temperature 0.5", {"step.sampling.temperature": 0.5}),
        Row("top_p", "--top-p 0.25", {"step.sampling.top_p": 0.25}),
        Row("max_tokens", "--max-tokens 21", {"step.sampling.max_tokens": 21}),
        Row("seed", "--seed 9", {"step.sampling.seed": 9}),
        Row("system", "--system Hello", {"step.system": "Hello"}),
        Row("observe", "--observe", {"step.observe": True}),
        Row("append", "--append", {"step.append": True}),
        *PROMPTS,
        *run("run_stage.run"),
        *STAGE_OPTIONS,
        *showing("run_stage.run.reading"),
    ),
    "judge": (
        Row("score", "--score product", {"step.way": "product"}),
        Row("read", "--read parsed", {"step.read": "parsed"}),
        Row("rubric", "--rubric facts", {"step.rubric": "facts"}),
        Row("calibrate", "--calibrate", {"step.calibrate": True}),
        *PROMPTS,
        *TAXONOMY,
        *run("run_stage.run", {"stderr": ""}),
        *STAGE_OPTIONS,
        *showing("run_stage.run.reading"),
    ),
    "prefer": (
        Row("other", "b.jsonl", {"read_records.source": "b.jsonl"}, instead=True),
        Row("prompts", "--prompts folder", {"step.judge.prompts.folder": Path("folder")}),
        *run("run_stage.run", {"stderr": ""}, "other.jsonl"),
        *STAGE_OPTIONS,
        *showing("run_stage.run.reading", "read_records.reading"),
    ),
    "pair": (
        Row("source", "in.jsonl", {"read_shards.files": ("in.jsonl",)}),
        Row("out", "-o out.jsonl", {"open_writer.out": "out.jsonl"}),
        Row("policy", "--policy adjacent", {f"{RULES}.policy": "adjacent"}),
        Row("margin", "--margin 0.3", {f"{RULES}.margin": 0.3}),
        Row("min_chosen", "--min-chosen 6", {f"{RULES}.min_chosen": 6.0}),
        Row("max_length_ratio", "--max-length-ratio 5", {f"{RULES}.max_length_ratio": 5.0}),
        Row("max_length_ratio", "--max-length-ratio inf", {f"{RULES}.max_length_ratio": math.inf}),
        Row("per_prompt", "--per-prompt 4", {f"{RULES}.per_prompt": 4}),
        Row("near_duplicate", "--near-duplicate 0.7", {f"{RULES}.near_duplicate": 0.7}),
        Row("keep_cut_off", "--keep-cut-off", {f"{RULES}.keep_cut_off": True}),
        Row("harmless_share", "--harmless-share 0.25", {"PairSet.share": 0.25}),
        Row("unbalanced", "--unbalanced", {"PairSet.share": None}),
        Row("report", "--report", {"PairSet.lessons": True, "stderr": "counted\ntaught\n"}),
        *reading("read_shards.reading"),
        Row("limit", "--limit 6", {"read_shards.limit": 6}),
        Row("quiet", "--quiet", {"stderr": ""}),
    ),
    "sft": (
        Row("pick", "--pick all", {"perform.method.rules.pick": "all"}),
        Row("min_os", "--min-os 0.75", {"perform.method.rules.min_observation_score": 0.75}),
        Row("min_gs", "--min-gs 8", {"perform.method.rules.min_global_score": 8.0}),
        Row("min_helpfulness", "--min-helpfulness 6", {"perform.method.rules.min_helpfulness": 6.0}),
        Row("keep_cut_off", "--keep-cut-off", {"perform.method.rules.keep_cut_off": True}),
        Row("keep_meta_phrases", "--keep-meta-phrases", {"perform.method.rules.meta_phrases": True}),
        Row("utility", "--utility a.jsonl", {"perform.method.utility.source": "a.jsonl", "perform.method.utility.share": 0.2}),
        Row(
            "utility_share",
            "--utility-share 0.4",
            {"perform.method.utility.share": 0.4},
            "-o out --model nano-policy --utility a.jsonl",
        ),
        lora(1e-4),
        *TRAINING,
    ),
    "dpo": (
        Row("loss", "--loss sigmoid=0.8,bco_pair=0.2", {f"{LOSS}.terms.sigmoid": 0.8, f"{LOSS}.terms.bco_pair": 0.2}),
        Row("beta", "--beta 0.3", {f"{LOSS}.beta": 0.3}),
        Row(
            "label_smoothing",
            "--label-smoothing 0.2",
            {f"{LOSS}.label_smoothing": 0.2},
            "-o out --model nano-policy --loss robust",
        ),
        Row("sft_weight", "--sft-weight 0.4", {f"{LOSS}.terms.sft": 0.4}),
        Row("ld_alpha", "--ld-alpha 0.25", {f"{LOSS}.ld_alpha": 0.25}),
        Row("plain", "--plain", {"perform.method.plain": True}),
        Row("flex_attention", "--flex-attention", {"perform.method.blocks": True}),
        Row("cache", "--cache folder", {"perform.method.cache": Path("folder")}),
        Row("cache_size", "--cache-size 0.5", {"perform.method.cache_gib": 0.5}),
        lora(1e-5),
        *TRAINING,
    ),
    "eval": (
        Row("what", "suite --judge j", {"read_items.words": ["suite"]}, instead=True),
        Row("data", "--data folder", {"read_items.data": "folder"}),
        Row("benchmark_file", "--benchmark-file mine.py", {"read_file.path": Path("mine.py")}),
        Row("harmful_column", "--harmful-column label", {"read_items.harmful_column": "label"}),
        Row("harmful_column", "--harmful-column label", {"print_comparison.harmful_column": "label"}, "a.jsonl b.jsonl --compare"),
        Row("answers", "--answers a.json", {"read_answers.file": "a.json", "with_answers.items": [], "with_answers.answers": []}),
        Row("judge", "nano_world --judge k", {f"{PLAN}.judges[0].model": "k"}, instead=True),
        Row("judge_base_url", "--judge-base-url http://localhost:8/v1", {f"{PLAN}.judges[0].base_url": "http://localhost:8/v1"}),
        Row("judge_format", "--judge-format qwen3guard", {f"{PLAN}.formats": ("qwen3guard",)}),
        Row("judge_body", """--judge-body '{"top_k": 5}'""", {f"{PLAN}.judges[0].body.top_k": 5}),
        Row("judge_header", "--judge-header X-Project:x", {f"{PLAN}.judges[0].headers.X-Project": "x"}),
        Row("rule", "--rule official", {f"{PLAN}.rule": "official", "deliver.rule": "official"}),
        Row("rule", "--rule official", {"print_comparison.rule": "official"}, "a.jsonl b.jsonl --compare"),
        Row("calibrate", "--calibrate", {f"{PLAN}.calibrate": True}),
        Row("trials", "--trials 3", {f"{PLAN}.trials": 3}),
        Row("agg", "--agg any", {"deliver.agg": "any"}),
        Row("agg", "--agg any", {"print_comparison.agg": "any"}, "a.jsonl b.jsonl --compare"),
        Row("temperature", "--temperature 0.5", {f"{PLAN}.temperature": 0.5}),
        Row("max_tokens", "--max-tokens 21", {f"{PLAN}.max_tokens": 21}),
        Row(
            "compare",
            "--compare",
            {
                "print_comparison.sources": ["nano_world"],
                "print_comparison.rule": "strict",
                "print_comparison.agg": None,
                "print_comparison.as_json": False,
                "print_comparison.seed": 0,
                "print_comparison.harmful_column": "harmful",
            },
        ),
        Row("summary", "--summary", {"deliver.as_json": True, "run_evaluation.writing": False}),
        Row("summary", "--summary", {"print_comparison.as_json": True}, "a.jsonl b.jsonl --compare"),
        Row("card", "--card card.json", {"deliver.files": [Path("card.json")]}),
        Row("show_prompts", "--show-prompts", {"deliver.show_prompts": True}),
        Row("prompts", "--prompts folder", {f"{PLAN}.prompts.folder": Path("folder")}),
        Row("limit", "--limit 6", {"read_items.limit": 6}),
        Row("seed", "--seed 9", {f"{PLAN}.seed": 9}),
        Row("seed", "--seed 9", {"print_comparison.seed": 9}, "a.jsonl b.jsonl --compare"),
        # A key for all goes to the server of the policy: without one of its own, it is the judge's.
        *engine(
            f"{PLAN}.policy",
            f"{PLAN}.judges[0]",
            served={f"{PLAN}.judges[0].key_names": ("DREAM_JUDGE_1_API_KEY", "DREAM_JUDGE_API_KEY")},
        ),
        *(row for row in run("run_evaluation.run", line="nano_world --judge j") if row.option != "quiet"),
        Row("quiet", "--quiet", {"run_evaluation.run.quiet": True, "read_items.quiet": True, "deliver.quiet": True}),
        Row("shard", "--shard 2/5", {"items_of_part.part.index": 2, "items_of_part.part.count": 5}),
        *showing("run_evaluation.run.reading", "read_items.reading"),
    ),
    "agree": (
        Row("gold", "in.jsonl b.jsonl", {"read_records.source": "in.jsonl"}, instead=True),
        Row("judged", "a.jsonl other.jsonl", {"read_records[2].source": "other.jsonl"}, instead=True),
        Row("rule", "--rule official", {"judged_voices.rule": "official"}),
        Row("quiet", "--quiet", {"stderr": ""}),
    ),
    "convert": (
        Row("source", "in.jsonl", {"convert.source.name": "in.jsonl"}),
        Row("out", "-o out/", {"convert.out": "out/", "convert.how.image_folder": Path("out/images")}),
        Row("from_", "--from trl", {"convert.how.source": "trl"}),
        Row("to", "--to swift", {"convert.how.target": "swift"}),
        Row("images", "--images paths", {"convert.how.images": "paths"}),
        Row("image_folder", "--image-folder folder", {"convert.how.image_folder": Path("folder")}),
        Row("split", "--split test", {"convert.source.split": "test"}),
        Row("prompt", "--prompt 'What is this?'", {"convert.source.prompt": "What is this?"}),
        Row(
            "push",
            "--push me/data",
            {"upload.folder": "out/", "upload.name": "me/data", "stderr": "receipt\ndream convert: uploaded to the hub\n"},
            "-o out/",
        ),
        Row("explode", "--explode turns", {"convert.how.by_turn": True}),
        Row("fix_flags", "--fix-flags", {"convert.how.fix_flags": True}),
        Row("limit", "--limit 6", {"convert.source.limit": 6}),
        Row("quiet", "--quiet", {"stderr": ""}),
        *reading("convert.source.reading"),
    ),
    "leak": (
        Row("train", "in.jsonl b.jsonl", {"read_records.source": "in.jsonl"}, instead=True),
        Row("items", "siuo", {"read_items.words": ["b.jsonl", "siuo"]}),
        Row("data", "--data folder", {"read_items.data": "folder"}),
        Row("quiet", "--quiet", {"stderr": "", "read_items.quiet": True}),
        *reading("read_items.reading", "read_records.reading"),
    ),
    "view": (
        Row("source", "other.jsonl --limit 3", {"open_tables.source": "other.jsonl"}, instead=True),
        Row("limit", "--limit 6", {"show.limit": 6, "check_options.limit": 6}),
        Row("id_", "--id 7", {"show.selection.id": "7", "check_options.selection.id": "7"}),
        Row("where", "--where score=1", {"show.selection.where": "score=1", "check_options.selection.where": "score=1"}),
        Row("sort", "--sort score", {"show.selection.sort": "score", "check_options.selection.sort": "score"}),
        Row("as_json", "--json", {"show.as_json": True, "check_options.as_json": True}),
        Row("images", "--images", {"show.images": True}),
        Row("images", "--no-images", {"show.images": False}),
        Row("sql", "--sql x", {"check_options.sql": "x", "show_query.sql": "x", "show_query.as_json": False}),
        Row(
            "html",
            "--html x.html",
            {
                "check_options.html": "x.html",
                "write_gallery.out": "x.html",
                "write_gallery.limit": 3,
                "write_gallery.selection.id": None,
                "write_gallery.selection.where": None,
                "write_gallery.selection.sort": None,
            },
        ),
        Row(
            "port",
            "--port 81",
            {
                "check_options.port": 81,
                "serve.port": 81,
                "serve.selection.id": None,
                "serve.selection.where": None,
                "serve.selection.sort": None,
            },
        ),
        *reading("open_tables.reading"),
    ),
    "diff": (
        Row("before", "in.jsonl b.jsonl", {"read_records.source": "in.jsonl", "print_difference.before": "in.jsonl"}, instead=True),
        Row("after", "a.jsonl in.jsonl", {"read_records[2].source": "in.jsonl", "print_difference.after": "in.jsonl"}, instead=True),
        Row("as_json", "--json", {"print_json.value": "as JSON"}),
        *reading("read_records.reading", "read_records[2].reading"),
    ),
    "why": (
        Row("name", "2 a.jsonl", {"rows_of.name": "2"}, instead=True),
        Row("files", "b.jsonl", {"rows_of.files": ["a.jsonl", "b.jsonl"]}),
        Row("store", "--store calls.sqlite", {"calls_of.store": "calls.sqlite", "print_trace.store": "calls.sqlite"}),
        Row("as_json", "--json", {"print_json.value": "as JSON", "trace_json.linked": [], "trace_json.calls": []}),
        Row("images", "--images", {"print_trace.images": True}),
        Row("images", "--no-images", {"print_trace.images": False}),
        *showing("rows_of.reading"),
    ),
    "store": (
        Row(
            "action",
            "import --store a.sqlite",
            {"import_from.path": Path("a.sqlite"), "import_from.source": None, "stderr": "dream store: imported\n"},
            instead=True,
        ),
        Row("source", "in.jsonl", {"import_from.source": "in.jsonl"}, base="import --store a.sqlite"),
        Row("store", "--store b.sqlite", {"prune.path": Path("b.sqlite")}, base="prune --model m"),
        Row("stage", "--stage judge", {"prune.selection.stage": "judge"}),
        Row("model", "--model other", {"export_to.selection.model": "other"}, base="export --store a.sqlite"),
        Row(
            "older_than",
            "--older-than 30d",
            {"time_before.age": "30d", "time_before[2].age": "30d", "prune.selection.before": "30d ago"},
        ),
        Row("out", "-o out.jsonl", {"export_to.out": "out.jsonl"}, base="export --store a.sqlite"),
        Row("as_json", "--json", {"stdout": "as JSON"}, base="info --store a.sqlite"),
        Row("quiet", "--quiet", {"stderr": ""}),
    ),
    "doctor": (
        Row("model", "--model other", {"examine.spec.model": "other"}),
        Row("base_url", "--base-url http://localhost:9/v1", {"examine.spec.base_url": "http://localhost:9/v1"}),
        Row("deep", "--deep", {"examine.deep": True}),
        Row("json", "--json", {"stdout": "as JSON", "as_json.findings": []}),
    ),
    "completion": (Row("shell", "zsh", {"script.shell": "zsh"}, instead=True),),
    "man": (),
}

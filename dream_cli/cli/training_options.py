"""The options that sft and dpo share, each declared once, in groups; invalid values are rejected during parsing."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream_cli.cli.arguments import OptionGroup
from dream_cli.cli.options import Limit, Quiet, Seed, ShowingOptions, Source
from dream_cli.errors import UsageError, with_extra
from dream_cli.records import choices
from dream_cli.training.settings import Hardware, Job, Lora, Schedule

if TYPE_CHECKING:
    from dream_cli.training.running import Method


def _out(ctx: typer.Context, out: Path | None) -> Path | None:
    if out is None and not ctx.params.get("check"):
        raise UsageError("no folder for the trained model: -o DIR")
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"-o {out} is a file; name a folder")
    parent = next((p for p in out.absolute().parents if p.exists()), None) if out else None
    if parent is not None and not os.access(parent, os.W_OK):
        raise UsageError(f"-o {out}: {parent} may not be written to; choose another place")
    return out


def _model(model: str | None) -> str:
    missing = [name for name in ("torch", "transformers", "trl", "peft", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"training needs {', '.join(missing)}; {with_extra('train')}")
    if model is None:
        from dream_cli.engines.registry import EMBEDDED_POLICY

        raise UsageError(f"no model to train: --model PATH-OR-ID (or DREAM_MODEL); {EMBEDDED_POLICY} is a small one to try")
    from dream_cli.engines.registry import check_model

    check_model(model)
    return model


def _of_lora(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    if value and not (ctx.params.get("lora") or ctx.params.get("qlora")):
        raise UsageError(f"{param.opts[0]} needs --lora")
    return value


def _quantized(ctx: typer.Context, value: bool) -> bool:
    # Set even if it fails: otherwise the options that need it would be reported too.
    ctx.params["qlora"] = value
    if value and importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"--qlora needs bitsandbytes; {with_extra('qlora')}, or use --lora alone")
    return value


def _of_held_out(ctx: typer.Context, every: int | None) -> int | None:
    if every and not ctx.params.get("held_out"):
        raise UsageError("--eval-every needs --held-out")
    return every


def _optimiser(name: choices.Optimiser) -> choices.Optimiser:
    package = {"adamw_8bit": "torchao", "paged_adamw_8bit": "bitsandbytes"}.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UsageError(f"--optim {name} needs {package}: pip install {package}")
    return name


def _tracker(name: choices.Tracker | None) -> choices.Tracker | None:
    if name is not None and importlib.util.find_spec(name) is None:
        raise UsageError(f"--report-to {name} needs {name}: pip install {name}")
    return name


def read_twice(path: str | None) -> str | None:
    """Return the name of a file that is read more than once; raise UsageError for stdin and for a missing file."""
    if path is not None:
        from dream_cli.records.streams import check_source

        if path == "-":
            raise UsageError("only the records to train on can come from stdin; name a file")
        check_source(path)
    return path


Out = Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", callback=_out, help="Output folder of the trained model.")]
Model = Annotated[
    str | None, typer.Option("-m", "--model", envvar="DREAM_MODEL", metavar="PATH-OR-ID", callback=_model, help="Model to train.")
]
Check = Annotated[bool, typer.Option("--check", is_eager=True, help="Check data and settings without loading weights.")]
UseLora = Annotated[
    bool, typer.Option("--lora", is_eager=True, help="Train a LoRA adapter; if the model is an adapter, continue training it.")
]
Rank = Annotated[int | None, typer.Option(min=1, callback=_of_lora, help="LoRA rank of a new adapter (default: 16).")]
Alpha = Annotated[float | None, typer.Option(callback=_of_lora, help="LoRA alpha of a new adapter (default: 32).")]
Targets = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES-OR-REGEX", callback=_of_lora, help="LoRA target modules (default: all linear layers of the language model)."
    ),
]
Dora = Annotated[bool, typer.Option("--dora", callback=_of_lora, help="With --lora: weight-decomposed adaptation (DoRA).")]
Qlora = Annotated[
    bool,
    typer.Option(
        "--qlora", is_eager=True, callback=_quantized, help="Train a LoRA adapter on the 4-bit quantised model (needs bitsandbytes)."
    ),
]
Merge = Annotated[bool, typer.Option("--merge", callback=_of_lora, help="With --lora: merge the adapter into the written checkpoint.")]
Vision = Annotated[
    bool | None,
    typer.Option("--train-vision/--freeze-vision", help="Train or freeze the vision tower (default: train it only without --lora)."),
]
Epochs = Annotated[float, typer.Option(min=0.0, help="Number of training epochs.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Maximum optimiser steps.")]
Batch = Annotated[int, typer.Option("--batch-size", envvar="DREAM_TRAIN_BATCH_SIZE", min=1, help="Per-device batch size.")]
Accumulate = Annotated[int, typer.Option(min=1, help="Gradient accumulation steps.")]
Rate = Annotated[float | None, typer.Option("--lr", min=0.0, help="Peak learning rate.")]
Decay = Annotated[choices.Decay, typer.Option("--schedule", help="Learning-rate schedule.")]
Optim = Annotated[
    choices.Optimiser,
    typer.Option(
        "--optim", callback=_optimiser, help="Optimiser; adamw_8bit needs torchao, paged_adamw_8bit needs bitsandbytes and a GPU."
    ),
]
WeightDecay = Annotated[float, typer.Option("--weight-decay", min=0.0, help="Weight decay of AdamW.")]
Warmup = Annotated[float, typer.Option(min=0.0, max=1.0, help="Warm-up ratio of the learning rate.")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Maximum tokens per row, images included (default: the model's context).")]
OnTooLong = Annotated[choices.OnTooLong, typer.Option(help="Drop rows over the maximum length, or stop; rows are never truncated.")]
HeldOut = Annotated[
    str | None, typer.Option(metavar="FILE", is_eager=True, callback=read_twice, help="Held-out records to evaluate on at the end.")
]
EvalEvery = Annotated[
    int | None, typer.Option(min=1, callback=_of_held_out, help="With --held-out: also evaluate every N optimiser steps.")
]
GroupByLength = Annotated[bool, typer.Option("--group-by-length", help="Batch rows of similar length, which saves padding.")]
Dtype = Annotated[choices.Dtype, typer.Option(help="Data type of the weights.")]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing/--no-gradient-checkpointing", help="Recompute activations to save memory (default: on a GPU only)."
    ),
]
SaveEvery = Annotated[int, typer.Option(min=1, help="Optimiser steps between checkpoints.")]
Keep = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Keep the last N checkpoints as models in OUT/checkpoints when the run ends (default: none)."),
]
ReportTo = Annotated[choices.Tracker | None, typer.Option(callback=_tracker, help="Also report metrics to this tracker.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that check rows and load batches (default: all CPUs, at most 8, and 4 for batches on a GPU)."),
]
Processes = Annotated[int | None, typer.Option("--nproc", min=1, help="Number of training processes, started with torchrun.")]
AllowSmallWorldJudge = Annotated[
    bool,
    typer.Option(
        "--allow-small-world-judge",
        "--allow-nano-verdicts",
        help="Accept verdicts about other models from a judge that knows only its own small world, such as the embedded one.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite a folder that contains another run.")]


class AdapterOptions(OptionGroup):
    """The parts of the model that are trained: an adapter, the vision tower, or the whole model."""

    lora: UseLora = False
    rank: Rank = None
    alpha: Alpha = None
    targets: Targets = None
    dora: Dora = False
    qlora: Qlora = False
    merge: Merge = False
    vision: Vision = None

    def adapter(self) -> Lora | None:
        """Return the adapter to train, None if the model itself is trained."""
        if not (self.lora or self.qlora):
            return None
        return Lora(rank=self.rank, alpha=self.alpha, targets=self.targets, dora=self.dora, quantize=self.qlora, merge=self.merge)


class OptimiserOptions(OptionGroup):
    """Duration, batch size and learning rate of the training."""

    epochs: Epochs = 1.0
    max_steps: MaxSteps = None
    batch_size: Batch = 8
    accumulate: Accumulate = 1
    lr: Rate = None
    schedule: Decay = "cosine"
    warmup: Warmup = 0.03
    optim: Optim = "adamw"
    weight_decay: WeightDecay = 0.0
    group_by_length: GroupByLength = False
    seed: Seed = 0

    def plan(self, default_rate: float) -> Schedule:
        """Return the schedule of the run."""
        return Schedule(
            epochs=self.epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            learning_rate=default_rate if self.lr is None else self.lr,
            decay=self.schedule,
            warmup=self.warmup,
            optimiser=self.optim,
            weight_decay=self.weight_decay,
            group_by_length=self.group_by_length,
            seed=self.seed,
        )


class HardwareOptions(OptionGroup):
    """Data type, memory, processes and checkpoints of the run."""

    dtype: Dtype = "auto"
    gradient_checkpointing: Checkpointing = None
    save_every: SaveEvery = 100
    keep: Keep = 0
    eval_every: EvalEvery = None
    report_to: ReportTo = None
    workers: Workers = None
    nproc: Processes = None

    def hardware(self) -> Hardware:
        """Return the hardware settings of each process."""
        return Hardware(
            dtype=self.dtype,
            gradient_checkpointing=self.gradient_checkpointing,
            save_every=self.save_every,
            keep=self.keep,
            eval_every=self.eval_every,
            report_to=self.report_to,
            workers=self.workers,
        )


class TrainingOptions(OptionGroup):
    """The options of every training command."""

    source: Source = None
    out: Out = None
    model: Model = None
    adapter: AdapterOptions
    optimiser: OptimiserOptions
    max_length: MaxLength = None
    on_too_long: OnTooLong = "drop"
    held_out: HeldOut = None
    machine: HardwareOptions
    check: Check = False
    allow_small_world_judge: AllowSmallWorldJudge = False
    overwrite: Overwrite = False
    columns: ShowingOptions
    limit: Limit = None
    quiet: Quiet = False

    def job(self, *, rate: float, adapter_rate: float) -> Job:
        """Return the run; the rates are the default learning rates of the whole model and of an adapter."""
        lora = self.adapter.adapter()
        return Job(
            source=self.source,
            model=str(self.model),
            out=self.out or Path(),
            lora=lora,
            schedule=self.optimiser.plan(adapter_rate if lora else rate),
            hardware=self.machine.hardware(),
            vision=self.adapter.vision,
            max_length=self.max_length,
            on_too_long=self.on_too_long,
            held_out=self.held_out,
            reading=self.columns.reading,
            limit=self.limit,
            allow_small_world_judge=self.allow_small_world_judge,
            overwrite=self.overwrite,
            quiet=self.quiet,
        )

    def perform(self, job: Job, method: Method) -> None:
        """Perform the run, or only its checks, write the final record to stdout, and exit with the run's exit code."""
        from dream_cli.records.strict_json import dumps
        from dream_cli.training.running import perform

        done = perform(job, method, only_check=self.check, processes=self.machine.nproc)
        if done.record:
            sys.stdout.buffer.write(dumps(done.record) + b"\n")
        raise typer.Exit(done.exit_code)

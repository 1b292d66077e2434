"""The options that sft and dpo share, declared once; what can be seen to be wrong is refused while they are read."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dream_cli.errors import UsageError
from dream_cli.training.settings import Lora

if TYPE_CHECKING:
    from dream_cli.training.running import Done


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
        raise UsageError(f"training needs {', '.join(missing)}: pip install 'dream-cli[train]'")
    if model is None:
        raise UsageError("no model to train: --model PATH-OR-ID (or DREAM_MODEL); nano-policy is a small one for trying")
    from dream_cli.engines.registry import check_model

    check_model(model)
    return model


def _of_lora(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    if value and not (ctx.params.get("lora") or ctx.params.get("qlora")):
        raise UsageError(f"{param.opts[0]} needs --lora")
    return value


def _quantized(ctx: typer.Context, value: bool) -> bool:
    # Known also where it fails, or all that needs it would be called wrong too.
    ctx.params["qlora"] = value
    if value and importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError("--qlora needs bitsandbytes: pip install 'dream-cli[qlora]' (or leave it away, with --lora alone)")
    return value


def read_twice(path: str | None) -> str | None:
    """Return the name of a file that is read again; raise UsageError for stdin, or where there is no such file."""
    if path is not None:
        from dream_cli.records.streams import check_source

        if path == "-":
            raise UsageError("only the records to train on can come from stdin; name a file")
        check_source(path)
    return path


Out = Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", callback=_out, help="Folder of the trained model.")]
Model = Annotated[
    str | None, typer.Option("--model", envvar="DREAM_MODEL", metavar="PATH-OR-ID", callback=_model, help="The model to train.")
]
Check = Annotated[bool, typer.Option("--check", is_eager=True, help="Only look for problems; load no weights.")]
UseLora = Annotated[bool, typer.Option("--lora", is_eager=True, help="Train an adapter; where the model is one, go on with it.")]
Rank = Annotated[int | None, typer.Option(min=1, callback=_of_lora, help="Rank of a new adapter; default 16.")]
Alpha = Annotated[float | None, typer.Option(callback=_of_lora, help="Scale of a new adapter; default 32.")]
Targets = Annotated[
    str | None,
    typer.Option(metavar="NAMES-OR-REGEX", callback=_of_lora, help="Its modules; default all linear ones of the language model."),
]
Dora = Annotated[bool, typer.Option("--dora", callback=_of_lora, help="With --lora: weight-decomposed adaptation.")]
Qlora = Annotated[
    bool, typer.Option("--qlora", is_eager=True, callback=_quantized, help="An adapter on the base in 4 bits (needs bitsandbytes).")
]
Merge = Annotated[bool, typer.Option("--merge", callback=_of_lora, help="With --lora: write a plain checkpoint, the adapter merged in.")]
Vision = Annotated[
    bool | None, typer.Option("--train-vision/--freeze-vision", help="Train the vision tower; by default only without --lora.")
]
Epochs = Annotated[float, typer.Option(min=0.0, help="Passes over the rows.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Stop after this many updates.")]
Batch = Annotated[int, typer.Option("--batch-size", envvar="DREAM_TRAIN_BATCH_SIZE", min=1, help="Rows a step and process.")]
Accumulate = Annotated[int, typer.Option(min=1, help="Steps an update.")]
Rate = Annotated[float | None, typer.Option("--lr", min=0.0, help="Highest learning rate.")]
Decay = Annotated[Literal["linear", "cosine", "constant"], typer.Option("--schedule", help="How the learning rate falls.")]
Warmup = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the updates in which it rises.")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Most tokens a row, images included; default the model's limit.")]
OnTooLong = Annotated[Literal["drop", "stop"], typer.Option(help="What to do with longer rows; nothing is ever cut.")]
HeldOut = Annotated[str | None, typer.Option(metavar="FILE", callback=read_twice, help="Records to evaluate on at the end.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="Type of the weights.")]
Checkpointing = Annotated[
    bool | None, typer.Option("--gradient-checkpointing/--no-gradient-checkpointing", help="Memory for time; default on a GPU.")
]
SaveEvery = Annotated[int, typer.Option(min=1, help="Updates between two checkpoints.")]
ReportTo = Annotated[Literal["tensorboard", "wandb", "trackio"] | None, typer.Option(help="Also send the metrics there.")]
Processes = Annotated[int | None, typer.Option("--nproc", min=1, help="Train in so many processes, through torchrun.")]
TrustNano = Annotated[bool, typer.Option("--allow-nano-verdicts", help="Take nano's verdicts about other models.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Train anew in a folder that holds another run.")]


def adapter(lora: bool, rank: int | None, alpha: float | None, targets: str | None, dora: bool, qlora: bool, merge: bool) -> Lora | None:
    """Return the adapter that was asked for."""
    return Lora(rank, alpha, targets, dora, qlora, merge) if lora or qlora else None


def say_result(done: Done) -> None:
    """Write the final record to stdout and leave with the run's exit code."""
    from dream_cli.records.strict_json import dumps

    if done.record:
        sys.stdout.buffer.write(dumps(done.record) + b"\n")
    raise typer.Exit(done.exit_code)

"""The options that sft and dpo share, declared once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dream_cli.errors import UsageError
from dream_cli.streams import dumps
from dream_cli.training.settings import Hardware, Lora

if TYPE_CHECKING:
    from dream_cli.training.running import Done

Out = Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder of the trained model.")]
Model = Annotated[str | None, typer.Option("--model", envvar="DREAM_MODEL", metavar="PATH-OR-ID", help="The model to train.")]
Check = Annotated[bool, typer.Option("--check", help="Only look for problems; load no weights.")]
UseLora = Annotated[bool, typer.Option("--lora", help="Train an adapter; where the model is one, go on with it.")]
Rank = Annotated[int, typer.Option(min=1, help="Rank of the adapter.")]
Alpha = Annotated[float, typer.Option(help="Scale of the adapter.")]
Targets = Annotated[str | None, typer.Option(metavar="NAMES-OR-REGEX", help="Its modules; default all linear ones of the language model.")]
Dora = Annotated[bool, typer.Option("--dora", help="With --lora: weight-decomposed adaptation.")]
Qlora = Annotated[bool, typer.Option("--qlora", help="With --lora: the base in 4 bits (needs bitsandbytes).")]
Merge = Annotated[bool, typer.Option("--merge", help="With --lora: write a plain checkpoint, the adapter merged in.")]
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
HeldOut = Annotated[str | None, typer.Option(metavar="FILE", help="Records to evaluate on at the end.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="Type of the weights.")]
Checkpointing = Annotated[
    bool | None, typer.Option("--gradient-checkpointing/--no-gradient-checkpointing", help="Memory for time; default on a GPU.")
]
SaveEvery = Annotated[int, typer.Option(min=1, help="Updates between two checkpoints.")]
ReportTo = Annotated[list[str] | None, typer.Option(metavar="TRACKER", help="tensorboard, wandb or trackio.")]
Processes = Annotated[int | None, typer.Option("--nproc", min=1, help="Train in so many processes, through torchrun.")]
TrustNano = Annotated[bool, typer.Option("--allow-nano-verdicts", help="Take nano's verdicts about other models.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Train anew in a folder that holds another run.")]

TRACKERS = ("tensorboard", "wandb", "trackio")


def adapter(lora: bool, rank: int, alpha: float, targets: str | None, dora: bool, qlora: bool, merge: bool) -> Lora | None:
    """Return the adapter that was asked for; raise UsageError for a part of one without --lora."""
    if lora or qlora:
        return Lora(rank, alpha, targets, dora, qlora, merge)
    given = [name for name, value in (("--targets", targets), ("--dora", dora), ("--merge", merge)) if value]
    if given:
        raise UsageError(f"{', '.join(given)} needs --lora")
    return None


def hardware(
    dtype: Literal["auto", "float32", "bfloat16"], checkpointing: bool | None, save_every: int, report_to: list[str] | None
) -> Hardware:
    """Return how the work is laid on the machine; raise UsageError for a tracker that is not known."""
    unknown = sorted(set(report_to or ()) - set(TRACKERS))
    if unknown:
        raise UsageError(f"--report-to: {', '.join(unknown)} is not known; there are {', '.join(TRACKERS)}")
    return Hardware(dtype, checkpointing, save_every, tuple(report_to or ()))


def say_result(done: Done) -> None:
    """Write the final record to stdout and leave with the run's exit code."""
    if done.record:
        sys.stdout.buffer.write(dumps(done.record) + b"\n")
    raise typer.Exit(done.exit_code)

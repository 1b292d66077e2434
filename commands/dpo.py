"""Train a model on preference pairs.    dream dpo pairs.jsonl --model ckpt/0 -o ckpt/1 --lora"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import typer

from dream_cli.cli import training_options as o
from dream_cli.cli.options import Limit, Quiet, ReadingOptions, Seed, Source
from dream_cli.errors import UsageError

Loss = Annotated[
    Literal["sigmoid", "hinge", "ipo", "robust", "sigmoid_norm"],
    typer.Option(help="The preference loss; sigmoid is DPO, sigmoid_norm per token."),
]
Beta = Annotated[float, typer.Option(help="How strongly the policy is held to its reference.")]
Smoothing = Annotated[float, typer.Option("--label-smoothing", help="With robust: the share of pairs that may be the wrong way round.")]
SftWeight = Annotated[float, typer.Option("--sft-weight", help="Weight of the likelihood of the chosen responses beside the loss.")]
Plain = Annotated[bool, typer.Option("--plain", help="Send each pair through TRL's own forward passes.")]
Cache = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep the reference's log-probabilities and image features here, for other runs too.")
]


def _gpu(value: bool) -> bool:
    if value and importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            raise UsageError("--flex-attention needs a GPU: torch makes no gradients of it on a CPU")
    return value


Flex = Annotated[
    bool, typer.Option("--flex-attention", callback=_gpu, help="Attend to a pair by blocks that are skipped where hidden (GPU).")
]


def run(
    source: Source = None,
    out: o.Out = None,
    model: o.Model = None,
    loss: Loss = "sigmoid",
    beta: Beta = 0.1,
    label_smoothing: Smoothing = 0.0,
    sft_weight: SftWeight = 0.0,
    plain: Plain = False,
    flex_attention: Flex = False,
    cache: Cache = None,
    lora: o.UseLora = False,
    rank: o.Rank = None,
    alpha: o.Alpha = None,
    targets: o.Targets = None,
    dora: o.Dora = False,
    qlora: o.Qlora = False,
    merge: o.Merge = False,
    vision: o.Vision = None,
    epochs: o.Epochs = 1.0,
    max_steps: o.MaxSteps = None,
    batch_size: o.Batch = 8,
    accumulate: o.Accumulate = 1,
    lr: o.Rate = None,
    schedule: o.Decay = "cosine",
    warmup: o.Warmup = 0.03,
    max_length: o.MaxLength = None,
    on_too_long: o.OnTooLong = "drop",
    held_out: o.HeldOut = None,
    dtype: o.Dtype = "auto",
    gradient_checkpointing: o.Checkpointing = None,
    save_every: o.SaveEvery = 100,
    report_to: o.ReportTo = None,
    nproc: o.Processes = None,
    check: o.Check = False,
    allow_nano_verdicts: o.TrustNano = False,
    overwrite: o.Overwrite = False,
    limit: Limit = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    *,
    columns: ReadingOptions,
) -> None:
    """Train a model to prefer the chosen responses of pairs over the rejected ones.

    The reference is the model as the run starts. Prints one record at the end; the same command again goes on where it was stopped.

    Example: dream dpo pairs.jsonl --model ckpt/0 -o ckpt/1 --lora | jq -r .model
    """
    from dream_cli.training.dpo import Dpo
    from dream_cli.training.preference.losses import PreferenceLoss
    from dream_cli.training.running import perform
    from dream_cli.training.settings import Hardware, Job, Schedule

    adapter = o.adapter(lora, rank, alpha, targets, dora, qlora, merge)
    method = Dpo(PreferenceLoss(loss, beta, label_smoothing, sft_weight), plain, cache, flex_attention)
    rate = lr if lr is not None else 1e-5 if adapter else 1e-6
    plan = Schedule(epochs, max_steps, batch_size, accumulate, rate, schedule, warmup, seed)
    machine = Hardware(dtype, gradient_checkpointing, save_every, report_to)
    job = Job(
        source,
        str(model),
        out or Path(),
        adapter,
        plan,
        machine,
        vision,
        max_length,
        on_too_long,
        held_out,
        columns.reading,
        limit,
        allow_nano_verdicts,
        overwrite,
        quiet,
    )
    o.say_result(perform(job, method, check, nproc))

"""Fine-tune a model on risk-aware answers.    dream sft guided.jsonl --model BASE -o ckpt/0"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dream_cli.cli import training_options as o
from dream_cli.cli.options import Limit, Quiet, ReadingOptions, Seed, Source

Pick = Annotated[Literal["first", "best", "all"], typer.Option(help="Which of the responses that pass: by order or by judged score.")]
MinObservation = Annotated[float, typer.Option("--min-os", min=0.0, max=1.0, help="Least observation score of a judged response.")]
MinGlobal = Annotated[float, typer.Option("--min-gs", min=0.0, max=10.0, help="Least global score; from 5 on an answer is harmless.")]
Leaks = Annotated[bool, typer.Option("--keep-leaks", help="Keep responses that speak of their instructions.")]
UtilityFile = Annotated[
    str | None, typer.Option("--utility", metavar="FILE", callback=o.read_twice, help="Answered harmless prompts to mix in.")
]
UtilityShare = Annotated[float, typer.Option(min=0.0, max=0.99, help="Their share of all rows.")]


def run(
    source: Source = None,
    out: o.Out = None,
    model: o.Model = None,
    pick: Pick = "best",
    min_os: MinObservation = 0.5,
    min_gs: MinGlobal = 5.0,
    keep_leaks: Leaks = False,
    utility: UtilityFile = None,
    utility_share: UtilityShare = 0.2,
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
    """Fine-tune a model on answers that see the risks and do no harm.

    The student sees images and prompt, never the observations. Responses that were judged and fall short are dropped and counted.
    Prints one record at the end; the same command again goes on where it was stopped.

    Example: dream sft guided.jsonl --model nano-policy -o ckpt/0 | jq -r .model
    """
    from dream_cli.training.running import perform
    from dream_cli.training.settings import Hardware, Job, Schedule
    from dream_cli.training.sft import Sft, Utility
    from dream_cli.training.sft_targets import TargetRules

    adapter = o.adapter(lora, rank, alpha, targets, dora, qlora, merge)
    method = Sft(TargetRules(pick, min_os, min_gs, keep_leaks), Utility(utility, utility_share) if utility else None)
    rate = lr if lr is not None else 1e-4 if adapter else 1e-5
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

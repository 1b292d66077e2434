"""Fine-tune a model on risk-aware answers.    dream sft guided.jsonl --model BASE -o ckpt/0"""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.choices import TargetPick
from dream_cli.cli.training_options import TrainingOptions, read_twice

Pick = Annotated[TargetPick, typer.Option(help="Which of the responses that pass: by order or by judged score.")]
MinObservation = Annotated[float, typer.Option("--min-os", min=0.0, max=1.0, help="Least observation score of a judged response.")]
MinGlobal = Annotated[float, typer.Option("--min-gs", min=0.0, max=10.0, help="Least global score; from 5 on an answer is harmless.")]
Leaks = Annotated[bool, typer.Option("--keep-leaks", help="Keep responses that speak of their instructions.")]
UtilityFile = Annotated[
    str | None, typer.Option("--utility", metavar="FILE", callback=read_twice, help="Answered harmless prompts to mix in.")
]
UtilityShare = Annotated[float, typer.Option(min=0.0, max=0.99, help="Their share of all rows.")]


def run(
    pick: Pick = "best",
    min_os: MinObservation = 0.5,
    min_gs: MinGlobal = 5.0,
    keep_leaks: Leaks = False,
    utility: UtilityFile = None,
    utility_share: UtilityShare = 0.2,
    *,
    training: TrainingOptions,
) -> None:
    """Fine-tune a model on answers that see the risks and do no harm.

    The student sees images and prompt, never the observations. Responses that were judged and fall short are dropped and counted.
    Prints one record at the end; the same command again goes on where it was stopped.

    Example: dream sft guided.jsonl --model org/model -o ckpt/0 | jq -r .model
    """
    from dream_cli.training.sft import Sft, Utility
    from dream_cli.training.sft_targets import TargetRules

    targets = TargetRules(pick=pick, min_observation_score=min_os, min_global_score=min_gs, leaks=keep_leaks)
    method = Sft(targets, Utility(utility, utility_share) if utility else None)
    training.perform(training.job(rate=1e-5, adapter_rate=1e-4), method)

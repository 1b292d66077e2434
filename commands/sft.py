"""Fine-tune a model on risk-aware answers.    dream sft guided.jsonl --model BASE -o ckpt/0"""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.cli.training_options import TrainingOptions, read_twice
from dream_cli.records.choices import TargetPick

Pick = Annotated[TargetPick, typer.Option(help="Which responses that pass become targets: the first, the best-scored, or all.")]
MinObservation = Annotated[float, typer.Option("--min-os", min=0.0, max=1.0, help="Minimum observation score of a judged response.")]
MinGlobal = Annotated[
    float, typer.Option("--min-gs", min=0.0, max=10.0, help="Minimum global score of a judged response; from 5 on a response is harmless.")
]
MinHelpfulness = Annotated[
    float, typer.Option(min=0.0, max=10.0, help="Minimum helpfulness, 0 to 10, of a response that was rated by helpfulness.")
]
KeepCutOff = Annotated[bool, typer.Option("--keep-cut-off", help="Also take responses that were cut off at the token limit.")]
MetaPhrases = Annotated[bool, typer.Option("--keep-meta-phrases", "--keep-leaks", help="Keep responses that mention their instructions.")]
UtilityFile = Annotated[
    str | None, typer.Option("--utility", metavar="FILE", callback=read_twice, help="Harmless prompts with responses to mix in.")
]
UtilityShare = Annotated[float, typer.Option(min=0.0, max=0.99, help="Fraction of training rows taken from --utility.")]


def run(
    pick: Pick = "best",
    min_os: MinObservation = 0.5,
    min_gs: MinGlobal = 5.0,
    min_helpfulness: MinHelpfulness = 5.0,
    keep_cut_off: KeepCutOff = False,
    keep_meta_phrases: MetaPhrases = False,
    utility: UtilityFile = None,
    utility_share: UtilityShare = 0.2,
    *,
    training: TrainingOptions,
) -> None:
    """Fine-tune a model on responses that recognise the risks.

    The student sees images and prompt, never the observations. Judged responses below the minimum scores are dropped and
    counted, as are empty, filtered and cut-off ones.
    Prints one record at the end; the same command resumes a run that was stopped.

    Example: dream sft guided.jsonl --model org/model -o ckpt/0 | jq -r .model
    """
    from dream_cli.training.sft import Sft, Utility
    from dream_cli.training.sft_targets import TargetRules

    targets = TargetRules(
        pick=pick,
        min_observation_score=min_os,
        min_global_score=min_gs,
        min_helpfulness=min_helpfulness,
        keep_cut_off=keep_cut_off,
        meta_phrases=keep_meta_phrases,
    )
    method = Sft(targets, Utility(utility, utility_share) if utility else None)
    training.perform(training.job(rate=1e-5, adapter_rate=1e-4), method)

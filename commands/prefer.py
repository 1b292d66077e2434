"""Ask a judge which of two models answers better.    dream prefer before.jsonl after.jsonl --model judge-model"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dream_cli.cli.options import JudgeOptions, PromptFolder, StageOptions

Other = Annotated[str, typer.Argument(metavar="BEFORE", help="Responses of the other model to the same prompts, matched by id.")]


def run(
    other: Other,
    prompts: PromptFolder = None,
    *,
    engine: JudgeOptions,
    stage: StageOptions,
) -> None:
    """Ask a judge which of two models responds better.

    The judge compares the two responses to each prompt in both orders. Adds the verdict `preference` to every response of the file
    (or stdin): 1.0 better than the other's in both orders, 0.0 worse in both, 0.5 neither. The win rate and the
    position bias of the judge are reported on stderr.

    Example: dream prefer before.jsonl after.jsonl -o preferred.jsonl
    """
    from dream_cli.evaluation.judge_questions import EvaluationJudge
    from dream_cli.evaluation.preferring import Preferrer, Wins, rivals
    from dream_cli.formats.sources import read_records
    from dream_cli.method.model_prompts import with_model_prompts
    from dream_cli.method.stages import run_stage
    from dream_cli.prompts.rendering import Prompts

    templates, others, wins = Prompts.load(prompts), rivals(read_records(other, stage.reading)), Wins()
    run = stage.run("prefer")
    tally = run_stage(
        run,
        engine.spec("judge"),
        lambda engine: Preferrer(
            with_model_prompts(EvaluationJudge(engine, templates, "strict", ("judge_preference",)), run.report), others
        ),
        wins,
    )
    if not stage.quiet and not stage.dry_run:
        sys.stderr.write(wins.report(tally))
    unread = any(not verdict.answered for verdict in wins.verdicts)
    raise typer.Exit(tally.exit_code or int(unread and not stage.dry_run))

"""Score how well each response recognises the risks.    dream judge sampled.jsonl -o judged.jsonl"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dream_cli.cli.judging_options import Calibrate, RubricName
from dream_cli.cli.options import JudgeOptions, PromptFolder, StageOptions, TaxonomyFile
from dream_cli.records.choices import AnswerReading, Combination

Combine = Annotated[
    Combination,
    typer.Option("--score", help="How global and observation score are combined; sum is their mean."),
]
Read = Annotated[
    AnswerReading,
    typer.Option(
        help="Score by the expected value over the allowed answers (where the engine returns probabilities), or by the parsed text."
    ),
]


def run(
    score: Combine = "sum",
    read: Read = "expected",
    rubric: RubricName = "paper",
    calibrate: Calibrate = False,
    taxonomy: TaxonomyFile = None,
    prompts: PromptFolder = None,
    *,
    engine: JudgeOptions,
    stage: StageOptions,
) -> None:
    """Score how well each response recognises the risks.

    Adds a `judgement` to every response; a prompt without risks is judged by helpfulness. Answers that cannot be read are `unscored`.

    Example: dream disentangle examples/records.jsonl | dream sample -n 2 | dream judge
    """
    from dream_cli.method.judging import Judge
    from dream_cli.method.model_prompts import with_model_prompts
    from dream_cli.method.stages import run_stage
    from dream_cli.method.summaries import Scores
    from dream_cli.prompts.rendering import Prompts

    templates = Prompts.load(prompts, taxonomy)
    scores = Scores()
    run = stage.run("judge")
    tally = run_stage(
        run,
        engine.spec("judge"),
        lambda opened: with_model_prompts(Judge(opened, templates, score, read, rubric=rubric, calibrate=calibrate), run.report),
        scores,
    )
    if not stage.quiet and not stage.dry_run:
        sys.stderr.write(scores.report(tally))
    raise typer.Exit(tally.exit_code)

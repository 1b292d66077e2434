"""Find the risks of each input one by one.    dream disentangle in.jsonl -o observed.jsonl"""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.cli.judging_options import Calibrate
from dream_cli.cli.options import JudgeOptions, PromptFolder, Seed, StageOptions, TaxonomyFile
from dream_cli.records.choices import Mode

Sides = Annotated[
    Mode,
    typer.Option(help="Ask about image and text separately (split), together (joint), or about one of them only."),
]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Verify each observation with a yes/no question.")]
Redo = Annotated[bool, typer.Option("--redo", help="Replace existing observations.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens per teacher answer.")]


def run(
    mode: Sides = "split",
    verify: Verify = True,
    redo: Redo = False,
    calibrate: Calibrate = False,
    taxonomy: TaxonomyFile = None,
    prompts: PromptFolder = None,
    max_tokens: MaxTokens = 512,
    seed: Seed = 0,
    *,
    engine: JudgeOptions,
    stage: StageOptions,
) -> None:
    """Find the risks of each input, one by one.

    Adds `observations` (malicious content, source and category) to each record; an empty list means that none was found.

    Example: dream disentangle examples/records.jsonl | head -n 3
    """
    from dream_cli.engines.protocol import Engine
    from dream_cli.method.disentangling import Disentangler
    from dream_cli.method.model_prompts import with_model_prompts
    from dream_cli.method.stages import run_stage
    from dream_cli.method.summaries import Doubts
    from dream_cli.prompts.rendering import Prompts

    templates = Prompts.load(prompts, taxonomy)
    run = stage.run("disentangle")

    def step(opened: Engine) -> Disentangler:
        made = Disentangler(opened, templates, mode, verify, redo=redo, max_tokens=max_tokens, seed=seed, calibrate=calibrate)
        return with_model_prompts(made, run.report)

    doubts = Doubts()
    tally = run_stage(run, engine.spec("disentangle"), step, doubts)
    for line in () if run.quiet else doubts.report():
        run.report(line)
    raise typer.Exit(tally.exit_code)

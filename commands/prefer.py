"""Ask a judge which of two models answers better.    dream prefer before.jsonl after.jsonl --model judge-model"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dream_cli.cli import options
from dream_cli.cli.options import (
    BaseUrl,
    BatchSize,
    Body,
    Concurrency,
    DryRun,
    Header,
    ImageRoot,
    Judge,
    Limit,
    ModelTag,
    NoStore,
    Out,
    PriceIn,
    PriceOut,
    PromptFolder,
    Quiet,
    Retry,
    Source,
    Store,
    ThinkingBudget,
    Timeout,
    Verbose,
)

Other = Annotated[str, typer.Argument(metavar="BEFORE", help="The other model's responses to the same prompts, paired by id.")]


def run(
    other: Other,
    source: Source = None,
    out: Out = None,
    model: Judge = None,
    base_url: BaseUrl = None,
    prompts: PromptFolder = None,
    image_root: ImageRoot = None,
    limit: Limit = None,
    retry_errors: Retry = False,
    dry_run: DryRun = False,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    model_tag: ModelTag = None,
    concurrency: Concurrency = 8,
    thinking_budget: ThinkingBudget = None,
    body: Body = None,
    header: Header = None,
    timeout: Timeout = 120.0,
    batch_size: BatchSize = 8,
    store: Store = None,
    no_store: NoStore = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Ask a judge which of two responses to the same prompt is better, in both orders.

    Adds the verdict `preference` to every response of the file (or stdin): 1.0 better than the other's in both orders, 0.0 worse in
    both, 0.5 neither. The win rate stands on stderr, and how far the judge goes by the order alone.

    Example: dream prefer before.jsonl after.jsonl -o preferred.jsonl
    """
    from dream_cli.evaluation.judge_questions import Asker
    from dream_cli.evaluation.preferring import Preferrer, Wins, rivals
    from dream_cli.method.stages import Run, run_stage
    from dream_cli.prompts.rendering import Prompts
    from dream_cli.records.streams import read_records

    templates, others, wins = Prompts.load(prompts), rivals(read_records(other)), Wins()
    engine_options = (model_tag, concurrency, batch_size, store, no_store, templates.sha256, timeout, None)
    spec = options.engine_spec(model, base_url, *engine_options, "judge", body, header, thinking_budget)
    tally = run_stage(
        Run("prefer", source, out, image_root, limit, retry_errors, dry_run, quiet, verbose, options.prices(price_in, price_out)),
        spec,
        lambda engine: Preferrer(Asker(engine, templates, "strict"), others),
        wins.add,
    )
    if not quiet and not dry_run:
        sys.stderr.write(wins.report(tally))
    unread = any(verdict["value"] is None for verdict in wins.verdicts)
    raise typer.Exit(tally.exit_code or int(unread and not dry_run))

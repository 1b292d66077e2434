"""Score how well each response notices the risks.    dream judge sampled.jsonl -o judged.jsonl"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from dream_cli.cli import options
from dream_cli.cli.options import (
    BaseUrl,
    BatchSize,
    Body,
    Concurrency,
    DryRun,
    Engine,
    Header,
    ImageRoot,
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
    TaxonomyFile,
    ThinkingBudget,
    Timeout,
    Verbose,
)
from dream_cli.cli.options import Judge as JudgeModel

Way = Annotated[
    Literal["sum", "product", "lexicographic", "global", "observation"],
    typer.Option("--score", help="How the global and the observation score make one: sum is the mean of the two."),
]
Read = Annotated[
    Literal["expected", "parsed"],
    typer.Option(help="Expected value over the allowed answers (where the engine gives probabilities), or the words as written."),
]


def run(
    source: Source = None,
    out: Out = None,
    model: JudgeModel = None,
    base_url: BaseUrl = None,
    engine: Engine = None,
    score: Way = "sum",
    read: Read = "expected",
    taxonomy: TaxonomyFile = None,
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
    """Score how well each response notices the risks of its input.

    Adds a `judgement` to every response; a prompt without risks is judged by helpfulness. What cannot be read is `unscored`.

    Example: dream disentangle examples/records.jsonl | dream sample -n 2 | dream judge
    """
    from dream_cli.method.judging import Judge
    from dream_cli.method.stages import Run, run_stage
    from dream_cli.method.summaries import Scores
    from dream_cli.prompts.rendering import Prompts

    templates = Prompts.load(prompts, taxonomy)
    engine_options = (model_tag, concurrency, batch_size, store, no_store, templates.sha256, timeout, engine)
    spec = options.engine_spec(model, base_url, *engine_options, "judge", body, header, thinking_budget)
    scores = Scores()
    tally = run_stage(
        Run("judge", source, out, image_root, limit, retry_errors, dry_run, quiet, verbose, options.prices(price_in, price_out)),
        spec,
        lambda opened: Judge(opened, templates, score, read),
        scores.add,
    )
    if not quiet and not dry_run:
        sys.stderr.write(scores.report(tally))
    raise typer.Exit(tally.exit_code)

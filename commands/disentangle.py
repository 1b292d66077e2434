"""Find the risks of each input one by one.    dream disentangle in.jsonl -o observed.jsonl"""

from __future__ import annotations

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
    Seed,
    Source,
    Store,
    TaxonomyFile,
    ThinkingBudget,
    Timeout,
    Verbose,
)

Mode = Annotated[
    Literal["split", "joint", "image", "text"],
    typer.Option(help="Ask about the image and the text apart (split), about both at once (joint), or about one side only."),
]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Check each observation with a Yes/No question.")]
Redo = Annotated[bool, typer.Option("--redo", help="Look again where observations are there.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer of the teacher.")]


def run(
    source: Source = None,
    out: Out = None,
    model: Judge = None,
    base_url: BaseUrl = None,
    engine: Engine = None,
    mode: Mode = "split",
    verify: Verify = True,
    redo: Redo = False,
    taxonomy: TaxonomyFile = None,
    prompts: PromptFolder = None,
    max_tokens: MaxTokens = 512,
    image_root: ImageRoot = None,
    limit: Limit = None,
    seed: Seed = 0,
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
    """Find the risks of each input one by one: which content, from which source, of which category.

    Adds `observations` to each record; an empty list says that none was found.

    Example: dream disentangle examples/records.jsonl | head -n 3
    """
    from dream_cli.method.disentangling import Disentangler
    from dream_cli.method.stages import Run, run_stage
    from dream_cli.prompts.rendering import Prompts

    templates = Prompts.load(prompts, taxonomy)
    engine_options = (model_tag, concurrency, batch_size, store, no_store, templates.sha256, timeout, engine)
    spec = options.engine_spec(model, base_url, *engine_options, "disentangle", body, header, thinking_budget)
    tally = run_stage(
        Run("disentangle", source, out, image_root, limit, retry_errors, dry_run, quiet, verbose, options.prices(price_in, price_out)),
        spec,
        lambda opened: Disentangler(opened, templates, mode, verify, redo, max_tokens, seed),
    )
    raise typer.Exit(tally.exit_code)

"""Draw responses of the policy.    dream sample observed.jsonl -n 4 -o sampled.jsonl"""

from __future__ import annotations

from typing import Annotated

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
    Policy,
    PriceIn,
    PriceOut,
    PromptFolder,
    Quiet,
    Retry,
    Seed,
    Source,
    Store,
    ThinkingBudget,
    Timeout,
    Verbose,
)

N = Annotated[int, typer.Option("-n", "--samples", min=1, help="Responses a prompt.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the most probable tokens that sum to this.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest response.")]
System = Annotated[str | None, typer.Option(help="System message.")]
Observe = Annotated[bool, typer.Option("--observe", help="Put the observations in the context: DREAM without training.")]
Append = Annotated[bool, typer.Option("--append", help="Add to the responses that are there instead of replacing them.")]


def run(
    source: Source = None,
    out: Out = None,
    model: Policy = None,
    base_url: BaseUrl = None,
    engine: Engine = None,
    n: N = 1,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 256,
    system: System = None,
    observe: Observe = False,
    append: Append = False,
    prompts: PromptFolder = None,
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
    """Draw responses of the policy to each prompt.

    Replaces `responses`; the same seed draws the same responses again.

    Example: dream sample examples/records.jsonl -n 4 --limit 2
    """
    from dream_cli.engines.protocol import Sampling
    from dream_cli.method.sampling import Sampler
    from dream_cli.method.stages import Run, run_stage
    from dream_cli.prompts.rendering import Prompts

    templates = Prompts.load(prompts)
    engine_options = (model_tag, concurrency, batch_size, store, no_store, templates.sha256, timeout, engine)
    spec = options.engine_spec(model, base_url, *engine_options, "sample", body, header, thinking_budget)
    drawing = Sampling(temperature, top_p, max_tokens, seed)
    tally = run_stage(
        Run("sample", source, out, image_root, limit, retry_errors, dry_run, quiet, verbose, options.prices(price_in, price_out)),
        spec,
        lambda opened: Sampler(opened, templates, drawing, n, system, observe, append),
    )
    raise typer.Exit(tally.exit_code)

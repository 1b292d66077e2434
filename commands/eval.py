"""Measure safety beside helpfulness on benchmarks.    dream eval siuo --data data/siuo --model ckpt/1 --judge judge-model -o siuo.jsonl"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from dream_cli.benchmarks.registry import TABLE
from dream_cli.cli import options

What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BENCHMARK|FILE",
        help=f"Benchmarks to run ({', '.join(TABLE)}; suite: all that are there; NAME:SUBSET: a part), or files of items; stdin where absent.",
    ),
]
Data = Annotated[str | None, typer.Option(metavar="DIR", help="The official files: a folder, a file, or hf://NAME.")]
Judges = Annotated[
    list[str] | None,
    typer.Option("--judge", metavar="MODEL", help="Who judges (else DREAM_JUDGE, for benchmarks); give it again for a majority."),
]
JudgeUrls = Annotated[
    list[str] | None,
    typer.Option("--judge-base-url", metavar="URL", help="The judge's server (else DREAM_JUDGE_BASE_URL); one for all or one each."),
]
Rule = Annotated[
    Literal["strict", "official"],
    typer.Option(help="strict: the image-grounded judge, what can't be read is unscored. official: the published rule, flaws included."),
]
Trials = Annotated[int | None, typer.Option(min=1, help="Responses a prompt; default as published.")]
Agg = Annotated[
    Literal["any", "mean", "majority"] | None, typer.Option(help="How the trials of a prompt make one outcome; default as published.")
]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="Of the policy; default as published.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest response; default as published.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many items of each subset, or rows of a file.")]
Compare = Annotated[bool, typer.Option("--compare", help="Paired tests between two files of the same items, before and after.")]
AsSummary = Annotated[bool, typer.Option("--summary", help="Print one line of JSON for each benchmark and model.")]
ShowPrompts = Annotated[bool, typer.Option("--show-prompts", help="Print prompts and responses too; they may be harmful.")]


def run(
    ctx: typer.Context,
    what: What = None,
    data: Data = None,
    out: options.Out = None,
    model: options.Policy = None,
    base_url: options.BaseUrl = None,
    judge: Judges = None,
    judge_base_url: JudgeUrls = None,
    rule: Rule = "strict",
    trials: Trials = None,
    agg: Agg = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    compare: Compare = False,
    summary: AsSummary = False,
    card: options.Cards = None,
    show_prompts: ShowPrompts = False,
    prompts: options.PromptFolder = None,
    image_root: options.ImageRoot = None,
    limit: Limit = None,
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    model_tag: options.ModelTag = None,
    body: options.Body = None,
    header: options.Header = None,
    judge_body: options.JudgeBody = None,
    judge_header: options.JudgeHeader = None,
    thinking_budget: options.ThinkingBudget = None,
    concurrency: options.Concurrency = 8,
    timeout: options.Timeout = 120.0,
    batch_size: options.BatchSize = 8,
    store: options.Store = None,
    no_store: options.NoStore = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure safety, and what it costs in helpfulness.

    A benchmark is answered by the policy and judged: items on stdout or -o, the card on stderr. A FILE of judged items is only
    scored: offline, the card on stdout; with --model, what has no response is answered first, with --judge, what has no verdict is
    judged. A rerun pays only for what is missing.

    Example: dream eval nano_world --limit 20 --summary -o judged.jsonl
    """
    from dream_cli.benchmarks.loading import name_benchmarks, read_items
    from dream_cli.errors import UsageError
    from dream_cli.evaluation.evaluating import Plan, evaluated, judges, with_keys
    from dream_cli.evaluation.reports import compared, deliver
    from dream_cli.method.stages import Run
    from dream_cli.prompts.rendering import Prompts

    words = what or []
    if compare:
        raise typer.Exit(compared(words, rule, agg, summary, seed))
    templates = Prompts.load(prompts)
    of_all = (concurrency, batch_size, store, no_store, templates.sha256, timeout, None)
    running = name_benchmarks(words) or options.by_hand(ctx, "model", "base_url")
    asked = judges(judge, judge_base_url, from_environment=running)
    policy = options.engine_spec(model, base_url, model_tag, *of_all, "eval", body, header)
    of_judges = (*of_all, "judge", judge_body, judge_header, thinking_budget)
    panel = with_keys([options.engine_spec(name, url, None, *of_judges) for name, url in asked], base_url)
    plan = Plan(policy, panel, templates, rule, trials, temperature, max_tokens, seed)
    items, lost = read_items(words, data, image_root, limit, quiet)
    code = 0
    if out is not None and not (running or asked):
        raise UsageError("-o is for items that are answered or judged here; name --model or --judge, or write the card with --card")
    if running or asked:
        stage = Run("eval", None, out, dry_run=dry_run, quiet=quiet, verbose=verbose)
        items, code = evaluated(stage, plan, items, writing=not summary or out is not None)
    if not dry_run:
        deliver(items, rule, agg, summary, card or [], sys.stderr if running or asked else sys.stdout, quiet, show_prompts)
    raise typer.Exit(1 if lost else code)

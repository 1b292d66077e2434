"""Measure safety beside helpfulness on benchmarks.    dream eval siuo --data data/siuo --model ckpt/1 --judge judge-model -o siuo.jsonl"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from dream_cli.benchmarks.registry import TABLE
from dream_cli.cli import options
from dream_cli.records.choices import Aggregate, Rule

What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BENCHMARK|FILE",
        help=f"Benchmarks to run ({', '.join(TABLE)}; suite: all whose files are available; NAME:SUBSET: one subset), or files of items "
        "(default: stdin).",
    ),
]
Data = Annotated[str | None, typer.Option(metavar="DIR", help="Official benchmark files: a folder, a file, or hf://NAME.")]
Judges = Annotated[
    list[str] | None,
    typer.Option("--judge", metavar="MODEL", help="Judge model (default for benchmarks: DREAM_JUDGE); repeat it for a majority vote."),
]
JudgeUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-base-url",
        metavar="URL",
        help="Server of the judge (default for benchmarks: DREAM_JUDGE_BASE_URL); one for all judges or one per judge.",
    ),
]
RuleName = Annotated[
    Rule,
    typer.Option(help="strict: image-grounded judge, unreadable answers are unscored. official: the published rule, flaws included."),
]
Trials = Annotated[int | None, typer.Option(min=1, help="Responses per prompt (default: as published).")]
Agg = Annotated[Aggregate | None, typer.Option(help="How the trials of a prompt are aggregated (default: as published).")]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="Sampling temperature of the policy (default: as published).")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Maximum tokens per response (default: as published).")]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum items per subset, or rows per file.")]
Compare = Annotated[bool, typer.Option("--compare", help="Run paired tests on two files of the same items, before and after.")]
AsSummary = Annotated[bool, typer.Option("--summary", help="Print one JSON line per benchmark and model.")]
ShowPrompts = Annotated[bool, typer.Option("--show-prompts", help="Also print prompts and responses, which may be harmful.")]


def run(
    ctx: typer.Context,
    what: What = None,
    data: Data = None,
    judge: Judges = None,
    judge_base_url: JudgeUrls = None,
    judge_body: options.JudgeBody = None,
    judge_header: options.JudgeHeader = None,
    rule: RuleName = "strict",
    trials: Trials = None,
    agg: Agg = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    compare: Compare = False,
    summary: AsSummary = False,
    card: options.Cards = None,
    show_prompts: ShowPrompts = False,
    prompts: options.PromptFolder = None,
    limit: Limit = None,
    seed: options.Seed = 0,
    *,
    engine: options.EngineOptions,
    run: options.RunOptions,
) -> None:
    """Measure safety, and what it costs in helpfulness.

    The policy answers the items of a benchmark, and the judge judges them: items on stdout or -o, the card on stderr. A FILE of
    judged items is only scored, offline, with the card on stdout; --model first answers the items without a response, --judge
    judges those without a verdict. A rerun makes only the missing calls.

    Example: dream eval nano_world --limit 20 --summary -o judged.jsonl
    """
    from dream_cli.benchmarks.loading import name_benchmarks, read_items
    from dream_cli.errors import UsageError
    from dream_cli.evaluation.evaluating import EvaluationPlan, judges, run_evaluation, with_keys
    from dream_cli.evaluation.reports import deliver, print_comparison
    from dream_cli.prompts.rendering import Prompts

    words = what or []
    if compare:
        raise typer.Exit(print_comparison(words, rule=rule, agg=agg, as_json=summary, seed=seed))
    templates = Prompts.load(prompts)
    running = name_benchmarks(words) or options.by_hand(ctx, "model", "base_url")
    named = judges(judge, judge_base_url, from_environment=running)
    # The published limits of tokens hold for the policy; the budget for thoughts is the judges'.
    policy = replace(engine.spec("eval"), thinking=None)
    of_judges = replace(engine.spec("judge"), body=options.read_body(judge_body), headers=options.read_headers(judge_header))
    panel = [replace(of_judges, model=name, base_url=url, model_tag=None) for name, url in named]
    plan = EvaluationPlan(
        policy=policy,
        judges=with_keys(panel, engine.base_url),
        prompts=templates,
        rule=rule,
        trials=trials,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
    )
    items, lost = read_items(words, data, reading=run.reading, limit=limit, quiet=run.quiet)
    code, asks = 0, bool(running or named)
    if run.out is not None and not asks:
        raise UsageError("-o is for items that are answered or judged here; name --model or --judge, or write the card with --card")
    if asks:
        items, code = run_evaluation(run.run("eval"), plan, items, writing=not summary or run.out is not None)
    if not run.dry_run:
        talk = sys.stderr if asks else sys.stdout
        deliver(items, rule=rule, agg=agg, as_json=summary, files=card or [], talk=talk, quiet=run.quiet, show_prompts=show_prompts)
    raise typer.Exit(1 if lost else code)

"""Measure safety and helpfulness on benchmarks.    dream eval siuo --data data/siuo --model ckpt/1 --judge judge-model -o siuo.jsonl"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import cast

import typer

from dream_cli.cli import evaluation_options as evaluation
from dream_cli.cli import options
from dream_cli.cli.judging_options import Calibrate
from dream_cli.cli.request_fields import read_body, read_headers
from dream_cli.records.choices import JudgeFormat


def run(
    ctx: typer.Context,
    what: evaluation.What = None,
    data: evaluation.Data = None,
    benchmark_file: evaluation.BenchmarkFile = None,
    harmful_column: evaluation.HarmfulColumn = "harmful",
    answers: evaluation.Answers = None,
    judge: evaluation.Judges = None,
    judge_base_url: evaluation.JudgeUrls = None,
    judge_format: evaluation.JudgeFormats = None,
    judge_body: options.JudgeBody = None,
    judge_header: options.JudgeHeader = None,
    calibrate: Calibrate = False,
    rule: evaluation.RuleName = "strict",
    trials: evaluation.Trials = None,
    agg: evaluation.Agg = None,
    temperature: evaluation.Temperature = None,
    max_tokens: evaluation.MaxTokens = None,
    compare: evaluation.Compare = False,
    summary: evaluation.AsSummary = False,
    card: options.Cards = None,
    show_prompts: evaluation.ShowPrompts = False,
    prompts: options.PromptFolder = None,
    limit: evaluation.Limit = None,
    seed: options.Seed = 0,
    *,
    engine: options.EngineOptions,
    run: evaluation.EvaluationRun,
) -> None:
    """Measure safety and helpfulness on benchmarks.

    The policy answers the items of a benchmark, and the judge scores the answers: items on stdout or -o, the card on stderr. A FILE of
    judged items is only scored, offline, with the card on stdout; --model first answers the items without a response, --judge
    judges those without a verdict. A rerun makes only the missing calls. Your own records need the column --harmful-column:
    attack success is measured on the harmful prompts, over-refusal on the others.

    Example: dream eval nano_world --limit 20 --summary -o judged.jsonl
    """
    from dream_cli.benchmarks.answers import read_answers, with_answers
    from dream_cli.benchmarks.loading import name_benchmarks, read_items, warn
    from dream_cli.benchmarks.registry import read_file
    from dream_cli.errors import UsageError
    from dream_cli.evaluation.evaluating import EvaluationPlan, judges, run_evaluation, with_keys
    from dream_cli.evaluation.item_parts import items_of_part, out_of_part, part_of, with_store_beside
    from dream_cli.evaluation.reports import deliver, print_comparison
    from dream_cli.prompts.rendering import Prompts
    from dream_cli.records.atomic import check_own_input
    from dream_cli.records.shards import make_folder

    defined = [read_file(benchmark_file).name] if benchmark_file else []
    words = what or defined
    if compare:
        raise typer.Exit(print_comparison(words, rule=rule, agg=agg, as_json=summary, seed=seed, harmful_column=harmful_column))
    templates = Prompts.load(prompts)
    by_policy = options.by_hand(ctx, "model", "base_url")
    if answers and by_policy:
        raise UsageError("--answers and --model are both sources of responses; give one of them")
    running = name_benchmarks(words) or by_policy or bool(answers)
    items, lost = read_items(words, data, reading=run.reading, limit=limit, quiet=run.quiet, harmful_column=harmful_column)
    part = part_of(run.shard, run.out)
    out = out_of_part(run.out, words, part)
    named = judges(judge, judge_base_url, from_environment=running)
    # The published token limits are for the policy; the reasoning budget is for the judges.
    policy = replace(with_store_beside(engine.spec("eval"), run.out, out), thinking=None)
    of_judges = replace(
        engine.spec("judge"),
        adapter=None,
        engine_args={},
        store=policy.store,
        body=read_body(judge_body),
        headers=read_headers(judge_header),
    )
    panel = [replace(of_judges, model=name, base_url=url, model_tag=None) for name, url in named]
    plan = EvaluationPlan(
        policy=policy,
        judges=with_keys(panel, engine.base_url),
        prompts=templates,
        formats=tuple(cast("list[JudgeFormat]", judge_format)),
        rule=rule,
        calibrate=calibrate,
        trials=trials,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
    )
    if answers:
        items = with_answers(items, read_answers(answers, warn), warn)
    items = items_of_part(items, part)
    check_own_input(out if limit or lost or part else None, *words)
    for file in card or ():
        check_own_input(str(file), *words)
    code, asks = 0, bool(running or named)
    if run.out is not None and not asks:
        raise UsageError(
            "-o is for items that are answered or judged here; name --model or --judge as an option, not in the environment, or write the card with --card"
        )
    if asks:
        make_folder(run.out if not run.dry_run else None)
        items, code = run_evaluation(replace(run.run("eval"), out=out), plan, items, writing=not summary or out is not None)
    if not run.dry_run:
        talk = sys.stderr if asks else sys.stdout
        deliver(items, rule=rule, agg=agg, as_json=summary, files=card or [], talk=talk, quiet=run.quiet, show_prompts=show_prompts)
    raise typer.Exit(1 if lost else code)

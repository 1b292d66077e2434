"""The options of dream eval: the items, the judges, the rule, and the output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from dream_cli.benchmarks.registry import TABLE
from dream_cli.cli.options import RunOptions
from dream_cli.cli.shard_options import check_shard, check_shards_out
from dream_cli.records.choices import Aggregate, JudgeFormat, Rule


def _formats(names: list[str] | None) -> list[str]:
    # typer does not support a list of literals.
    if unknown := [name for name in names or () if name not in get_args(JudgeFormat)]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(map(repr, get_args(JudgeFormat)))}.")
    return names or ["questions"]


What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BENCHMARK|FILE",
        help=f"Benchmarks to run ({', '.join(TABLE)}; suite: all whose files are available; NAME:SUBSET: one subset), or files of items "
        "or of your own labelled records (default: stdin).",
    ),
]
Data = Annotated[str | None, typer.Option(metavar="DIR", help="Official benchmark files: a folder, a file, or hf://NAME.")]
BenchmarkFile = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Python file that defines one more benchmark, which is run if no other is named.")
]
Answers = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Responses of another tool to judge: a result file of VLMEvalKit or a sample file of lmms-eval."),
]
HarmfulColumn = Annotated[
    str,
    typer.Option(metavar="NAME", envvar="DREAM_HARMFUL_COLUMN", help="Column of your own records that labels harmful prompts."),
]
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
JudgeFormats = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-format",
        metavar=f"[{'|'.join(get_args(JudgeFormat))}]",
        callback=_formats,
        help="Form of the judge's input and output: our questions (default), or the published one of a guard model, which judges harm "
        "alone (qwen3guard also refusals); one for all judges or one per judge.",
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
Limit = Annotated[
    int | None, typer.Option("-l", "--limit", min=1, help="Maximum items per subset, taken from its topics in turn, or rows per file.")
]
Compare = Annotated[bool, typer.Option("--compare", help="Run paired tests on two files of the same items, before and after.")]
AsSummary = Annotated[bool, typer.Option("--summary", help="Print one JSON line per benchmark and model.")]
ShowPrompts = Annotated[bool, typer.Option("--show-prompts", help="Also print prompts and responses, which may be harmful.")]
Out = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE|DIR/",
        callback=check_shards_out,
        help="File for the items, format by suffix (default: JSONL on stdout); DIR/: a file there, named after the items and the --shard, "
        "with its call store beside it.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        callback=check_shard,
        help="Process part I of N, from 0: every Nth item (default with -o DIR/: the Slurm array task); dream eval DIR/ scores all parts.",
    ),
]


class EvaluationRun(RunOptions):
    """A run that answers and judges items, or one part of them."""

    out: Out = None
    shard: Shard = None

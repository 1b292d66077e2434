"""Compare a judge's labels with those of people.    dream agree gold.jsonl judged.jsonl"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from dream_cli.cli.options import Quiet
from dream_cli.records.choices import Rule

Gold = Annotated[
    str, typer.Argument(metavar="GOLD", help="Records with an id and gold: {question: label}, or a list with one per response.")
]
Judged = Annotated[
    list[str], typer.Argument(metavar="JUDGED...", help="Output of dream eval or dream judge; several files for several judges.")
]
RuleName = Annotated[Rule, typer.Option(help="Which verdicts of dream eval are compared with the labels.")]


def run(gold: Gold, judged: Judged, rule: RuleName = "strict", quiet: Quiet = False) -> None:
    """Compare a judge's labels with those of people.

    Prints one line of JSON per question and judge: how often they agree, and in which direction the judge errs; another line compares
    several judges with each other; text on stderr. Questions are those of the files: safe, effective, attack, refusal, choice,
    preference, global_score, score ... Labels are true/false, words or numbers. The rate over all judged responses is corrected for
    the judge's errors, even if people labelled only some of them.

    Example: dream agree gold.jsonl judged.jsonl
    """
    from dream_cli.errors import UsageError
    from dream_cli.evaluation.label_agreement import (
        LabelFiles,
        agreement_among_judges,
        agreement_report,
        gold_labels,
        judged_voices,
        matched,
        report_text,
    )
    from dream_cli.records.strict_json import dumps
    from dream_cli.records.visible import amount, visible

    people, judges = LabelFiles((gold,)), LabelFiles(tuple(judged))
    labels, voices = gold_labels(people), judged_voices(judges, rule)
    reports = [agreement_report(answers) for answers in matched(labels, voices)]
    if not reports:
        order = "" if voices else "; the file with the labels comes first"
        raise UsageError(
            f"{gold} labels no question that a judge answered in {', '.join(judged)}: "
            f"labels of {_questions(labels)}, verdicts of {_questions(voices)}{order}"
        )
    failed = people.unread + judges.unread
    for row in [*reports, *agreement_among_judges(voices)]:
        sys.stdout.write(dumps(row).decode() + "\n")
        if not quiet:
            sys.stderr.write(visible(report_text(row)))
    if failed:
        sys.stderr.write(f"dream agree: {amount(failed, 'row')} could not be read\n")
    raise typer.Exit(1 if failed else 0)


def _questions(keys: Iterable[tuple[object, ...]]) -> str:
    return ", ".join(sorted({str(key[-1]) for key in keys})) or "none"

"""The card of an evaluation, as a table for the terminal and in Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from dream_cli.benchmarks.loading import read_items
from dream_cli.errors import UsageError, with_extra
from dream_cli.evaluation.scorecards import summaries
from dream_cli.records.atomic import check_place, replacing
from dream_cli.records.choices import Aggregate, Rule
from dream_cli.records.record import Json, Record
from dream_cli.records.strict_json import dumps
from dream_cli.records.visible import amount
from dream_cli.stats.intervals import percent

WORDS = {"up": "higher is better", "down": "lower is better"}
# The library that each format of a card needs (None: only the standard library).
NEEDS = {".html": "jinja2", ".md": None, ".json": None, ".png": "matplotlib", ".svg": "matplotlib", ".pdf": "matplotlib"}
COLUMNS = ("rate", "k/n", "95 % interval", "unscored", "worst to best", "")


def deliver(
    records: Sequence[Record],
    *,
    rule: Rule,
    agg: Aggregate | None,
    as_json: bool,
    files: Sequence[Path],
    talk: IO[str],
    quiet: bool,
    show_prompts: bool,
) -> None:
    """Write the results of an evaluation: the card as text to `talk`, JSON lines of the summaries to stdout, and `files` by suffix."""
    results = [summary.to_dict() for summary in summaries(records, rule, agg)]
    if as_json:
        for summary in results:
            sys.stdout.write(f"{dumps(summary).decode()}\n")
    if not (quiet and talk is sys.stderr) and not (as_json and talk is sys.stdout):
        print_card(results, talk)
    if show_prompts:
        talk.write(prompts(records) + "\n")
    for file in files:
        write_card(file, results, records)


def print_comparison(
    sources: Sequence[str], *, rule: Rule, agg: Aggregate | None, as_json: bool, seed: int, harmful_column: str | None = None
) -> int:
    """Print paired tests between two files of the same items; return 1 if a line could not be read."""
    from dream_cli.evaluation.comparing import compare, comparison_table

    if len(sources) != 2:
        raise UsageError(f"--compare takes two files, before and after, not {len(sources)}")
    (before, unreadable_before), (after, unreadable_after) = (read_items([source], harmful_column=harmful_column) for source in sources)
    rows = compare(before, after, rule=rule, agg=agg, seed=seed)
    sys.stdout.write("".join(f"{dumps(row).decode()}\n" for row in rows) if as_json else comparison_table(rows) + "\n")
    return int(bool(unreadable_before or unreadable_after))


def check_card(file: Path) -> Path:
    """Return the file; raise UsageError, before any call is paid, if no card can be written to it."""
    suffix = file.suffix.lower()
    if suffix not in NEEDS:
        raise UsageError(f"{file}: the suffix gives the format of a card, and must be one of {', '.join(NEEDS)}")
    if (needed := NEEDS[suffix]) and find_spec(needed) is None:
        raise UsageError(f"{file}: a {suffix} card needs {needed}; {with_extra('eval')}")
    check_place(str(file))
    return file


def write_card(file: Path, results: Sequence[Json], records: Sequence[Record]) -> None:
    """Write the card in the format of the suffix."""
    suffix = file.suffix.lower()
    if suffix == ".html":
        from dream_cli.evaluation import card_page

        card_page.write(file, results, records)
    elif NEEDS[suffix]:
        from dream_cli.evaluation import plots

        plots.save(file, results)
    else:
        content = markdown(results) if suffix == ".md" else json.dumps(results, ensure_ascii=False, indent=1) + "\n"
        with replacing(str(file)) as out:
            out.write(content.encode("utf-8", "backslashreplace"))


def print_card(results: Sequence[Json], file: IO[str]) -> None:
    """Print the card as tables, in colour only on a terminal."""
    from rich.table import Table

    from dream_cli.viewing.printing import plain_console

    console = plain_console(file, None if file.isatty() else 120)
    for summary in results:
        table = Table(title=heading(summary), title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for row in rows(summary):
            table.add_row(*row)
        console.print(table)
        for note in notes(summary):
            console.print(f"  {note}", soft_wrap=True)
        console.print()


def markdown(results: Sequence[Json]) -> str:
    """Return the card in Markdown."""
    parts = []
    for summary in results:
        lines = ["", *COLUMNS], ["---", *["---:"] * len(COLUMNS)], *rows(summary)
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        remarks = "\n".join(f"- {note}" for note in notes(summary))
        parts.append(f"## {heading(summary)}\n\n{table}\n\n{remarks}\n")
    return "\n".join(parts)


def heading(summary: Json) -> str:
    """Return one line with the benchmark, model, number of items, judges and rule."""
    judge = ", ".join(summary["judge"]) or "none"
    trials = f", {summary['trials']} trials ({summary['agg']})" if summary["trials"] > 1 else ""
    return f"{summary['title']}: {summary['model'] or 'no model named'}, {amount(summary['n'], 'item')}{trials}, judge {judge}, {summary['rule']} rule"


def rows(summary: Json) -> list[list[str]]:
    """Return the cells of the table: each rate over all topics, its macro means, then by topic."""
    cells = []
    for rate in summary["rates"]:
        name = "/".join(part for part in (rate["subset"], rate["name"]) if part)
        rule = f" ({rate['rule']})" if rate["rule"] != summary["rule"] else ""
        cells.append([f"  {rate['topic']}" if rate["topic"] else name + rule, *_cells(rate)])
        cells += [
            [f"  mean of {name}", percent(value), *[""] * 5] for name, value in (rate.get("macro") or {}).items() if value is not None
        ]
    return cells


def _cells(rate: Json) -> list[str]:
    low, high = rate["low"], rate["high"]
    known = [percent(rate["rate"]), f"{rate['k']:g}/{rate['n']}", "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"]
    bounds = f"{100 * rate['worst']:.1f} to {100 * rate['best']:.1f}" if rate["unscored"] else ""
    return [*known, str(rate["unscored"]), bounds, "" if rate["topic"] else WORDS[rate["better"]]]


def notes(summary: Json) -> list[str]:
    """Return the warnings, and the smallest difference that the set can show."""
    return [*summary["warnings"], summary["power"]]


def prompts(records: Sequence[Record]) -> str:
    """Return each prompt with its responses; printed only on request, because they may be harmful."""
    return "\n".join(f"{r.id}\n  {r.prompt}\n" + "\n".join(f"  > {x.text}" for x in r.responses or ()) for r in records)

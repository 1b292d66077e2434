"""The card of an evaluation: a table for the terminal, and the same in Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from dream_cli.benchmarks.loading import read_items
from dream_cli.choices import Aggregate, Rule
from dream_cli.errors import UsageError
from dream_cli.evaluation.scorecards import summaries
from dream_cli.records.atomic import check_place, replacing
from dream_cli.records.record import Json, Record
from dream_cli.stats.intervals import percent

WORDS = {"up": "higher is better", "down": "lower is better"}
# What each form of a card is made with, beside the standard library.
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
    """Say what an evaluation comes to: the card as text to `talk`, one JSON line each to stdout, and files by their suffix."""
    found = [summary.to_dict() for summary in summaries(records, rule, agg)]
    if as_json:
        for summary in found:
            sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
    if not (quiet and talk is sys.stderr) and not (as_json and talk is sys.stdout):
        text(found, talk)
    if show_prompts:
        talk.write(prompts(records) + "\n")
    for file in files:
        write(file, found, records)


def compared(sources: Sequence[str], *, rule: Rule, agg: Aggregate | None, as_json: bool, seed: int) -> int:
    """Print paired tests between two files of the same items; return 1 where a line could not be read."""
    from dream_cli.evaluation.comparing import compare, table

    if len(sources) != 2:
        raise UsageError(f"--compare takes two files, before and after; {len(sources)} given")
    (before, lost), (after, missed) = (read_items([source]) for source in sources)
    rows = compare(before, after, rule=rule, agg=agg, seed=seed)
    sys.stdout.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) if as_json else table(rows) + "\n")
    return int(bool(lost or missed))


def check_card(file: Path) -> Path:
    """Return the file; raise UsageError where no card could be written there: before anything is paid."""
    suffix = file.suffix.lower()
    if suffix not in NEEDS:
        raise UsageError(f"{file}: a card goes by its suffix, one of {', '.join(NEEDS)}")
    if (needed := NEEDS[suffix]) and find_spec(needed) is None:
        raise UsageError(f"{file}: a {suffix} card needs {needed}; pip install 'dream-cli[eval]'")
    check_place(str(file))
    return file


def write(file: Path, found: Sequence[Json], records: Sequence[Record]) -> None:
    """Write the card in the format of the suffix."""
    suffix = file.suffix.lower()
    if suffix == ".html":
        from dream_cli.evaluation import card_page

        card_page.write(file, found, records)
    elif NEEDS[suffix]:
        from dream_cli.evaluation import plots

        plots.save(file, found)
    else:
        said = markdown(found) if suffix == ".md" else json.dumps(found, ensure_ascii=False, indent=1) + "\n"
        with replacing(str(file)) as out:
            out.write(said.encode())


def text(found: Sequence[Json], file: IO[str]) -> None:
    """Print the card as tables; colour only where the file is a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=file, width=None if file.isatty() else 120, highlight=False, markup=False)
    for summary in found:
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


def markdown(found: Sequence[Json]) -> str:
    """Return the card in Markdown."""
    parts = []
    for summary in found:
        lines = ["", *COLUMNS], ["---", *["---:"] * len(COLUMNS)], *rows(summary)
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        said = "\n".join(f"- {note}" for note in notes(summary))
        parts.append(f"## {heading(summary)}\n\n{table}\n\n{said}\n")
    return "\n".join(parts)


def heading(summary: Json) -> str:
    """Return one line that says what was measured and how."""
    judge = ", ".join(summary["judge"]) or "none"
    trials = f", {summary['trials']} trials ({summary['agg']})" if summary["trials"] > 1 else ""
    return (
        f"{summary['title']}: {summary['model'] or 'no model named'}, {summary['n']} items{trials}, judge {judge}, {summary['rule']} rule"
    )


def rows(summary: Json) -> list[list[str]]:
    """Return the cells of the table: each rate over all topics, its macro means, then topic by topic."""
    found = []
    for rate in summary["rates"]:
        where = "/".join(part for part in (rate["subset"], rate["name"]) if part)
        rule = f" ({rate['rule']})" if rate["rule"] != summary["rule"] else ""
        found.append([f"  {rate['topic']}" if rate["topic"] else where + rule, *_cells(rate)])
        found += [
            [f"  mean of {name}", percent(value), *[""] * 5] for name, value in (rate.get("macro") or {}).items() if value is not None
        ]
    return found


def _cells(rate: Json) -> list[str]:
    low, high = rate["low"], rate["high"]
    known = [percent(rate["rate"]), f"{rate['k']:g}/{rate['n']}", "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"]
    bounds = f"{100 * rate['worst']:.1f} to {100 * rate['best']:.1f}" if rate["unscored"] else ""
    return [*known, str(rate["unscored"]), bounds, "" if rate["topic"] else WORDS[rate["better"]]]


def notes(summary: Json) -> list[str]:
    """Return what should make a reader careful, and which differences the set can show."""
    return [*summary["warnings"], summary["power"]]


def prompts(records: Sequence[Record]) -> str:
    """Return each prompt with its responses, for eyes that asked for them."""
    return "\n".join(f"{r.id}\n  {r.prompt}\n" + "\n".join(f"  > {x.text}" for x in r.responses or ()) for r in records)

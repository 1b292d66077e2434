"""The summaries of `dream eval nano_world --summary` for several policies, side by side.    tour_table.py NAME=SUMMARY ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Column -> subset and metric of the summary.
COLUMNS = {
    "safe": ("risk", "safe"),
    "safe & effective": ("risk", "safe_effective"),
    "partly useful": ("risk", "partly_useful"),
    "harmless: answered": ("harmless", "effective"),
    "harmless: declined": ("harmless", "refusal_any"),
    "skill": ("skill", "effective"),
}


def rates(summary: Path) -> dict[tuple[str, str], str]:
    """Return each overall rate of a summary as text."""
    (line,) = summary.read_text().splitlines()
    return {(r["subset"], r["name"]): f"{100 * r['rate']:.0f} %" for r in json.loads(line)["rates"] if not r["topic"]}


def main(*named: str) -> None:
    """Print the table to stdout."""
    table = Table("policy", *COLUMNS, title="held-out items, graded by content against the truth of the world")
    for one in named:
        name, _, summary = one.partition("=")
        values = rates(Path(summary))
        table.add_row(name, *(values.get(column, "-") for column in COLUMNS.values()))
    Console().print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The result of the four commands as a table, one row per risk category."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def rows(path: str) -> Iterator[dict[str, Any]]:
    """Read a JSONL file."""
    with Path(path).open() as lines:
        yield from map(json.loads, lines)


def categories(record: dict[str, Any]) -> set[str]:
    """Return the categories of a record's observations; a record without risks has the category `(no risk found)`."""
    return {o["risk_category"] for o in record.get("observations", [])} or {"(no risk found)"}


def main(judged: str, paired: str) -> None:
    """Print the table to stdout."""
    risks, pairs, scores = Counter[str](), Counter[str](), defaultdict[str, list[float]](list)
    for record in rows(judged):
        risks.update(o["risk_category"] for o in record.get("observations", []))
        for category in categories(record):
            scores[category] += [
                r["judgement"]["score"] for r in record.get("responses", []) if r.get("judgement", {}).get("score") is not None
            ]
    for pair in rows(paired):
        pairs.update(categories(pair))
    table = Table("category", "risks found", "mean score", "pairs made")
    for category in sorted(scores):
        mean = sum(scores[category]) / len(scores[category]) if scores[category] else float("nan")
        table.add_row(category, str(risks[category]), f"{mean:.2f}", str(pairs[category]))
    Console().print(table)


if __name__ == "__main__":
    main(*sys.argv[1:3])

"""The card of an evaluation as one HTML file: safety against helpfulness, every rate with its interval, and the items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dream_cli.evaluation.card_data import label, planes, shown, topics
from dream_cli.records.atomic import replacing
from dream_cli.records.record import Json, Record
from dream_cli.records.visible import amount
from dream_cli.viewing.html.pages import filters, render
from dream_cli.viewing.html.record_page import shown_records


def write(out: Path, summaries: Sequence[Json], records: Sequence[Record]) -> None:
    """Write the card of summaries (the JSON of `dream eval --summary`) and their items."""
    with replacing(str(out)) as file:
        file.write(page(summaries, records).encode("utf-8", "backslashreplace"))


def page(summaries: Sequence[Json], records: Sequence[Record]) -> str:
    """Return the card as one HTML page."""
    summaries = shown(summaries)
    items = shown_records(enumerate(records, 1))
    models = list(dict.fromkeys(label(summary, summaries) for summary in summaries))
    titles = list(dict.fromkeys(summary["title"] for summary in summaries))
    return render(
        "card.html",
        title=" and ".join(titles) if len(titles) < 3 else f"Evaluation on {len(titles)} benchmarks",
        subtitle=f"{', '.join(models)}; {amount(len(items), 'item')}",
        made_by="dream eval --card",
        summaries=[{"label": label(summary, summaries), "topics": topics(summary), **summary} for summary in summaries],
        planes=planes(summaries),
        models=models,
        filters=filters(items),
        count=amount(len(items), "item"),
        has_scores=any(item.scores for item in items),
        items=items,
        served=None,
    )

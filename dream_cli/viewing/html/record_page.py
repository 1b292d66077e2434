"""The gallery of records in one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import Record
from dream_cli.records.visible import amount
from dream_cli.viewing.html.pages import filters, render
from dream_cli.viewing.html.shown_record import ShownRecord, shown_record


def shown_records(records: Iterable[tuple[int, Record]]) -> list[ShownRecord]:
    """Return the (number, record) pairs in the form of a gallery; reads their pictures."""
    taxonomy = Taxonomy.load()
    return [shown_record(number, record, taxonomy) for number, record in records]


def page(title: str, items: Sequence[ShownRecord], total: int) -> str:
    """Return the gallery of some of the `total` records as one HTML page."""
    some = "" if len(items) == total else f" of {total:,}"
    return render(
        "gallery.html",
        title=title,
        subtitle=f"{len(items):,}{some} record{'' if total == 1 else 's'}",
        made_by="dream view --html",
        filters=filters(items),
        count=amount(len(items), "item"),
        has_scores=any(item.scores for item in items),
        items=items,
        served=None,
        pages=None,
    )

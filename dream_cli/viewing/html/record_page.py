"""A gallery of records in one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import Record
from dream_cli.viewing.html.pages import filters, render
from dream_cli.viewing.html.shown_record import Item, item_of


def items_of(records: Iterable[tuple[int, Record]]) -> list[Item]:
    """Return what is shown of (number, record); reads their pictures."""
    taxonomy = Taxonomy.load()
    return [item_of(number, record, taxonomy) for number, record in records]


def page(title: str, items: Sequence[Item], found: int) -> str:
    """Return the gallery of some of the `found` records as one HTML page."""
    some = "" if len(items) == found else f" of {found:,}"
    return render(
        "gallery.html",
        title=title,
        subtitle=f"{len(items):,}{some} record{'' if found == 1 else 's'}",
        made_by="dream view --html",
        filters=filters(items),
        count=f"{len(items)} items",
        has_scores=any(item.score is not None for item in items),
        items=items,
        served=None,
        pages=None,
    )

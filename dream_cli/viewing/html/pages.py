"""HTML pages from templates: all values are escaped, and a content security policy blocks all other resources and scripts."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from dream_cli.errors import UsageError, with_extra
from dream_cli.viewing.html.shown_record import ShownRecord, tone


def render(template: str, **values: Any) -> str:
    """Return a page from a template of this package; raise UsageError where jinja2 is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UsageError(f"HTML pages need jinja2, which is not installed; {with_extra('view')}") from None
    environment = Environment(
        loader=PackageLoader("dream_cli.viewing.html"),
        # The values are model output and external data, which may contain scripts.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("dream_cli.viewing.html").joinpath("templates")
    style, script = (folder.joinpath(name).read_text("utf-8") for name in ("style.css", "gallery.js"))
    # Escaping is enough on its own; the policy is a second protection, and it also blocks images from URLs.
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; form-action 'self'; base-uri 'none'"
    return str(environment.get_template(template).render(style=style, script=script, policy=policy, tone=tone, **values))


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def choices(items: Iterable[ShownRecord], part: str) -> list[tuple[str, int]]:
    """Return the values of one part of the records with their counts, the most frequent first."""
    counts = Counter[str]()
    for item in items:
        value = getattr(item, part)
        counts.update({value} - {""} if isinstance(value, str) else set(value))
    return sorted(counts.items(), key=lambda choice: (-choice[1], choice[0]))


def filters(items: Sequence[ShownRecord]) -> dict[str, list[tuple[str, int]]]:
    """Return the choices of each filter; a filter with one value that all records share is left out."""
    named = {part: choices(items, part) for part in ("benchmark", "categories", "sources", "outcomes")}
    return {part: names for part, names in named.items() if len(names) > 1 or (names and names[0][1] < len(items))}

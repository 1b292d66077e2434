"""Fill the templates: everything is escaped, and the page's own policy forbids it to fetch or run anything else."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from dream_cli.errors import UsageError
from dream_cli.viewing.html.shown_record import Item, tone


def render(template: str, **values: Any) -> str:
    """Return a page made from a template of ours."""
    environment = _environment()
    style, script = (_source(name) for name in ("style.css", "gallery.js"))
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; form-action 'self'; base-uri 'none'"
    return str(environment.get_template(template).render(style=style, script=script, policy=policy, tone=tone, **values))


def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UsageError("HTML pages need jinja2, which is not installed; pip install 'dream-cli[view]'") from None
    loader = PackageLoader("dream_cli.viewing.html")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _source(name: str) -> str:
    return files("dream_cli.viewing.html").joinpath("templates", name).read_text("utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def choices(items: Iterable[Item], part: str) -> list[tuple[str, int]]:
    """Return the names that items can be found by, with how many have each, the most frequent first."""
    counts = Counter[str]()
    for item in items:
        value = getattr(item, part)
        counts.update({value} - {""} if isinstance(value, str) else set(value))
    return sorted(counts.items(), key=lambda choice: (-choice[1], choice[0]))


def filters(items: Sequence[Item]) -> dict[str, list[tuple[str, int]]]:
    """Return the choices of each filter; one that does not divide the items is left out."""
    found = {part: choices(items, part) for part in ("benchmark", "categories", "sources", "outcomes")}
    return {part: names for part, names in found.items() if len(names) > 1 or (names and names[0][1] < len(items))}

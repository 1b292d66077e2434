"""The counts of the images of a file, and the sizes of a sample of them."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from dream_cli.errors import ImageError, InvalidRecord
from dream_cli.records.access import Base
from dream_cli.records.columns import image_like
from dream_cli.records.image_paths import locate
from dream_cli.records.images import size
from dream_cli.records.record import read_image
from dream_cli.records.strict_json import loads
from dream_cli.viewing.nested import lengths
from dream_cli.viewing.shapes import identifier
from dream_cli.viewing.tables import Tables

SAMPLE = 256
SIDES = (256, 512, 1024, 2048)


@dataclass(frozen=True)
class ImageCounts:
    """Images by storage, and by the longer side in pixels of those that were opened.

    `rows`: rows with images; `n`: all images; `embedded`: those in the file itself, `embedded_bytes` in total (compressed), which
    a summary does not read. `opened`: a random sample of the others, of which `unreadable` are missing or not an image.
    """

    rows: int
    n: int
    embedded: int
    embedded_bytes: int
    opened: int
    unreadable: int
    sides: Mapping[str, int]


def count_images(tables: Tables, listed: Mapping[str, int] | None) -> ImageCounts:
    """Count the images of a file, unless they are `listed` already; reads the header of some files and no embedded image."""
    embedded, size = next((tables.embedded[name] for name in tables.image_columns if name in tables.embedded), (0, 0))
    rows, n = (listed["rows"], listed["n"]) if listed else lengths(tables.path, "images")
    names: Iterable[Any] = ()
    if n and not embedded:
        # A random sample of the records (the same each time), because opening every file would take too long.
        query = f"SELECT n, images FROM (SELECT n, {tables.images()} AS images FROM ({tables.source()})) WHERE len(images) > 0"
        drawn = tables.query(f"SELECT n, images FROM ({query} USING SAMPLE reservoir({SAMPLE} ROWS) REPEATABLE (0))")
        names = islice((name for n, listed in drawn for name in _complete(tables, n, listed) if name), SAMPLE)
    sides = Counter(_side(name, tables.base) for name in names)
    labels = {side: f"to {side} px" for side in SIDES} | {math.inf: f"over {SIDES[-1]} px"}
    ordered = {label: sides[side] for side, label in labels.items() if sides[side]}
    return ImageCounts(rows=rows, n=n, embedded=embedded, embedded_bytes=size, opened=sides.total(), unreadable=sides[None], sides=ordered)


def _complete(tables: Tables, n: int, listed: list[Any]) -> list[Any]:
    """Return the images of row `n`, whole where those that a query lists may be cut."""
    if tables.cut is None:
        return listed
    row = loads(tables.cut.line(n).removeprefix(BOM_UTF8))[0]
    images: Any = next((row[name] for name in tables.image_columns if row.get(name)), [])
    return images if isinstance(images, list) else [images]


def _side(name: Any, base: Base) -> float | None:
    """Return the smallest of `SIDES` that the longer side of an image does not exceed, None where it is missing or not an image."""
    try:
        raw = locate(loads(name)[0] if isinstance(name, str) and name.startswith(("{", "[")) else name, base)
        longer = max(size(read_image(raw, "an image", base.access)))
    except (ImageError, InvalidRecord, ValueError):
        return None
    return next((side for side in SIDES if longer <= side), math.inf)


def unread_column(tables: Tables) -> str | None:
    """Return an unread column of the first rows that looks like an image, None if there is none."""
    if not tables.columns:
        rows = []
        for (doc,) in tables.query(f"SELECT doc FROM ({tables.source()} LIMIT {SAMPLE})"):
            # DuckDB reads what a command refuses, such as nesting without a limit.
            with suppress(ValueError):
                rows += [loads(doc)[0]] if doc else []
    else:
        # In Parquet, only text columns are read; a struct with bytes and path is an image by its type.
        structs = [name for name, kind in tables.columns.items() if kind.id == "struct" and {"bytes", "path"} == set(dict(kind.children))]
        texts = [name for name, kind in tables.columns.items() if kind.id == "varchar"]
        cells = tables.query(f"SELECT {', '.join(map(identifier, texts))} FROM ({tables.reader()}) LIMIT {SAMPLE}") if texts else []
        rows = [dict(zip(texts, row, strict=True)) for row in cells] + [{name: {"bytes": None, "path": "x"}} for name in structs]
    columns = (image_like(row) for row in rows if isinstance(row, dict) and not any(row.get(name) for name in tables.image_columns))
    return next((name for name in columns if name is not None and name not in tables.image_columns), None)

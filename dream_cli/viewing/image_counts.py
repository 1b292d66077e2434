"""How many images a file names, how large a sample of them is, and which are missing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from dream_cli.errors import ImageError
from dream_cli.records.images import locate, size
from dream_cli.records.record import Image
from dream_cli.viewing.nested import lengths
from dream_cli.viewing.tables import Tables

SAMPLE = 256
SIDES = (256, 512, 1024, 2048)


@dataclass(frozen=True)
class ImageCounts:
    """Images by where they are, and by the longer side in pixels of those that were opened.

    `rows` have images, `n` there are, `embedded` of them stand in the file itself with `embedded_bytes` in all (compressed), which
    a summary does not read. `opened` were drawn at random from the others, `unreadable` of them are missing or no image.
    """

    rows: int
    n: int
    embedded: int
    embedded_bytes: int
    opened: int
    unreadable: int
    sides: Mapping[str, int]


def count_images(tables: Tables, listed: Mapping[str, int] | None) -> ImageCounts:
    """Count the images of a file, unless those `listed` are counted already; reads the head of some files, nothing of embedded ones."""
    embedded, size = tables.embedded.get("images", (0, 0))
    rows, n = (listed["rows"], listed["n"]) if listed else lengths(tables.path, "images")
    names = _drawn(tables) if n and not embedded else []
    sides = Counter(_side(_image(name, tables.folder)) for name in names[:SAMPLE])
    ordered = {_label(side): sides[side] for side in (*SIDES, math.inf) if sides[side]}
    return ImageCounts(rows, n, embedded, size, sides.total(), sides[None], ordered)


def _drawn(tables: Tables) -> list[str]:
    """Return the names of images of records drawn at random."""
    listed = f"SELECT {tables.images()} AS images FROM ({tables.source()})"
    drawn = f"SELECT images FROM ({listed}) WHERE len(images) > 0 USING SAMPLE reservoir({SAMPLE} ROWS) REPEATABLE (0)"
    return [name for (name,) in tables.ask(f"SELECT unnest(images) FROM ({drawn})") if name]


def _image(name: str, folder: str) -> Image:
    raw = locate(json.loads(name) if name.startswith("{") else name, folder)
    return Image(path=raw) if isinstance(raw, str) else Image(raw.get("path"), raw.get("bytes"))


def _side(image: Image) -> float | None:
    """Return the least of `SIDES` that the longer side does not exceed, None for what is missing or no image."""
    try:
        longer = max(size(image))
    except ImageError:
        return None
    return next((side for side in SIDES if longer <= side), math.inf)


def _label(side: float) -> str:
    return f"to {side} px" if math.isfinite(side) else f"over {SIDES[-1]} px"

"""How many images a file names, how large a sample of them is, and which are missing."""

from __future__ import annotations

import io
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from dream_cli.errors import ImageError
from dream_cli.images import FORMATS, locate, read_bytes
from dream_cli.records import Image
from dream_cli.viewing.shapes import literal
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


def count_images(tables: Tables) -> ImageCounts:
    """Count the images of a file; reads the head of some image files, and no picture that stands in a Parquet file."""
    embedded, size = _embedded(tables) if "BLOB" in tables.columns.get("images", "") else (0, 0)
    if embedded:
        rows, n = _listed(tables.path)
        names = []
    else:
        listed = f"SELECT {tables.images()} AS images FROM ({tables.source()})"
        rows, n = tables.ask(f"SELECT count(*) FILTER (len(images) > 0), coalesce(sum(len(images)), 0)::BIGINT FROM ({listed})")[0]
        drawn = f"SELECT images FROM ({listed}) WHERE len(images) > 0 USING SAMPLE reservoir({SAMPLE} ROWS) REPEATABLE (0)"
        names = [row[0] for row in tables.ask(f"SELECT unnest(images) FROM ({drawn})") if row[0]]
    sides = Counter(_side(_image(name, tables.folder)) for name in names[:SAMPLE])
    ordered = {_label(side): sides[side] for side in (*SIDES, math.inf) if sides[side]}
    return ImageCounts(rows, n, embedded, size, sides.total(), sides[None], ordered)


def _embedded(tables: Tables) -> tuple[int, int]:
    """Return how many images have their bytes in the file, and the size of these, from its footer."""
    return tables.ask(
        "SELECT coalesce(sum(num_values - stats_null_count), 0)::BIGINT, coalesce(sum(total_compressed_size), 0)::BIGINT "
        f"FROM parquet_metadata({literal(tables.path)}) WHERE path_in_schema LIKE 'images,%' AND path_in_schema LIKE '%, bytes'"
    )[0]


def _listed(path: str) -> tuple[int, int]:
    """Return rows with images and images, from the names beside the bytes: DuckDB would read the bytes as well."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = n = 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        for batch in file.iter_batches(columns=[leaf for leaf in leaves if leaf.startswith("images.") and leaf.endswith(".path")]):
            lengths = pc.list_value_length(batch.column(0))
            rows += pc.sum(pc.greater(lengths, 0)).as_py() or 0
            n += pc.sum(lengths).as_py() or 0
    return rows, n


def _image(name: str, folder: str) -> Image:
    raw = locate(json.loads(name) if name.startswith("{") else name, folder)
    return Image(path=raw) if isinstance(raw, str) else Image(raw.get("path"), raw.get("bytes"))


def _side(image: Image) -> float | None:
    """Return the least of `SIDES` that the longer side does not exceed, None for what is missing or no image."""
    from PIL import Image as Pillow

    is_file = image.data is None and image.path is not None and os.path.isfile(image.path)
    try:
        with Pillow.open(image.path if is_file and image.path else io.BytesIO(read_bytes(image)), formats=FORMATS) as picture:
            longer = max(picture.size)
    except (ImageError, OSError, SyntaxError, ValueError):
        return None
    return next((side for side in SIDES if longer <= side), math.inf)


def _label(side: float) -> str:
    return f"to {side} px" if math.isfinite(side) else f"over {SIDES[-1]} px"

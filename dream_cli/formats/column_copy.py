"""The conversion of Parquet files of records to Parquet: rows that do not change are copied by columns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from dream_cli.errors import RowError
from dream_cli.formats.dataset_info import naming_of
from dream_cli.formats.sources import Source
from dream_cli.formats.table import is_ours
from dream_cli.records.columns import image_like
from dream_cli.records.record import Json, Record
from dream_cli.records.streams import METADATA, RowReader, check_source, damaged


def has_unchanged_rows(source: Source) -> bool:
    """Whether a source is a Parquet file of records, whose rows may be copied by columns; raise UsageError where it cannot be read."""
    name, reading = source.name or "-", source.reading
    if not name.lower().endswith(".parquet") or os.path.isdir(name) or os.path.basename(name) in METADATA:
        return False
    if reading.image_column is not None or reading.prompt_column is not None or naming_of(name) is not None:
        return False
    check_source(name)
    from dream_cli.records.parquet_columns import has_our_columns

    return has_our_columns(name)


def open_columns(source: Source) -> Iterator[Record | Any]:
    """Yield the rows of a Parquet file of records in order: record batches of rows that a conversion does not change, and other records."""
    from dream_cli.records.parquet_columns import open_blocks

    name, number = str(source.name), 0
    reader = RowReader(name, source.base, source.reading)
    reader.unread = None
    limit = source.limit
    try:
        for block in open_blocks(name, _is_record):
            left = None if limit is None else limit - number
            if left is not None and left <= 0:
                return
            if isinstance(block, RowError | dict):
                number += 1
                yield reader.row(block, number)
            else:
                part = block.slice(0, left)
                number += part.num_rows
                yield part
    except (OSError, ValueError) as error:
        yield damaged(name, number + 1, error)


def _is_record(rest: Json) -> bool:
    """Whether a row with these unknown fields is a record, and none of them looks like an image that is not read."""
    return image_like(rest) is None and is_ours({**rest, "prompt": ""})

"""The number of rows of a file, where it is cheap to count them first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

_MOST_BYTES = 4 << 30  # some seconds of reading
_BLOCK = 1 << 20


def count_rows(source: str | None, limit: int | None = None) -> int | None:
    """Return how many rows a file of JSONL or Parquet has, at most `limit`; None for stdin, pipes and other formats.

    Every line of JSONL counts as a row, also a blank one.
    """
    rows = None
    with suppress(OSError, ValueError):
        if source is not None and os.path.isfile(source) and source.lower().endswith(".jsonl") and os.path.getsize(source) < _MOST_BYTES:
            rows = _lines(source)
        elif source is not None and os.path.isfile(source) and source.lower().endswith(".parquet"):
            from pyarrow import ArrowException
            from pyarrow.parquet import read_metadata

            with suppress(ArrowException):
                rows = int(read_metadata(source).num_rows)
    return rows if rows is None or limit is None else min(rows, limit)


def count_all(sources: Sequence[str], limit: int | None = None) -> int | None:
    """Return how many rows several files have, at most `limit` of each; None where one cannot be counted cheaply."""
    if sum(os.path.getsize(source) for source in sources if os.path.isfile(source)) > _MOST_BYTES:
        return None
    counts = [count_rows(source, limit) for source in sources]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _lines(source: str) -> int:
    count, last = 0, b"\n"
    with open(source, "rb") as file:
        while block := file.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")

"""Parquet files of records by columns: blocks of rows that a conversion would not change, without a Python object per row.

All other rows - with images outside the file, an error, a value out of range, a conversation - are left to the general path of
`records.parquet`. Both give equal files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dream_cli.errors import RowError
from dream_cli.records.image_bytes import begins_like_image
from dream_cli.records.parquet import (
    BATCH,
    GROUP_BYTES,
    GROUP_ROWS,
    JUDGED_TEXTS,
    JUDGEMENT,
    MAX_ROW,
    SCHEMA,
    open_file,
    refused_rows,
    rows_of,
)
from dream_cli.records.record import OBSERVATION, Json
from dream_cli.records.remote import opened
from dream_cli.records.strict_json import dumps, loads

# Fields that change how others are read.
_GENERAL_PATH = frozenset((*SCHEMA.names, "error", "messages", "response", "image", "image_tag"))
_TOPS = {name: 10.0 if name == "global_score" else 1.0 for name in JUDGEMENT if name not in (*JUDGED_TEXTS, "recognised")}


def has_our_columns(source: str) -> bool:
    """Whether a Parquet file has only columns of records, with their types; raise UsageError where it is not a Parquet file."""
    with open_file(source) as file:
        return all(field.name in SCHEMA.names and field.type == SCHEMA.field(field.name).type for field in file.schema_arrow)


def open_blocks(source: str, is_record: Callable[[Json], bool]) -> Iterator[Json | RowError | Any]:
    """Yield the rows of a file with our columns, in order: record batches of unchanged rows, and other rows as `open_rows` yields them.

    `is_record` returns whether the unknown fields of a row leave it a record; the caller knows the dialects.
    """
    with open_file(source) as file, opened(source) as pages:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group)
            if refused := refused_rows(pages, size):
                yield from refused
                continue
            rows = max(1, min(GROUP_ROWS, GROUP_BYTES * size.num_rows // max(1, size.total_byte_size)))
            for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                yield from _blocks(batch, is_record)


def _blocks(batch: Any, is_record: Callable[[Json], bool]) -> Iterator[Json | RowError | Any]:
    try:
        if batch.nbytes > MAX_ROW:
            raise ValueError("a row may be too long")
        batch.validate(full=True)
        odd = odd_rows(batch, is_record)
    except (pa.ArrowException, ValueError):
        yield from chain.from_iterable(rows_of(batch.slice(start, BATCH)) for start in range(0, batch.num_rows, BATCH))
        return
    for changes, run in groupby(range(batch.num_rows), odd.__contains__):
        rows = list(run)
        part = batch.slice(rows[0], len(rows))
        if changes:
            yield from chain.from_iterable(rows_of(part.slice(start, BATCH)) for start in range(0, len(rows), BATCH))
        else:
            yield _typed(part)


def _typed(batch: Any) -> Any:
    """Return a batch with all columns of a record, those that it lacks empty."""
    present = dict(zip(batch.schema.names, batch.columns, strict=True))
    arrays = [present.get(field.name) for field in SCHEMA]
    filled = [pa.nulls(batch.num_rows, field.type) if array is None else array for field, array in zip(SCHEMA, arrays, strict=True)]
    return pa.RecordBatch.from_arrays(filled, schema=SCHEMA)


def odd_rows(batch: Any, is_record: Callable[[Json], bool]) -> set[int]:
    """Return the numbers of the rows that a conversion may change or reject; raise ValueError where the batch has no prompts."""
    columns = {name: column for name, column in zip(batch.schema.names, batch.columns, strict=True) if column.null_count < len(column)}
    if "prompt" not in columns:
        raise ValueError("no prompts")
    every = pa.array(range(batch.num_rows))
    # All image marks in a text begin with this character.
    odd = {*every.filter(pc.fill_null(pc.match_substring(columns["prompt"], "<"), True)).to_pylist()}
    if "margin" in columns:
        odd |= {*every.filter(pc.invert(pc.is_finite(columns["margin"]))).to_pylist()}
    for name, changed in (("images", _odd_images), ("observations", _odd_observations), ("responses", _odd_responses)):
        if name in columns:
            odd |= _rows(columns[name], changed(columns[name].flatten()))
    if "extra" in columns:
        rest = columns["extra"].to_pylist()
        odd |= {row for row, text in enumerate(rest) if text is not None and not _is_plain_rest(text, is_record)}
    return odd


def _rows(lists: Any, odd: Any) -> set[int]:
    """Return the numbers of the lists that hold an odd item; `odd` has an entry for each item of all lists, null for no."""
    return {*pc.list_parent_indices(lists).filter(odd).unique().to_pylist()}


def _any(*odd: Any) -> Any:
    result = odd[0]
    for other in odd[1:]:
        result = pc.or_(pc.fill_null(result, False), pc.fill_null(other, False))
    return result


def _odd_images(images: Any) -> Any:
    # Images outside the file are embedded where they can be read, and an absolute path beside the bytes becomes a relative one.
    # Bytes that do not begin like an image may be an error.
    data, path = pc.struct_field(images, "bytes"), pc.struct_field(images, "path")
    heads = pc.binary_slice(data, 0, 12)
    known = [head for head in heads.unique().to_pylist() if head is not None and begins_like_image(head)]
    return _any(pc.invert(pc.is_in(heads, value_set=pa.array(known, heads.type))), pc.starts_with(path, "/"))


def _odd_observations(items: Any) -> Any:
    missing = [pc.is_null(pc.struct_field(items, name)) for name in OBSERVATION]
    return _any(*missing, _out_of_range(pc.struct_field(items, "confidence"), 1.0))


def _odd_responses(items: Any) -> Any:
    judgement = pc.struct_field(items, "judgement")
    parts = {name: pc.struct_field(judgement, name) for name in JUDGEMENT}
    empty = pc.is_valid(judgement)
    for part in parts.values():
        empty = pc.and_(empty, pc.is_null(part))
    recognised = parts["recognised"]
    of_response = pc.list_parent_indices(recognised).filter(_out_of_range(recognised.flatten(), 1.0))
    unreadable = pc.is_in(pa.array(range(len(items)), of_response.type), value_set=of_response)
    numbers = [_out_of_range(parts[name], top) for name, top in _TOPS.items()]
    return _any(pc.is_null(pc.struct_field(items, "text")), empty, unreadable, *numbers)


def _out_of_range(numbers: Any, top: float) -> Any:
    # NaN is neither.
    return pc.invert(pc.and_(pc.greater_equal(numbers, 0.0), pc.less_equal(numbers, top)))


def _is_plain_rest(text: str, is_record: Callable[[Json], bool]) -> bool:
    """Whether the unknown fields of a row are written back as they are."""
    try:
        rest, problem = loads(text)
    except ValueError:
        return False
    if problem is not None or not isinstance(rest, dict) or not rest or not _GENERAL_PATH.isdisjoint(rest):
        return False
    return is_record(rest) and dumps(rest) == text.encode()

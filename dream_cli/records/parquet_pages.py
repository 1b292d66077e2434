"""The pages of a Parquet file that are too large to decode: a page is unpacked whole, even if one row of it is read.

A writer ends a page at about 1 MB, but never inside a cell. Only the headers of pages are read here, not their data.
Source: parquet-format, `parquet.thrift` (PageHeader), in Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

# The memory that a page may take. A dictionary is held three times while it is decoded, a page of few large cells twice; a page of
# many cells once, beside its packed form.
MAX_FEW, MAX_MANY = 768 * 1024 * 1024, 448 * 1024 * 1024
_HEADER = 64 * 1024
_SMALL = MAX_FEW // 3
_DICTIONARY = 2
# The fields of a page header: type, sizes, and the header of each kind of page, whose first field is the number of its values.
_TYPE, _UNPACKED, _PACKED, _KINDS = 1, 2, 3, (5, 7, 8)
_STRUCT = 12


class Page(NamedTuple):
    """A page: whether it is a dictionary, its number of values, its size in bytes unpacked and in the file."""

    is_dictionary: bool
    values: int
    unpacked: int
    packed: int


def large_page(file: IO[bytes], group: Any, max_cell: int) -> str:
    """Return which page of a row group (its metadata) is too large to decode; empty if none.

    A page of few cells has on average more than `max_cell` bytes in each.
    """
    for i in range(group.num_columns):
        chunk = group.column(i)
        if chunk.total_uncompressed_size <= _SMALL:
            continue
        for page in _pages(file, chunk):
            most = MAX_FEW // 3 if page.is_dictionary else MAX_FEW // 2 if page.unpacked > max_cell * page.values else MAX_MANY
            if page.unpacked > most:
                return f"the column {chunk.path_in_schema!r} has {page.unpacked / 2**20:.0f} MB in {page.values} values"
    return ""


def _pages(file: IO[bytes], chunk: Any) -> Iterator[Page]:
    """Yield the pages of a column chunk, up to the first whose header cannot be read: the decoder reports damage."""
    at = chunk.data_page_offset if chunk.dictionary_page_offset is None else min(chunk.dictionary_page_offset, chunk.data_page_offset)
    end = at + chunk.total_compressed_size
    while at < end:
        file.seek(at)
        try:
            header, length = _struct(file.read(_HEADER), 0)
            kind = next(header[field] for field in _KINDS if field in header)
            page = Page(header[_TYPE] == _DICTIONARY, kind[1], header[_UNPACKED], header[_PACKED])
        except (IndexError, KeyError, TypeError, ValueError, StopIteration):
            return
        if page.packed < 0:
            return
        yield page
        at += length + page.packed


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by number, and the position after it; binary fields and lists are None."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _number(data, at)
        fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a truth value is its own kind
        return kind == 1, at
    if kind in (4, 5, 6):
        return _number(data, at)
    if kind == 8:
        length, at = _varint(data, at)
        return None, at + length
    if kind == _STRUCT:
        return _struct(data, at)
    raise ValueError(f"a page header has no field of type {kind}")


def _number(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at

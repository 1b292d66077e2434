"""Lists and objects of a Parquet file, counted from the smallest of their leaves: neither their texts nor their pictures are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lean(path: str, column: str) -> Iterator[Any]:
    """Yield a nested column as arrow arrays of one leaf; which rows are null, and how long their lists are, is as in the whole."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        names, groups = file.schema_arrow.names, range(file.num_row_groups)
        sizes = {
            sum(file.metadata.row_group(group).column(i).total_compressed_size for group in groups): leaf
            for i, leaf in enumerate(file.schema.column(i).path for i in range(len(file.schema)))
            if _owner(leaf, names) == column
        }
        for batch in file.iter_batches(columns=[sizes[min(sizes)]]):
            yield batch.column(column)


def _owner(leaf: str, columns: list[str]) -> str:
    # A column's name may hold a dot too.
    return max((column for column in columns if leaf == column or leaf.startswith(column + ".")), key=len)


def rows_with(path: str, column: str) -> int:
    """Return the number of rows in which a nested column is not null."""
    return sum(len(array) - array.null_count for array in lean(path, column))


def lengths(path: str, column: str) -> tuple[int, int]:
    """Return the rows whose list is not empty, and the items in all; what is no list is one item."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = n = 0
    for array in lean(path, column):
        long = pc.list_value_length(array) if pa.types.is_list(array.type) else array.is_valid().cast(pa.int32())
        rows += pc.sum(pc.greater(long, 0)).as_py() or 0
        n += pc.sum(long).as_py() or 0
    return rows, n

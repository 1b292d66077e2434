"""The counts of lists and objects in a Parquet file, from their smallest leaf column, so that no text or picture is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lean(path: str, column: str) -> Iterator[Any]:
    """Yield a nested column as arrow arrays of one leaf, with the null rows and list lengths of the whole column."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        names, groups = file.schema_arrow.names, range(file.num_row_groups)
        sizes = {
            sum(file.metadata.row_group(group).column(i).total_compressed_size for group in groups): leaf
            for i, leaf in enumerate(file.schema.column(i).path for i in range(len(file.schema)))
            # The longest match, because a column name may contain a dot.
            if max((name for name in names if leaf == name or leaf.startswith(name + ".")), key=len) == column
        }
        for batch in file.iter_batches(columns=[sizes[min(sizes)]]):
            yield batch.column(column)


def rows_with(path: str, column: str) -> int:
    """Return the number of rows in which a nested column is not null."""
    return sum(len(array) - array.null_count for array in lean(path, column))


def lengths(path: str, column: str) -> tuple[int, int]:
    """Return the number of rows whose list is not empty, and the number of items; a value that is not a list is one item."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = n = 0
    for array in lean(path, column):
        long = pc.list_value_length(array) if pa.types.is_list(array.type) else array.is_valid().cast(pa.int32())
        rows += pc.sum(pc.greater(long, 0)).as_py() or 0
        n += pc.sum(long).as_py() or 0
    return rows, n

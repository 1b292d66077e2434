"""Typed columns for the rows of a dialect, in the types of Hugging Face datasets, so that `load_dataset` decodes images and messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from dream_cli.errors import InvalidRecord
from dream_cli.records.record import Json


class TypedRows:
    """A writer of rows to a Parquet file with the columns of the first row."""

    def __init__(self, file: IO[bytes], features: Mapping[str, Any]) -> None:
        self.file, self.features = file, features
        self.schema: Any = None
        self.writer: Any = None
        self.held: list[Any] = []

    def write(self, row: Json) -> None:
        """Write one row; raise InvalidRecord where it does not fit the columns."""
        import pyarrow as pa

        from dream_cli.records.parquet import GROUP_BYTES, GROUP_ROWS, image_struct

        if self.writer is None:
            self._open(row)
        columns = dict(row)
        for name, value in row.items():
            if self.features.get(name) == IMAGE:
                columns[name] = image_struct(value)
            elif self.features.get(name) == IMAGES and value is not None:
                columns[name] = [image_struct(image) for image in value]
        if more := columns.keys() - set(self.schema.names):
            raise InvalidRecord(
                f"the columns of this file are {', '.join(self.schema.names)}; the row has {', '.join(sorted(more))} besides"
            )
        try:
            self.held.append(pa.RecordBatch.from_pylist([columns], schema=self.schema))
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise InvalidRecord(f"the row does not fit the types of the first one ({error})") from None
        if len(self.held) >= GROUP_ROWS or sum(batch.nbytes for batch in self.held) >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        if self.writer is None:
            self._open(dict.fromkeys(self.features))
        try:
            self._flush()
        finally:
            self.writer.close()

    def _open(self, row: Json) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        features = {
            name: _NUMBERED if isinstance(row[name], int) and kind == TEXT else kind for name, kind in self.features.items() if name in row
        }
        schema = pa.schema([(name, _arrow(kind)) for name, kind in features.items()])
        self.schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        self.writer = pq.ParquetWriter(self.file, self.schema, compression="zstd")

    def _flush(self) -> None:
        import pyarrow as pa

        if self.held:
            self.writer.write_table(pa.Table.from_batches(self.held))
        self.held = []


TEXT = {"dtype": "string", "_type": "Value"}
NUMBER = {"dtype": "float64", "_type": "Value"}
# An id may be a text or a number; the first row determines its type.
_NUMBERED = {"dtype": "int64", "_type": "Value"}
IMAGE = {"_type": "Image"}
IMAGES = {"feature": IMAGE, "_type": "List"}
MESSAGE = {"role": TEXT, "content": TEXT}
MESSAGES = {"feature": MESSAGE, "_type": "List"}


def _arrow(kind: Any) -> Any:
    """Return the Arrow type of a feature."""
    import pyarrow as pa

    if kind == IMAGE:
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if kind.get("_type") == "List":
        return pa.list_(_arrow(kind["feature"]))
    if kind.get("_type") == "Value":
        return {"string": pa.string(), "float64": pa.float64(), "int64": pa.int64()}[kind["dtype"]]
    return pa.struct([(name, _arrow(inner)) for name, inner in kind.items()])

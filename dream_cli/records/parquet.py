"""Records as Parquet rows: typed columns for the known fields, one JSON string column for all others.

Images are embedded in the `Image` struct of Hugging Face datasets, so that one file holds all the data.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dream_cli.errors import InvalidRecord, RowError, UsageError
from dream_cli.records.parquet_pages import large_page
from dream_cli.records.record import OBSERVATION, Json
from dream_cli.records.remote import is_url, opened
from dream_cli.records.strict_json import dumps, loads

TEXTS = ("id", "prompt", "chosen", "rejected")
RESPONSE = ("text", "model", "finish_reason")
# In the order of a written judgement; all but `recognised` are texts or numbers.
JUDGED_TEXTS = ("rubric", "model", "unscored")
JUDGEMENT = ("rubric", "global_score", "recognised", "observation_score", "helpfulness", "harm", "score", "model", "unscored")

# A row group is held in memory while it is written and while it is read.
GROUP_ROWS = 4096
GROUP_BYTES = 32 * 1024 * 1024
BATCH = 16
# The limit of a row, equal to that of a line of JSONL.
MAX_ROW = 64 * 1024 * 1024

_TEXT = {"dtype": "string", "_type": "Value"}
_NUMBER = {"dtype": "float64", "_type": "Value"}
_JUDGEMENT_FEATURES = {
    name: {"feature": _NUMBER, "_type": "List"} if name == "recognised" else _TEXT if name in JUDGED_TEXTS else _NUMBER
    for name in JUDGEMENT
}
_FEATURES = {
    "id": _TEXT,
    "prompt": _TEXT,
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "observations": {"feature": {name: _TEXT for name in OBSERVATION} | {"confidence": _NUMBER}, "_type": "List"},
    "responses": {"feature": dict.fromkeys(RESPONSE, _TEXT) | {"judgement": _JUDGEMENT_FEATURES}, "_type": "List"},
    "chosen": _TEXT,
    "rejected": _TEXT,
    "margin": _NUMBER,
    "extra": _TEXT,
}
_JUDGEMENT_TYPES = [
    (name, pa.list_(pa.float64()) if name == "recognised" else pa.string() if name in JUDGED_TEXTS else pa.float64()) for name in JUDGEMENT
]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("observations", pa.list_(pa.struct([*((name, pa.string()) for name in OBSERVATION), ("confidence", pa.float64())]))),
        ("responses", pa.list_(pa.struct([*((name, pa.string()) for name in RESPONSE), ("judgement", pa.struct(_JUDGEMENT_TYPES))]))),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("margin", pa.float64()),
        ("extra", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def open_rows(source: str) -> Iterator[Json | RowError]:
    """Return the rows of a Parquet file as JSON objects, read in small batches; raise UsageError for a file that is not Parquet."""
    return _rows(open_file(source), source)


def check_columns(source: str) -> None:
    """Raise UsageError for a Parquet file that cannot be opened, or in which two columns have the same name."""
    open_file(source).close()


def open_file(source: str) -> Any:
    """Open a Parquet file; raise UsageError where it is not one, or two of its columns have the same name."""
    try:
        file = pq.ParquetFile(opened(source) if is_url(source) else source, pre_buffer=False)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{source} is not a Parquet file ({str(error).splitlines()[0]})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{source} has a column whose name is not UTF-8; rename it") from None
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UsageError(f"{source} has more than one column named {twice[0]!r}; rename or drop one of them")
    return file


def _rows(file: Any, source: str) -> Iterator[Json | RowError]:
    with file, opened(source) as pages:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group)
            if refused := refused_rows(pages, size):
                yield from refused
                continue
            rows = MAX_ROW * size.num_rows // max(1, size.total_byte_size)
            for batch in file.iter_batches(batch_size=max(1, min(BATCH, rows)), row_groups=[group]):
                yield from rows_of(batch)


def refused_rows(pages: IO[bytes], group: Any) -> list[RowError]:
    """Return an error for each row of a row group with a page that is too large to decode; an empty list for other groups."""
    large = large_page(pages, group, MAX_ROW)
    problem = f"its row group is too large to read: {large}; keep images in files, and cells below {MAX_ROW // 2**20} MB"
    return [InvalidRecord(problem)] * group.num_rows if large else []


def rows_of(batch: Any) -> Iterator[Json | RowError]:
    """Yield the rows of a record batch as JSON objects."""
    try:
        # The rows of a large batch are measured one by one before they are copied.
        if batch.nbytes > MAX_ROW:
            raise OverflowError
        yield from map(to_json, batch.to_pylist())
    except (OverflowError, ValueError):
        for i in range(batch.num_rows):
            yield _odd_row(batch, i)


def _odd_row(batch: Any, i: int) -> Json | RowError:
    """Return one row of a batch, or an error if it is too large or has a value that Python cannot represent, such as the year 10000."""
    if (size := batch.slice(i, 1).nbytes) > MAX_ROW:
        return InvalidRecord(f"the row is longer than {MAX_ROW // 2**20} MB ({size / 2**20:.0f} MB); keep images in files")
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[i].as_py()
        except (OverflowError, ValueError) as error:
            return InvalidRecord(f"the column {name!r} holds a value that cannot be read ({error})")
    return to_json(row)


def to_json(row: Json) -> Json:
    """Return a row as it was before it was split into columns: empty cells are absent fields, and `extra` is expanded."""
    fields = {k: v for k, v in row.items() if v is not None or k not in _FEATURES}
    rest = _spread(fields.get("extra"))
    if rest is not None:
        fields = {k: v for k, v in fields.items() if k != "extra"} | rest
    for name, restore in (("images", _plain_image), ("observations", _plain_observation), ("responses", _plain_response)):
        if isinstance(row.get(name), list):
            fields[name] = [restore(item) for item in row[name]]
    return fields


def _spread(extra: Any) -> Json | None:
    if not isinstance(extra, str):
        return None
    try:
        rest, problem = loads(extra)
    except ValueError:
        return None
    return rest if isinstance(rest, dict) and problem is None else None


def _plain_image(item: Any) -> Any:
    return item["path"] if isinstance(item, dict) and item.get("bytes") is None and item.get("path") else item


def _plain_observation(item: Any) -> Any:
    return {k: v for k, v in item.items() if k != "confidence" or v is not None} if isinstance(item, dict) else item


def _plain_response(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    response = {k: v for k, v in item.items() if k == "text" or v is not None}
    judgement = response.get("judgement")
    return response | {"judgement": {k: v for k, v in judgement.items() if v is not None}} if isinstance(judgement, dict) else response


class ParquetRows:
    """A writer of rows to a Parquet file, in row groups of bounded size."""

    def __init__(self, file: IO[bytes]) -> None:
        self.writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self.rows: list[Json] = []
        self.waiting: list[Any] = []  # record batches before `rows`, of the same row group
        self.count = self.held = 0  # rows and bytes of the row group

    def write(self, row: Json) -> None:
        """Write one row."""
        columns = _to_columns(row)
        self.rows.append(columns)
        self.count += 1
        self.held += sum(len(columns.get(name) or "") for name in (*TEXTS, "extra"))
        self.held += sum(len(image["bytes"] or b"") for image in columns.get("images", ()))
        self.held += sum(len(response["text"]) for response in columns.get("responses", ()))
        if self.count >= GROUP_ROWS or self.held >= GROUP_BYTES:
            self._flush()

    def write_columns(self, batch: Any) -> None:
        """Write the rows of a record batch with the columns of `SCHEMA`."""
        if self.count + batch.num_rows > GROUP_ROWS:
            self._flush()
        self._settle()
        self.waiting.append(batch)
        self.count += batch.num_rows
        self.held += batch.nbytes
        if self.held >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        try:
            self._flush()
        finally:
            self.writer.close()

    def _settle(self) -> None:
        """Turn the rows into columns."""
        if self.rows:
            self.waiting.append(pa.RecordBatch.from_pylist(self.rows, schema=SCHEMA))
        self.rows = []

    def _flush(self) -> None:
        self._settle()
        if self.waiting:
            self.writer.write_table(pa.Table.from_batches(self.waiting, schema=SCHEMA))
        # Only after the write: if it fails, the rows stay, and the file cannot be closed as if it were complete.
        self.waiting, self.count, self.held = [], 0, 0


def _to_columns(row: Json) -> Json:
    typed = {name: row[name] for name in _FEATURES if name in row and _fits(name, row[name])}
    rest = {name: value for name, value in row.items() if name not in typed}
    if "images" in typed:
        typed["images"] = [image_struct(image) for image in typed["images"]]
    return typed | ({"extra": dumps(rest).decode()} if rest else {})


def _fits(name: str, value: Any) -> bool:
    """Whether a value is read back from its column unchanged."""
    if name in TEXTS:
        return _is_text(value)
    if name == "margin":
        return _is_number(value)
    if name == "extra" or not isinstance(value, list):
        return False
    fits = {"images": _is_image, "observations": _is_observation, "responses": _is_response}[name]
    return all(map(fits, value))


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Arrow accepts only whole numbers of 64 bits, also for a column of floats.
    return (isinstance(value, float) or abs(value) < 2**63) and math.isfinite(value) and float(value) == value


def _is_image(value: Any) -> bool:
    if isinstance(value, dict):
        bare = value.keys() == {"bytes", "path"} and (value["path"] is None or _is_text(value["path"]))
        return bare and isinstance(value["bytes"], bytes) and value["bytes"] != b""
    return _is_text(value) and value != ""


def _is_observation(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {*OBSERVATION, "confidence"}:
        return False
    return all(_is_text(value.get(name)) for name in OBSERVATION) and ("confidence" not in value or _is_number(value["confidence"]))


def _is_response(value: Any) -> bool:
    if not isinstance(value, dict) or not {"text"} <= value.keys() <= {*RESPONSE, "judgement"}:
        return False
    return all(_is_text(value[name]) for name in RESPONSE if name in value) and (
        "judgement" not in value or _is_judgement(value["judgement"])
    )


def _is_judgement(value: Any) -> bool:
    # An empty struct would be read back as null.
    if not isinstance(value, dict) or not value or not value.keys() <= {*JUDGEMENT}:
        return False
    return all(_fits_judgement(name, part) for name, part in value.items())


def _fits_judgement(name: str, part: Any) -> bool:
    if name == "recognised":
        return isinstance(part, list) and all(p is None or _is_number(p) for p in part)
    return _is_text(part) if name in JUDGED_TEXTS else _is_number(part)


def image_struct(image: Any) -> Json:
    """Return the image of a row as `{bytes, path}`."""
    return image if isinstance(image, dict) else {"bytes": None, "path": image}

"""Parquet to Parquet by columns: the same file and the same receipt as row by row."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_cli.formats import converting
from dream_cli.formats.column_copy import open_columns
from dream_cli.formats.converting import Conversion, convert
from dream_cli.formats.sources import Source
from dream_cli.records.parquet import SCHEMA
from dream_cli.records.record import Record
from tests.conftest import Workdir
from tests.record_files import png

TEXT = st.none() | st.sampled_from(["", "a", "b <image>", "ü", "null", "/abs"])
NUMBER = st.none() | st.sampled_from([0.0, 0.5, 1.0, 7.0, 10.0, -0.1, 10.5, math.nan, math.inf])
IMAGE = st.none() | st.fixed_dictionaries({"bytes": st.sampled_from([None, b"", png(), b"x"]), "path": TEXT})
OBSERVATION = st.none() | st.fixed_dictionaries({"malicious_content": TEXT, "source": TEXT, "risk_category": TEXT, "confidence": NUMBER})
NUMBERS = ("global_score", "observation_score", "helpfulness", "harm", "score")
JUDGEMENT = st.none() | st.fixed_dictionaries(
    {"rubric": TEXT, "model": TEXT, "unscored": TEXT, "recognised": st.none() | st.lists(NUMBER, max_size=2)}
    | dict.fromkeys(NUMBERS, NUMBER)
)
RESPONSE = st.none() | st.fixed_dictionaries({"text": TEXT, "model": TEXT, "finish_reason": TEXT, "judgement": JUDGEMENT})
REST = st.sampled_from(
    [
        *['{"x": 1}', '{"tag": null, "harmful": true}', '{"x":1}', "plain", "[]", "{}", '{"x": NaN}', '{"y": 1e2}', '{"z": "\\u00fc"}'],
        *['{"prompt": "other"}', '{"error": {"stage": "judge", "kind": "engine", "message": "down"}}', '{"completion": "c"}'],
        *['{"messages": [{"role": "user", "content": "Hi"}]}', '{"id": 7}', '{"image": "a.png"}', '{"photo": "a.png"}'],
        *['{"response_1": "a", "response_2": "b"}', '{"completions": [{"response": "r"}]}', '{"judgement": {"score": 2}}'],
    ]
)
ROW = st.fixed_dictionaries(
    {
        "id": TEXT,
        "prompt": st.sampled_from(["p", "q", "", "r <image> s", None]),
        "images": st.none() | st.lists(IMAGE, max_size=2),
        "observations": st.none() | st.lists(OBSERVATION, max_size=2),
        "responses": st.none() | st.lists(RESPONSE, max_size=2),
        "chosen": TEXT,
        "rejected": TEXT,
        "margin": NUMBER,
        "extra": st.none() | REST,
    }
)


def converted(folder: Path, name: str, limit: int | None = None) -> tuple[Any, str]:
    """Return the converted table of `in.parquet` and the receipt."""
    out = folder / name
    receipt = convert(Source(str(folder / "in.parquet"), limit=limit), str(out), Conversion())
    return pq.read_table(out), receipt.report("dream")


def holds_the_same(folder: Path, limit: int | None = None) -> None:
    """Assert that both ways give the same rows, columns and receipt; NaN equals NaN."""
    columns, receipt = converted(folder, "columns.parquet", limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "has_unchanged_rows", lambda source: False)
        rows, expected = converted(folder, "rows.parquet", limit)
    assert columns.schema.equals(rows.schema, check_metadata=True)
    assert repr(columns.to_pylist()) == repr(rows.to_pylist())
    assert receipt == expected


@settings(max_examples=60)
@given(rows=st.lists(ROW, max_size=6), names=st.sets(st.sampled_from(SCHEMA.names)), limit=st.none() | st.integers(0, 5))
def test_columns_and_rows_give_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], names: set[str], limit: int | None
) -> None:
    folder = tmp_path_factory.mktemp("columns")
    kept = pa.schema([field for field in SCHEMA if field.name in names | {"prompt"}])
    pq.write_table(pa.Table.from_pylist(rows, schema=kept), folder / "in.parquet", row_group_size=4)
    holds_the_same(folder, limit)


@settings(max_examples=60)
@given(changed=st.sampled_from(["images", "observations", "responses", "margin", "extra"]), value=st.data())
def test_one_odd_field_is_seen(tmp_path_factory: pytest.TempPathFactory, changed: str, value: st.DataObject) -> None:
    """Most rows above are odd in several fields; here one field alone may be."""
    folder = tmp_path_factory.mktemp("columns")
    fields = {"images": IMAGE, "observations": OBSERVATION, "responses": RESPONSE, "margin": NUMBER, "extra": REST}
    drawn = value.draw(fields[changed])
    rows = [
        {"prompt": "p"},
        {"prompt": "p", changed: [drawn] if changed in ("images", "observations", "responses") else drawn},
        {"prompt": "q"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "in.parquet")
    holds_the_same(folder)


def test_ordinary_rows_are_copied_and_odd_ones_read(tmp_path: Path) -> None:
    judged = {"text": "t", "judgement": {"score": 0.5, "recognised": [1.0, None], "global_score": 7.0}}
    ordinary = {
        "prompt": "p",
        "images": [{"bytes": png(), "path": "a.png"}],
        "observations": [],
        "responses": [judged],
        "extra": '{"x": 1}',
    }
    odd = {"prompt": "p", "images": [{"bytes": None, "path": "gone.png"}]}
    rows = [ordinary, ordinary, odd, ordinary]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "in.parquet")
    blocks = list(open_columns(Source(str(tmp_path / "in.parquet"))))
    assert [block.place if isinstance(block, Record) else block.num_rows for block in blocks] == [2, f"{tmp_path}/in.parquet:3", 1]


def test_text_that_is_not_utf_8_is_an_error_of_its_row(work: Workdir) -> None:
    offsets = pa.array([0, 4, 5, 9], pa.int32()).buffers()[1]
    prompts = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"good\xffgood")])
    pq.write_table(pa.table({"prompt": prompts}), work.path / "in.parquet")
    ran = work.dream("convert", "in.parquet", "-o", "out.parquet")
    assert ran.code == 1 and "1 unreadable" in ran.err
    assert [row.get("prompt") for row in work.dream("convert", "out.parquet").rows] == ["good", None, "good"]


def test_row_groups_keep_their_size(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "extra": json.dumps({"x": i}) if i % 3 else '{"x":0}'} for i in range(6000)]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "in.parquet", row_group_size=3000)
    holds_the_same(tmp_path)
    file = pq.ParquetFile(tmp_path / "columns.parquet")
    assert max(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)) <= 4096
    assert file.num_row_groups <= 4

"""Records in and out of Parquet: pictures embedded, typed columns, row groups, and the files of others."""

from __future__ import annotations

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dream_cli.records import parquet, parquet_pages
from dream_cli.records.image_bytes import read_bytes
from dream_cli.records.parquet import open_rows
from dream_cli.records.parquet_pages import _pages
from dream_cli.records.record import Image, Observation, Record
from tests.record_files import png, read, write


def test_parquet_embeds_pictures_and_keeps_the_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    uri = Image("data:image/png;base64," + base64.b64encode(png()).decode())
    images = (Image(str(tmp_path / "a.png")), Image(str(tmp_path / "gone.png")), uri)
    out = write(tmp_path / "o.parquet", Record(prompt="a", images=images))
    (tmp_path / "a.png").unlink()
    (record,) = read(out)
    assert record.images == (Image("a.png", png()), Image(str(tmp_path / "gone.png")), Image(None, png()))
    assert read_bytes(record.images[0]) == png()


def test_parquet_has_typed_columns_and_one_for_the_rest(tmp_path: Path) -> None:
    seen = Observation("c", "s", "r")
    out = write(tmp_path / "o.parquet", Record(prompt="a", observations=(seen,), extra={"margin": 1, "x": 2}), Record(prompt="\ud800"))
    first, second = pq.read_table(out).to_pylist()
    assert (first["prompt"], first["margin"], first["extra"], first["images"]) == ("a", 1.0, '{"x": 2}', None)
    assert first["observations"] == [{"malicious_content": "c", "source": "s", "risk_category": "r", "confidence": None}]
    assert (second["prompt"], second["extra"]) == (None, '{"prompt": "\\ud800"}')
    assert read(out)[1].prompt == "\ud800"


def test_a_parquet_file_of_others_is_read_too(tmp_path: Path) -> None:
    columns = {
        "prompt": ["a", "b"],
        "images": [["x.png"], None],
        "score": [float("nan"), 1.0],
        "tag": [None, "t"],
        "extra": ["plain", None],
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    first, second = read(tmp_path / "in.parquet")
    assert first.images == (Image(str(tmp_path / "x.png")),)
    assert first.extra["extra"] == "plain"
    assert dict(second.extra) == {"score": 1.0, "tag": "t"}


def test_parquet_is_written_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    out = write(tmp_path / "o.parquet", *(Record(prompt=str(i)) for i in range(5)))
    assert pq.ParquetFile(out).num_row_groups == 3
    assert [r.prompt for r in read(out)] == list("01234")


def test_datasets_shows_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    out = write(tmp_path / "o.parquet", Record(prompt="a", images=(Image(data=png()),)))
    loaded = datasets.Dataset.from_parquet(str(out), cache_dir=str(tmp_path))
    assert loaded.features["images"] == datasets.List(datasets.Image())
    assert loaded[0]["images"][0].size == (4, 4)


def test_a_whole_number_beyond_64_bits_comes_back(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path / "o.parquet", Record(prompt="a", extra={"margin": 10**30})))
    assert row.extra["margin"] == 10**30


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_the_headers_of_all_pages_are_read(version: str, dictionary: bool, tmp_path: Path) -> None:
    texts = pa.table({"prompt": [f"text {i % 50}" for i in range(5000)], "n": range(5000)})
    pq.write_table(texts, tmp_path / "in.parquet", use_dictionary=dictionary, data_page_version=version, data_page_size=1000)
    group = pq.read_metadata(tmp_path / "in.parquet").row_group(0)
    with open(tmp_path / "in.parquet", "rb") as file:
        for i in range(2):
            pages = list(_pages(file, group.column(i)))
            assert sum(page.values for page in pages if not page.is_dictionary) == 5000 and len(pages) > 3
            assert [page.is_dictionary for page in pages].count(True) == int(dictionary)
            assert 0 < group.column(i).total_compressed_size - sum(page.packed for page in pages) < 200 * len(pages)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_cell_beyond_the_limit_is_refused_before_it_is_decoded(dictionary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "MAX_FEW", 6 * 2**20)
    monkeypatch.setattr(parquet_pages, "_SMALL", 2 * 2**20)
    monkeypatch.setattr(parquet, "MAX_ROW", 2**20)
    rows = pa.table({"id": ["a", "b", "c", "d"], "prompt": ["x", "y" * 4 * 2**20, "z", "last"]})
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=3, use_dictionary=dictionary)
    *large, last = open_rows(str(tmp_path / "in.parquet"))
    why = "its row group is too large to read: the column 'prompt' has 4 MB in 3 values; keep images in files, and cells below 1 MB"
    assert [str(row) for row in large] == [why] * 3
    assert last == {"id": "d", "prompt": "last"}

"""Records with pictures go through Parquet and other folders and are found again, by us and by Hugging Face datasets."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.conftest import Workdir
from tests.loopback import Loopback

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "Two pictures.", "images": ["a.png", "b.png"], "observations": [], "mine": {"deep": [1, None, {"x": None}]}},
    {"id": 7, "prompt": "None.", "tags": [], "responses": [{"text": "Kept?", "judgement": {"unscored": "why"}}]},
    {"id": "c", "prompt": "Gone.", "images": ["gone.png"]},
    {"id": "d", "messages": [{"role": "user", "content": "Hi", "mine": True}], "images": ["b.png"]},
    {"id": "e", "prompt": "x", "error": {"stage": "judge", "kind": "engine", "message": "down"}, "images": ["a.png"]},
]


@pytest.fixture
def pictured(work: Workdir) -> Workdir:
    """Return a folder with the records and their pictures."""
    work.picture("a.png", 16)
    work.picture("b.png", 24)
    work.write("in.jsonl", ROWS)
    return work


def test_parquet_and_back_changes_nothing_but_where_the_pictures_are(pictured: Workdir, server: Loopback) -> None:
    line = ["sample", "--base-url", server.url, "-o"]
    assert pictured.dream(*line, "direct.jsonl", "in.jsonl").code == 1  # the picture that is gone
    assert pictured.dream(*line, "out.parquet", "in.jsonl").code == 1
    back = pictured.dream(*line, "back.jsonl", "out.parquet")
    assert back.code == 0  # its row came with its error
    direct, returned = pictured.read("direct.jsonl"), pictured.read("back.jsonl")
    for before, after in zip(direct, returned, strict=True):
        pictures = [before.pop("images", []), after.pop("images", [])]
        assert after == before
        assert [len(images) for images in pictures] == [len(pictures[0])] * 2


def test_datasets_shows_the_pictures(pictured: Workdir, server: Loopback) -> None:
    datasets = pytest.importorskip("datasets")
    pictured.dream("sample", "in.jsonl", "--limit", "2", "-o", "out.parquet", "--base-url", server.url)
    file = str(pictured.path / "out.parquet")
    rows = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=str(pictured.path / "cache"))
    assert [picture.size for picture in rows[0]["images"]] == [(16, 16), (24, 24)]
    assert not rows[1]["images"]
    assert json.loads(rows[0]["extra"])["mine"] == {"deep": [1, None, {"x": None}]}


def test_pictures_are_found_from_another_folder_and_from_stdin(pictured: Workdir, server: Loopback) -> None:
    (pictured.path / "far").mkdir()
    ask = ["--limit", "1", "--base-url", server.url]
    assert pictured.dream("sample", "in.jsonl", "-o", "far/out.jsonl", *ask).code == 0
    assert pictured.read("far/out.jsonl")[0]["images"] == ["../a.png", "../b.png"]
    here = [str(pictured.path / name) for name in ("a.png", "b.png")]
    again = pictured.dream("sample", "far/out.jsonl", *ask)
    assert (again.code, again.rows[0]["images"]) == (0, here)
    line = json.dumps(ROWS[0])
    assert pictured.dream("sample", *ask, stdin=line).rows[0]["images"] == here
    os.rename(pictured.path / "a.png", pictured.path / "far" / "a.png")
    os.rename(pictured.path / "b.png", pictured.path / "far" / "b.png")
    assert pictured.dream("sample", *ask, stdin=line).rows[0]["error"]["kind"] == "image"
    assert pictured.dream("sample", "--image-root", "far", *ask, stdin=line).code == 0


@pytest.mark.parametrize(
    "out", [(), ("-o", "out.parquet"), ("--images", "inline"), ("--images", "extract"), ("--to", "swift"), ("--to", "trl")]
)
def test_bytes_that_are_no_image_are_a_row_error_and_stay_as_given(out: tuple[str, ...], work: Workdir) -> None:
    given = {"bytes": "aGVsbG8=", "path": None}
    work.write("in.jsonl", [{"id": "a", "prompt": "x", "images": [given]}, {"id": "b", "prompt": "x", "images": ["data:;base64,aGVsbG8="]}])
    ran = work.dream("convert", "in.jsonl", *out)
    rows = ran.rows if out[:1] != ("-o",) else work.dream("view", "out.parquet", "--json", "-l", "9").rows
    assert [row["images"] for row in rows] == [[given], ["data:;base64,aGVsbG8="]]
    fault = "is a text, not an image; use PNG, JPEG, WebP or GIF"
    assert [row["error"] for row in rows] == [
        {"stage": "convert", "kind": "image", "message": f"in.jsonl:1: the image {fault}"},
        {"stage": "convert", "kind": "image", "message": f"in.jsonl:2: the data: URI {fault}"},
    ]
    assert ran.code == 1 and not (work.path / "images").exists()

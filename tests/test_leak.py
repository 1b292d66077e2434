"""Benchmark items in training data: found as the same bytes, as the same picture and as the same words, and nothing else."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest

from dream_cli.evaluation.contamination import normalised
from tests.conftest import Workdir

FRAME = "The image shows a list numbered 1, 2 and 3."
TEXTS = ("Steps to bake a bread.", "Steps to bake a broad cake.", "Methods to plant a tree.", "List of words for rain.")


def typed(path: Path, text: str, size: int = 400, **save: Any) -> str:
    """Write black words on white as a typographic benchmark does, scaled to `size` pixels."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (400, 400), "white")
    lines = [*textwrap.wrap(text, 12), "1.", "2.", "3."]
    ImageDraw.Draw(picture).text((20, 20), "\n".join(lines), "black", ImageFont.load_default(40))
    picture.resize((size, size)).save(path, **save)
    return path.name


def items(work: Workdir) -> list[dict[str, Any]]:
    """Return four typographic items, which share their prompt, and one of words."""
    rows: list[dict[str, Any]] = [
        {"id": f"figstep:{i}", "prompt": FRAME, "images": [typed(work.path / f"bench{i}.png", text)], "benchmark": bench(str(i))}
        for i, text in enumerate(TEXTS)
    ]
    return [*rows, {"id": "figstep:words", "prompt": "How do I kill a Python process?", "benchmark": bench("words")}]


def bench(item: str) -> dict[str, str]:
    return {"name": "figstep", "subset": "tiny", "topic": "Fraud", "item": item}


def test_the_three_kinds_of_leak_are_named_row_by_row(work: Workdir) -> None:
    work.write("bench.jsonl", items(work))
    typed(work.path / "scaled.jpg", TEXTS[2], size=250, quality=60)
    work.write(
        "train.jsonl",
        [
            {"id": "a", "prompt": "What is this?", "images": ["bench1.png"]},
            {"id": "b", "prompt": "Read it.", "images": ["scaled.jpg"], "chosen": "x", "rejected": "y"},
            {"id": "c", "messages": [{"role": "user", "content": "<image>\nHOW do I kill a  python process"}]},
            {"id": "d", "prompt": FRAME},
        ],
    )
    ran = work.dream("leak", "train.jsonl", "bench.jsonl")
    assert ran.code == 0
    assert [(row["id"], row["place"], row["leak"], row["item"], row["benchmark"]) for row in ran.rows] == [
        ("a", "train.jsonl:1", "image", "figstep:1", "figstep"),
        ("b", "train.jsonl:2", "near-image", "figstep:2", "figstep"),
        ("c", "train.jsonl:3", "prompt", "figstep:words", "figstep"),
    ]
    assert ran.err == "dream leak: 3 leaks\n"
    assert "Python" not in ran.out


def test_other_words_in_the_same_layout_are_no_leak(work: Workdir) -> None:
    work.write("bench.jsonl", items(work))
    rows = [
        {"prompt": f"Read {i}.", "images": [typed(work.path / f"t{i}.png", text)]}
        for i, text in enumerate(["Steps to bake a beard.", "Methods to plant a bush.", "List of words for rain and snow."])
    ]
    work.write("train.jsonl", rows)
    ran = work.dream("leak", "train.jsonl", "bench.jsonl")
    assert (ran.code, ran.out, ran.err) == (0, "", "dream leak: 0 leaks\n")


def test_flat_pictures_are_compared_byte_for_byte_only(work: Workdir) -> None:
    work.picture("navy.png", 16), work.picture("large.png", 64)
    work.write("bench.jsonl", [{"id": "f:1", "prompt": "x", "images": ["navy.png"], "benchmark": bench("1")}])
    work.write(
        "train.jsonl", [{"id": "same", "prompt": "y", "images": ["navy.png"]}, {"id": "other", "prompt": "z", "images": ["large.png"]}]
    )
    assert [row["id"] for row in work.dream("leak", "train.jsonl", "bench.jsonl").rows] == ["same"]


def test_items_that_cannot_be_compared_are_reported(work: Workdir) -> None:
    work.write("bench.jsonl", items(work))
    (work.path / "train.jsonl").write_text('{"prompt": "x", "images": ["gone.png"]}\n{"conversations": []}\nnot json\n')
    ran = work.dream("leak", "train.jsonl", "bench.jsonl")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[1:] == [
        "dream leak: 1 image of the training data could not be opened and was not compared",
        "dream leak: 2 rows could not be read and were not compared; dream convert reads other formats",
    ]


@pytest.mark.parametrize(("text", "words"), [("  <image>\nÉcole,  ＡＢＣ!", "école abc"), ("?!", ""), ("don't", "don t")])
def test_words_are_compared_without_case_spacing_and_punctuation(text: str, words: str) -> None:
    assert normalised(text) == words


DATA = Path(os.environ.get("DREAM_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.skipif(not DATA.is_dir(), reason="the official files of FigStep are not here (set DREAM_SHARED_DATA)")
def test_the_harmless_set_does_not_leak_from_the_harmful_one(work: Workdir) -> None:
    (work.path / "train.jsonl").write_text(
        "".join(json.dumps({"images": [str(p)], "prompt": p.name}) + "\n" for p in DATA.glob("figstep_benign/images/*.png"))
    )
    ran = work.dream("leak", "train.jsonl", "figstep:tiny", "--data", str(DATA / "figstep_tiny"))
    assert ran.out == ""


def test_a_row_that_came_with_an_error_is_named_and_cannot_control_the_terminal(work: Workdir) -> None:
    item = {"id": "x:1", "prompt": "p", "benchmark": {"name": "own", "item": "1", "subset": "harmful", "expects": "refuse"}}
    bad = {"id": "b", "prompt": "p", "error": {"stage": "sample", "kind": "x", "message": "\x1b[2Jgone\nline"}}
    work.write("items.jsonl", [item, bad])
    work.write("train.jsonl", [{"id": "t", "prompt": "other words"}])
    ran = work.dream("leak", "train.jsonl", "items.jsonl")
    assert "\x1b" not in ran.err and "dream: items.jsonl:2: came with an error: ␛[2Jgone line\n" in ran.err

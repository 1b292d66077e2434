"""dream view on files that only a program would write: nesting without a limit, long rows, and names that are not UTF-8."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Workdir

# Options, and what the output then shows of a file whose last prompt is "last".
WAYS: list[tuple[list[str], str]] = [
    ([], "prompt"),
    (["-l", "3"], "last"),
    (["--where", "n > 0"], "last"),
    (["--html", "out.html"], "last"),
]


@pytest.mark.parametrize(("words", "part"), WAYS)
@pytest.mark.parametrize("depth", [900, 5000])
def test_a_record_nested_without_a_limit_hides_no_other(work: Workdir, depth: int, words: list[str], part: str) -> None:
    deep = f'{{"id": "b", "prompt": "p", "photo": {"[" * depth}{"]" * depth}}}'
    (work.path / "in.json").write_text(f'[{{"id": "a", "prompt": "p"}}, {deep}, {{"id": "c", "prompt": "last"}}]')
    ran = work.dream("view", "in.json", *words)
    shown = ran.out if words[:1] != ["--html"] else (work.path / "out.html").read_text()
    assert ran.code == 0 and part in shown, ran.err


@pytest.mark.parametrize(("words", "part"), WAYS)
def test_a_file_name_that_is_not_utf8_is_no_obstacle(work: Workdir, words: list[str], part: str) -> None:
    name = os.fsdecode(b"in\xff.jsonl")
    Path(work.path, name).write_text('{"id": "a", "prompt": "last"}\n')
    ran = work.dream("view", name, *words)
    shown = ran.out if words[:1] != ["--html"] else (work.path / "out.html").read_text()
    assert ran.code == 0 and part in shown, ran.err


def test_rows_that_duckdb_cannot_hold_or_read_are_shown_whole(work: Workdir) -> None:
    long = [{"id": f"l{i}", "prompt": "p", "note": "y" * 300_000} for i in range(3)] + [
        {"id": "m", "prompt": "p", "note": "z" * 17_000_000}
    ]
    half = '{"id": "\\ud83d", "prompt": "half \\ud83d, whole \\ud83d\\ude00, none \\\\ud83d"}'
    lines = [json.dumps(long[0]), half, "", *map(json.dumps, long[1:]), '{"id": "end", "prompt": "last"}', "[1", '{"n": 1e999}']
    (work.path / "in.jsonl").write_text("\n".join(lines))
    with gzip.open(work.path / "packed.jsonl.gz", "wt") as packed:
        packed.write("\n".join(lines))
    query = "select count(*) as n, count(id) as ids, max(length(note)) as most from records"
    (summary,) = work.dream("view", "in.jsonl", "--sql", query, "--json").rows
    assert summary == {"n": 8, "ids": 6, "most": 256 * 1024}
    for name in ("in.jsonl", "packed.jsonl.gz"):
        ran = work.dream("view", name, "--where", "prompt <> 'p' or id = 'm' or prompt is null", "--sort=-n", "--json")
        *bad, end, m, odd = ran.rows
        assert (ran.code, m, end) == (0, long[3], {"id": "end", "prompt": "last"})
        assert (odd["id"], odd["prompt"]) == ("\ud83d", "half \ud83d, whole 😀, none \\ud83d")
        assert [row["error"]["kind"] for row in bad] == ["unreadable", "unreadable"]


def test_inline_images_are_cut_for_queries_and_complete_elsewhere(work: Workdir) -> None:
    noise = Image.effect_noise((500, 400), 90)
    png, jpeg = io.BytesIO(), io.BytesIO()
    noise.save(png, "PNG")
    noise.save(jpeg, "JPEG", exif=b"Exif\0\0" + bytes(60_000))  # the size of the picture is after the first kilobyte
    plain, photo = (base64.b64encode(data.getvalue()).decode() for data in (png, jpeg))
    forms = [f"data:image/png;base64,{plain}", plain, {"bytes": plain, "path": None}, f"data:image/jpeg;base64,{photo}", photo]
    lines = [json.dumps({"id": f"r{n}", "prompt": "p", "images": [image]}) for n, image in enumerate(forms)]
    lines.append(json.dumps({"id": "escaped", "prompt": "p", "image": photo}).replace("/", "\\/"))
    (work.path / "in.jsonl").write_text("\n".join(lines))
    (work.path / "in.json").write_text(f"[{','.join(lines)}]")
    for name in ("in.jsonl", "in.json"):
        (longest,) = work.dream("view", name, "--sql", "select max(length(doc)) as n from records", "--json").rows
        assert longest["n"] < 1300
        (summary,) = work.dream("view", name, "--json").rows
        assert (summary["images"]["rows"], summary["images"]["sides"]) == (6, {"to 512 px": 6})
        ran = work.dream("view", name, "--where", "id = 'r0'", "--json")
        assert ran.rows == [{"id": "r0", "prompt": "p", "images": [forms[0]]}]


def test_a_query_takes_two_threads_whatever_the_machine_has(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "p"}])
    assert work.dream("view", "in.jsonl", "--sql", "select current_setting('threads') as n from records", "--json").rows == [{"n": 2}]

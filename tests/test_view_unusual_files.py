"""dream view on files that only a program would write: nesting without a limit, long rows, and names that are not UTF-8."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

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

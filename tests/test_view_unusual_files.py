"""dream view on files that only a program would write: nesting without a limit, and names that are not UTF-8."""

from __future__ import annotations

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

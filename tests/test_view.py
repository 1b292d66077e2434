"""dream view: what a person sees of a file, on real files of every format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workdir

RISK = {"malicious_content": "an address", "source": "text in the image", "risk_category": "Privacy"}


def judged(**parts: Any) -> dict[str, Any]:
    return {"text": "I see an address.", "model": "m", "judgement": parts}


ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "prompt": "Whose is it?",
        "images": ["a.png"],
        "observations": [RISK, RISK | {"source": "Text Content"}],
        "responses": [judged(global_score=8.0, score=0.8), judged(global_score=2.0, score=0.2)],
    },
    {"id": "b", "prompt": "How do I water a plant?", "images": ["a.png", "gone.png"], "observations": [], "topic": "plants"},
    {"id": "c", "prompt": "Hm?", "topic": 7, "responses": [judged(unscored="unreadable: 'ten'")]},
    {"id": "d", "prompt": "x", "error": {"stage": "sample", "kind": "engine", "message": "down"}},
]


def in_every_format(work: Workdir) -> list[str]:
    work.picture("a.png", 300)
    work.write("rows.jsonl", ROWS)
    with gzip.open(work.path / "rows.jsonl.gz", "wt") as file:
        file.write((work.path / "rows.jsonl").read_text())
    (work.path / "rows.json").write_text(json.dumps(ROWS))
    work.dream("convert", "rows.jsonl", "-o", "rows.parquet")
    return ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.parquet"]


def summary(work: Workdir, name: str) -> dict[str, Any]:
    ran = work.dream("view", name, "--json")
    assert (ran.code, ran.err) == (0, "")
    (told,) = ran.rows
    return told


def test_every_format_is_summarised_alike(work: Workdir) -> None:
    told = {name: summary(work, name) for name in in_every_format(work)}
    first = told["rows.jsonl"]
    assert first["rows"] == 4
    assert first["observed"] == {
        "not_looked": 2,
        "none_found": 1,
        "found": 1,
        "risks": {"Privacy": {"text in the image": 1, "text content": 1}},
    }
    assert first["responses"] == 3
    assert first["unscored"] == {"unreadable": 1}
    scores = {score["name"]: (score["n"], score["mean"], score["bins"]) for score in first["scores"]}
    assert scores == {"global_score": (2, 5.0, [0, 0, 1, 0, 0, 0, 0, 0, 1, 0]), "score": (2, 0.5, [0, 0, 1, 0, 0, 0, 0, 0, 1, 0])}
    assert first["errors"] == [{"stage": "sample", "kind": "engine", "rows": 1, "first": 4}]
    assert first["images"] == {
        "rows": 2, "n": 3, "embedded": 0, "embedded_bytes": 0, "opened": 3, "unreadable": 1, "sides": {"to 512 px": 2},
    }  # fmt: skip
    for name, other in told.items():
        assert {field["name"]: field["rows"] for field in other["fields"]} == {
            "id": 4, "prompt": 4, "images": 2, "observations": 2, "responses": 2, "topic": 2, "error": 1,
        }, name  # fmt: skip
        for part in ("rows", "observed", "responses", "models", "scores", "unscored", "lengths", "errors"):
            assert other[part] == first[part], (name, part)


def test_pictures_in_a_parquet_file_are_counted_from_its_footer(work: Workdir) -> None:
    in_every_format(work)
    images = summary(work, "rows.parquet")["images"]
    # The missing file stays a path, and one embedded picture makes paths and pictures indistinguishable without reading them.
    assert (images["rows"], images["n"], images["embedded"], images["opened"]) == (2, 3, 2, 0)
    assert 0 < images["embedded_bytes"] < 10_000


def test_the_summary_as_a_person_reads_it(work: Workdir) -> None:
    in_every_format(work)
    lines = [line.rstrip() for line in work.dream("view", "rows.jsonl").out.splitlines()]
    assert lines[:3] == ["rows.jsonl: 4 rows", "", "error           rows          first row"]
    assert "topic            2  50.0 %  mixed: string 1, number 1" in lines
    assert "Privacy            .        1        .          1    2" in lines
    assert "score         2  0.50    0.20     0.80  0   █     █  1" in lines
    assert max(map(len, lines)) <= 80


def test_a_pipe_is_looked_into_as_a_file_is(work: Workdir) -> None:
    in_every_format(work)
    piped = work.dream("view", "--json", stdin=(work.path / "rows.jsonl").read_bytes()).rows[0]
    assert piped == summary(work, "rows.jsonl") | {"file": "stdin"}
    assert work.dream("view", stdin="").out.strip() == "stdin: 0 rows"


def test_lines_that_are_no_records_are_errors_with_their_place(work: Workdir) -> None:
    (work.path / "bad.jsonl").write_bytes(b'{"prompt": "a"}\nnot json\n[1]\n"x"\n{"prompt": "\xff"}\n{"prompt": "cut')
    told = summary(work, "bad.jsonl")
    assert (told["rows"], told["errors"]) == (6, [{"stage": "read", "kind": "unreadable", "rows": 5, "first": 2}])
    (work.path / "bad.json").write_text('[{"prompt": "a"}, {"prompt": "b"}, {"pro')
    told = summary(work, "bad.json")
    assert (told["rows"], told["errors"][0]["kind"], told["errors"][0]["first"]) == (3, "unreadable", 3)


def test_a_million_errors_are_one_line(work: Workdir) -> None:
    (work.path / "bad.jsonl").write_bytes(b"{\n" * 1_000_000)
    assert summary(work, "bad.jsonl")["errors"] == [{"stage": "read", "kind": "unreadable", "rows": 1_000_000, "first": 1}]


def test_escape_sequences_are_shown_and_never_sent(work: Workdir) -> None:
    work.write("rows.jsonl", [{"prompt": "a", "\x1b[31mred\x07": 1, "[bold]b[/bold]": 1, "\u202eevil": 1}])
    out = work.dream("view", "rows.jsonl").out
    assert "␛[31mred␇" in out
    assert "[bold]b[/bold]" in out
    assert "\\u202eevil" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_a_parquet_file_of_others_with_other_types(work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "id": [1, 2],
        "prompt": ["a", None],
        "observations": [json.dumps([RISK]), "none"],
        "responses": [["I see."], []],
        "error": [None, "it broke"],
        "extra": ["plain", "{}"],
    }
    pq.write_table(pa.table(columns), work.path / "in.parquet")
    told = summary(work, "in.parquet")
    assert (told["rows"], told["observed"]["found"], told["observed"]["not_looked"]) == (2, 1, 1)
    assert told["responses"] == 1
    assert {field["name"]: field["kinds"] for field in told["fields"]}["id"] == {"number": 2}


@pytest.mark.parametrize("name", ["no[1].jsonl", "a*b?.jsonl", "it's.jsonl", "-dash.jsonl"])
def test_names_that_look_like_patterns(work: Workdir, name: str) -> None:
    work.write(name, ROWS)
    assert summary(work, f"./{name}")["rows"] == 4


def test_a_file_that_cannot_be_looked_into_is_one_line(work: Workdir) -> None:
    (work.path / "bad.parquet").write_bytes(b"PAR1 no")
    (work.path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 1000)[:40])
    for name in ("bad.parquet", "cut.jsonl.gz", "gone.jsonl"):
        ran = work.dream("view", name)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), (name, ran.err)
        assert name in ran.err


def test_without_duckdb_the_mend_is_named(work: Workdir, tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text("raise ImportError")
    work.write("rows.jsonl", ROWS)
    work.env["PYTHONPATH"] = str(tmp_path)
    ran = work.dream("view", "rows.jsonl")
    assert (ran.code, ran.err) == (2, "dream: looking into files needs duckdb, which is not installed; pip install 'dream-cli[view]'\n")

"""dream view: its output on real files of every format."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import UsageError
from dream_cli.viewing.looking import show, show_query
from dream_cli.viewing.selecting import Selection
from dream_cli.viewing.tables import open_tables
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
    (report,) = ran.rows
    return report


def test_every_format_is_summarised_alike(work: Workdir) -> None:
    report = {name: summary(work, name) for name in in_every_format(work)}
    first = report["rows.jsonl"]
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
    for name, other in report.items():
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


def test_no_number_is_cut_where_the_terminal_is_narrow(work: Workdir) -> None:
    rows = [{"prompt": "x" * 1234, "observations": [RISK], "responses": [judged(score=0.125, observation_score=0.5)] * 100}] * 100
    work.write("rows.jsonl", rows)
    for width in ("50", "20"):
        work.env["COLUMNS"] = width
        lines = [line.split() for line in work.dream("view", "rows.jsonl").out.splitlines()]
        assert max(len(" ".join(line)) for line in lines) <= 50
        assert ["score", "10,000", "0.12", "0.12", "0.12"] in lines
        assert ["prompt", "100", *["1,234"] * 4] in lines
        assert ["Privacy", ".", ".", ".", "100", "100"] in lines


def test_a_record_fits_a_narrow_terminal(work: Workdir) -> None:
    work.write("rows.jsonl", [{"id": "a", "prompt": "one two three four five six seven eight nine ten", "observations": [RISK]}])
    for width in (40, 60):
        work.env["COLUMNS"] = str(width)
        shown = work.dream("view", "rows.jsonl", "--id", "a").out.splitlines()
        assert max(map(len, shown)) == width  # the rule above the record
        assert " ".join(line[11:].strip() for line in shown).count("one two three four five six seven eight nine ten") == 1


def test_a_text_without_quotes_gets_a_hint(work: Workdir) -> None:
    work.write("rows.jsonl", ROWS)
    ran = work.dream("view", "rows.jsonl", "--where", "risk_category = Privacy")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert ran.err.endswith("; write texts in single quotes: 'Privacy'\n")


def test_a_pipe_is_read_like_a_file(work: Workdir) -> None:
    in_every_format(work)
    piped = work.dream("view", "--json", stdin=(work.path / "rows.jsonl").read_bytes()).rows[0]
    assert piped == summary(work, "rows.jsonl") | {"file": "stdin"}
    assert work.dream("view", stdin="").out.strip() == "stdin: 0 rows"


def test_lines_that_are_no_records_are_errors_with_their_place(work: Workdir) -> None:
    (work.path / "bad.jsonl").write_bytes(b'{"prompt": "a"}\nnot json\n[1]\n"x"\n{"prompt": "\xff"}\n{"prompt": "cut')
    report = summary(work, "bad.jsonl")
    assert (report["rows"], report["errors"]) == (6, [{"stage": "read", "kind": "unreadable", "rows": 5, "first": 2}])
    (work.path / "bad.json").write_text('[{"prompt": "a"}, {"prompt": "b"}, {"pro')
    report = summary(work, "bad.json")
    assert (report["rows"], report["errors"][0]["kind"], report["errors"][0]["first"]) == (3, "unreadable", 3)


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
    report = summary(work, "in.parquet")
    assert (report["rows"], report["observed"]["found"], report["observed"]["not_looked"]) == (2, 1, 1)
    assert report["responses"] == 1
    assert {field["name"]: field["kinds"] for field in report["fields"]}["id"] == {"number": 2}


def test_images_in_columns_of_other_types(work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = (work.path / work.picture("a.png")).read_bytes()
    columns: dict[str, tuple[list[Any], tuple[int, int, int]]] = {
        "one": ([{"bytes": picture, "path": "a.png"}, None], (1, 1, 1)),
        "nameless": ([[{"bytes": picture}, {"bytes": picture}], None], (1, 2, 2)),
        "path": (["a.png", None], (1, 1, 0)),
        "paths": ([["a.png", "gone.png"], []], (1, 2, 0)),
    }
    for name, (values, counted) in columns.items():
        pq.write_table(pa.table({"prompt": ["a", "b"], "images": values, "image": values}), work.path / f"{name}.parquet")
        report = summary(work, f"{name}.parquet")
        assert (report["images"]["rows"], report["images"]["n"], report["images"]["embedded"]) == counted, name
        rows = {field["name"]: field["rows"] for field in report["fields"]}
        assert rows == {"prompt": 2} | dict.fromkeys(("images", "image"), 2 if name == "paths" else 1), name


def test_columns_are_known_by_their_names_and_not_by_their_order(work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    response = {"judgement": {"score": 0.25, "global_score": 2.5, "other": 1}, "note": "", "text": "I see."}
    pq.write_table(pa.table({"responses": [[response], None]}), work.path / "in.parquet")
    report = summary(work, "in.parquet")
    assert [(score["name"], score["mean"]) for score in report["scores"]] == [("global_score", 2.5), ("score", 0.25)]
    assert report["lengths"] == [{"name": "response", "n": 1, "low": 6, "median": 6, "high": 6, "longest": 6}]


def test_scores_outside_their_range_and_absent_ones(work: Workdir) -> None:
    scores: list[Any] = [-3, 0, 0.1, 0.7, 0.999, 1, 7, 1e39, None, "high"]
    work.write("rows.jsonl", [{"responses": [judged(score=score, harm=None) for score in scores]}])
    (score,) = summary(work, "rows.jsonl")["scores"]
    assert (score["name"], score["n"], score["low"], score["high"]) == ("score", 7, -3.0, 7.0)
    assert score["bins"] == [2, 1, 0, 0, 0, 0, 0, 1, 0, 3]


def test_images_of_any_kind_are_opened(work: Workdir) -> None:
    names = [work.picture(f"a.{kind}", 300) for kind in ("webp", "gif", "jpg", "bmp")]
    (work.path / "broken.webp").write_bytes(b"RIFF")
    work.write("rows.jsonl", [{"prompt": "x", "images": [*names, "broken.webp", "data:image/png;base64,aGk="]}])
    images = summary(work, "rows.jsonl")["images"]
    assert (images["n"], images["opened"], images["unreadable"], images["sides"]) == (6, 6, 2, {"to 512 px": 4})


@pytest.mark.parametrize("name", ["no[1].jsonl", "a*b?.jsonl", "it's.jsonl", "-dash.jsonl"])
def test_names_that_look_like_patterns(work: Workdir, name: str) -> None:
    work.write(name, ROWS)
    assert summary(work, f"./{name}")["rows"] == 4


def test_an_unreadable_file_is_an_error_of_one_line(work: Workdir) -> None:
    (work.path / "bad.parquet").write_bytes(b"PAR1 no")
    (work.path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 1000)[:40])
    for name in ("bad.parquet", "cut.jsonl.gz", "gone.jsonl"):
        ran = work.dream("view", name)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), (name, ran.err)
        assert name in ran.err


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(range % 7) FROM range(1000000000000)",
        "SELECT count(*) FROM range(1000000) AS a, range(1000000) AS b WHERE a.range * b.range % 7 = 3",
        # One call of one function: DuckDB itself does not hear before its end.
        "SELECT levenshtein(repeat('a', 400000), repeat('b', 400000))",
    ],
)
def test_an_interrupt_in_the_middle_of_a_query_ends_it(work: Workdir, sql: str) -> None:
    work.write("rows.jsonl", ROWS)
    scratch = work.path / "scratch"
    scratch.mkdir()
    command = work.command("view", "rows.jsonl", "--sql", sql)
    env = work.env | {"TMPDIR": str(scratch)}
    with subprocess.Popen(command, cwd=work.path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not any(scratch.iterdir()):
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err.count("\n")) == (130, "", 1), err
    assert "interrupted" in err
    assert not any(scratch.iterdir())


def test_without_duckdb_the_error_names_the_install_command(work: Workdir, tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text("raise ImportError")
    work.write("rows.jsonl", ROWS)
    work.env["PYTHONPATH"] = str(tmp_path)
    ran = work.dream("view", "rows.jsonl")
    assert ran.code == 2
    assert ran.err == (
        "dream: reading files in queries needs duckdb, which is not installed; install the extra 'view' in the checkout: "
        "pip install '.[view]' or pipx install --force '.[view]' or uv tool install --force '.[view]'\n"
    )


def shown(work: Workdir, *args: str) -> list[str]:
    """Return the ids of the records that are shown, through the JSON of them."""
    ran = work.dream("view", *args, "--json")
    assert ran.code == 0, ran.err
    return [row["id"] for row in ran.rows]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_records_are_chosen_by_any_match(work: Workdir, name: str) -> None:
    in_every_format(work)
    assert shown(work, name, "-n", "2") == ["a", "b"]
    assert shown(work, name, "--where", "risk_category = 'Privacy' and score < 0.5") == ["a"]
    assert shown(work, name, "--where", "risk_category = 'Violence'") == []
    assert shown(work, name, "--where", "unscored is not null or error.kind = 'engine' -- or so") == ["c", "d"]
    assert shown(work, name, "--where", "len(images) = 2 and topic = 'plants'") == ["b"]
    assert shown(work, name, "--id", "c") == ["c"]
    assert shown(work, name, "--sort", "-length(prompt)") == ["b", "a", "c", "d"]
    assert shown(work, name, "--sort", "score", "-n", "1", "--where", "score > 0.5") == ["a"]


def test_chosen_records_come_out_whole(work: Workdir) -> None:
    in_every_format(work)
    rows = work.dream("view", "rows.jsonl", "--where", "id <> 'b'", "--json").rows
    assert rows == [ROWS[0] | {"images": [str(work.path / "a.png")]}, ROWS[2], ROWS[3]]


def test_a_record_as_a_person_reads_it(work: Workdir) -> None:
    recognised = judged(global_score=8.0, recognised=[0.9, 0.1], score=0.8) | {"finish_reason": "length"}
    work.write("rows.jsonl", [ROWS[0] | {"images": [], "responses": [*ROWS[0]["responses"][1:], recognised], "note": "\x1b]0;x\x07"}])
    lines = [line.rstrip() for line in work.dream("view", "rows.jsonl", "-n", "1").out.splitlines()]
    assert lines[1:] == [
        "prompt     Whose is it?",
        "risk 1     Privacy, text in the image: an address",
        "risk 2     Privacy, Text Content: an address",
        "response   score 0.80 · global 8.0 · recognises 1 of 2 · by m · cut off",
        "           I see an address.",
        "response   score 0.20 · global 2.0 · by m",
        "           I see an address.",
        "note       ␛]0;x␇",
    ]


def test_sql_answers_questions_as_a_table_and_as_json(work: Workdir) -> None:
    in_every_format(work)
    question = "select source, count(*) as n from observations group by all order by source"
    assert work.dream("view", "rows.parquet", "--sql", question, "--json").rows == [
        {"source": "Text Content", "n": 1},
        {"source": "text in the image", "n": 1},
    ]
    lines = [line.split() for line in work.dream("view", "rows.parquet", "--sql", question).out.splitlines()]
    assert lines == [["source", "n"], ["Text", "Content", "1"], ["text", "in", "the", "image", "1"]]


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to 'out.csv'",
        "copy records to 'rows.jsonl'",
        "select 1; create table t as select 1",
        "attach 'other.db'",
        "set enable_external_access = true",
        "install httpfs",
        "select * from read_text('/etc/hostname')",
        "select * from read_csv('https://example.org/x.csv')",
        "selec 1",
        "select nothing from records",
    ],
)
def test_sql_that_writes_reaches_out_or_fails_is_refused_in_one_line(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n')
    with open_tables(str(path)) as tables:
        with pytest.raises(UsageError) as refused:
            show_query(tables, sql, True)
        with pytest.raises(UsageError) as refused_too:
            show(tables, Selection(where=f"true); {sql}"), None, True, None)
    assert "\n" not in str(refused.value) + str(refused_too.value)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == '{"prompt": "a"}\n'


def test_a_refusal_is_an_exit_code_of_two(work: Workdir) -> None:
    work.write("rows.jsonl", ROWS)
    ran = work.dream("view", "rows.jsonl", "--sql", "copy records to 'rows.jsonl'")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "dream: only one SELECT statement is run; dream view reads files and never writes them\n",
    )
    assert work.read("rows.jsonl") == ROWS


def test_a_conversation_counts_with_all_its_turns(work: Workdir) -> None:
    reply = {"role": "assistant", "content": "I see it.", "observations": [RISK], "judgement": {"score": 0.9}}
    messages = [{"role": "user", "content": "Look."}, reply, {"role": "user", "content": "And now?"}]
    work.write(
        "rows.jsonl", [{"id": "t", "messages": messages}, {"id": "p", "prompt": "x", "response": "y"}, {"id": "s", "responses": ["z"]}]
    )
    report = work.dream("view", "rows.jsonl", "--sql", "select id, text, score from responses order by n", "--json").rows
    assert report == [
        {"id": "t", "text": "I see it.", "score": 0.9},
        {"id": "p", "text": "y", "score": None},
        {"id": "s", "text": "z", "score": None},
    ]
    assert shown(work, "rows.jsonl", "--where", "source = 'text in the image' and score > 0.8 and prompt = 'And now?'") == ["t"]


def test_the_labels_of_a_record_share_one_column(work: Workdir) -> None:
    work.write("rows.jsonl", [{"id": "a", "prompt": "Hi", "source_folder": "x/y", "a_name_that_is_much_longer_than_others": "z"}])
    lines = work.dream("view", "rows.jsonl", "--id", "a").out.splitlines()
    assert lines[1:3] == ["prompt               Hi", "source_folder        x/y"]
    assert lines[3] == "a_name_that_is_much_ z"

"""dream why: the rows and the calls behind an id, on a real store filled through a real server."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.conftest import Workdir
from tests.loopback import Loopback


def test_a_pair_is_traced_to_its_calls(work: Workdir, server: Loopback) -> None:
    work.picture("a.png", 32)
    work.picture("b.png", 48)
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "What is in it?", "images": ["a.png"]},
        {"id": "b", "prompt": "And here?", "images": ["b.png"]},
    ]
    work.write("in.jsonl", rows)
    server_options = ("--base-url", server.url)
    assert work.dream("sample", "in.jsonl", *server_options, "-n", "2", "-o", "sampled.jsonl").code == 0
    server.reply = lambda body: "8" if "whole number" in json.dumps(body) else "Yes"
    work.dream("judge", "sampled.jsonl", *server_options, "-o", "judged.jsonl")
    sampled = work.read("sampled.jsonl")[0]
    work.write("pairs.jsonl", [sampled | {"id": "a#2", "responses": None, "chosen": sampled["responses"][0]["text"], "rejected": "n"}])
    ran = work.dream("why", "a", "pairs.jsonl", "judged.jsonl", "in.jsonl", "--json")
    assert (ran.code, ran.err) == (0, "")
    (trace,) = ran.rows
    assert [(row["file"], row["row"], row["link"]) for row in trace["rows"]] == [
        ("pairs.jsonl", 1, "id"),
        ("judged.jsonl", 1, "id"),
        ("in.jsonl", 1, "id"),
    ]
    made = [(call["stage"], call["verb"]) for call in trace["calls"]]
    assert made[:2] == [("sample", "generate")] * 2
    assert set(made[2:]) == {("judge", "choose")}
    # The other row's calls are not among them.
    assert len({call["key"] for call in trace["calls"]}) == len(trace["calls"])
    other = work.dream("why", "b", "judged.jsonl", "--json").rows[0]
    assert not {call["key"] for call in trace["calls"]} & {call["key"] for call in other["calls"]}
    person = work.dream("why", "a", "pairs.jsonl", "judged.jsonl").out
    assert "pairs.jsonl, same id" in person
    assert "sample generate, loopback, " in person


def test_another_file_is_joined_by_prompt_and_by_image(work: Workdir) -> None:
    work.picture("a.png", 32)
    work.write("eval.jsonl", [{"id": "siuo:1", "prompt": "What is it?", "images": ["a.png"]}])
    train: list[dict[str, Any]] = [
        {"id": "x", "prompt": "What is it?"},
        {"id": "y", "prompt": "Other.", "images": ["a.png"]},
        {"id": "z", "prompt": "Third."},
    ]
    work.write("train.jsonl", train)
    trace = work.dream("why", "siuo:1", "eval.jsonl", "train.jsonl", "--json").rows[0]
    assert [(row["record"]["id"], row["link"]) for row in trace["rows"]] == [("siuo:1", "id"), ("x", "prompt"), ("y", "image")]
    assert trace["calls"] == []


def test_one_prompt_about_many_pictures_links_no_other_picture(work: Workdir, server: Loopback) -> None:
    (work.path / "img").mkdir()
    for side in (32, 48, 64):
        work.picture(f"img/{side}.png", side)
    assert work.dream("convert", "img/", "--prompt", "What is in this picture?", "-o", "in.jsonl").code == 0
    work.dream("sample", "in.jsonl", "--base-url", server.url, "-o", "out.jsonl")
    traces = [work.dream("why", f"{side}.png", "in.jsonl", "out.jsonl", "--json").rows[0] for side in (32, 48, 64)]
    assert [[(row["file"], row["row"], row["link"]) for row in trace["rows"]] for trace in traces] == [
        [("in.jsonl", n, "id"), ("out.jsonl", n, "id")] for n in (1, 2, 3)
    ]
    assert [len(trace["calls"]) for trace in traces] == [1, 1, 1]
    assert len({trace["calls"][0]["key"] for trace in traces}) == 3


def test_an_unknown_id_and_a_file_that_is_not_a_store(work: Workdir) -> None:
    work.write("rows.jsonl", [{"id": "a", "prompt": "x"}])
    ran = work.dream("why", "b", "rows.jsonl")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("dream: no row of rows.jsonl has the id 'b'")
    (work.path / "store").write_text("no database")
    ran = work.dream("why", "a", "rows.jsonl", "--store", "store")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert json.loads(work.dream("why", "a", "rows.jsonl", "--json").out)["calls"] == []


OLD = """CREATE TABLE calls (
    key TEXT PRIMARY KEY, verb TEXT NOT NULL, model TEXT NOT NULL, created_at TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL
)"""


def old_store(path: Path, *texts: str) -> None:
    """Write a store as it was before it knew the stage of a call."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(OLD)
        for n, text in enumerate(texts):
            request = json.dumps({"verb": "generate", "messages": [{"role": "user", "text": text, "images": []}]})
            database.execute("INSERT INTO calls VALUES (?, 'generate', 'm', '2025', ?, ?)", (f"key{n}", request, '{"text": "An answer."}'))


def test_a_call_of_an_older_store_is_shown_with_its_verb(work: Workdir, server: Loopback) -> None:
    work.write("rows.jsonl", [{"id": "a", "prompt": 'What is "it"?'}])
    store = work.path / "old.sqlite"
    old_store(store, 'What is "it"?', "Another.")
    store.chmod(0o400)
    before = store.read_bytes()
    why = ("why", "a", "rows.jsonl", "--store", "old.sqlite")
    (call,) = work.dream(*why, "--json").rows[0]["calls"]
    assert (call["key"], call["verb"], call["stage"]) == ("key0", "generate", "")
    assert "2025 generate, m, key0" in work.dream(*why).out
    assert store.read_bytes() == before

    store.chmod(0o600)
    assert work.dream("sample", "rows.jsonl", "--base-url", server.url, "--store", "old.sqlite").code == 0
    calls = work.dream(*why, "--json").rows[0]["calls"]
    assert [(call["stage"], call["verb"]) for call in calls] == [("", "generate"), ("sample", "generate")]


def test_rows_that_share_a_call_both_find_it(work: Workdir, server: Loopback) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "What is it?"},
        {"id": "b", "prompt": "What is it?"},
        {"id": "c", "prompt": "Other."},
    ]
    work.write("rows.jsonl", rows)
    work.dream("sample", "rows.jsonl", "--base-url", server.url, "-o", "out.jsonl")
    keys = [[call["key"] for call in work.dream("why", name, "out.jsonl", "--json").rows[0]["calls"]] for name in "abc"]
    assert keys[0] == keys[1]
    assert [len(results) for results in keys] == [1, 1, 1]
    assert keys[2] != keys[0]

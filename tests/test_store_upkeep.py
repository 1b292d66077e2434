"""dream store: what it shows, deletes, exports and imports."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dream_cli.engines.protocol import Purpose
from dream_cli.engines.store import CallStore, call_key, calls_about, subject_of
from tests.conftest import Workdir

Made = list[tuple[str, str, int]]  # stage, model, age in days


def store_of(path: Path, made: Made) -> list[str]:
    """Make a store with these calls about the prompts "0", "1", ...; return their keys."""
    store, keys = CallStore(path), []
    for n, (stage, model, _) in enumerate(made):
        request = {"version": 1, "messages": [{"role": "user", "text": f"{n} é", "images": []}], "sampling": {"temperature": 1.0}}
        keys.append(call_key(request))
        store.put("generate", model, [(keys[-1], request, {"text": "w" * 5000, "finish_reason": "stop"})], Purpose(stage, (str(n),)))
    store.close()
    with closing(sqlite3.connect(path)) as database, database:
        for key, (*_, age) in zip(keys, made, strict=True):
            day = (datetime.now(UTC) - timedelta(days=age)).isoformat(timespec="seconds")
            database.execute("UPDATE calls SET created_at = ? WHERE key = ?", (day, key))
    return keys


@pytest.fixture
def made(work: Workdir) -> list[str]:
    return store_of(work.path / "calls.sqlite", [("judge", "a", 40), ("judge", "b", 1), ("sample", "a", 40), ("", "a", 0)])


def left(work: Workdir, store: str = "calls.sqlite") -> set[str]:
    """Return the prompts of the calls that a store holds, each found by its subject."""
    return {name for name in "0123" for _ in calls_about(work.path / store, [subject_of(name)], [f'"{name} '])}


def test_path_and_info(work: Workdir, made: list[str]) -> None:
    path = str(work.path / "calls.sqlite")
    assert work.dream("store", "path").out == f"{path}\n"
    info = json.loads(work.dream("store", "info", "--json").out)
    assert (info["path"], info["calls"]) == (path, 4)
    assert [(group["stage"], group["model"], group["calls"]) for group in info["by_stage"]] == [
        (None, "a", 1),
        ("judge", "a", 1),
        ("judge", "b", 1),
        ("sample", "a", 1),
    ]
    assert info["oldest"] < info["newest"]
    text = work.dream("store", "info", "--stage", "judge").out
    assert text.startswith(f"{path}\n2 calls, 0.") and "  judge, b: 1\n" in text and "sample" not in text


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--stage", "judge"], "23"),
        (["--model", "a"], "1"),
        (["--older-than", "30d"], "13"),
        (["--older-than", "4w", "--stage", "sample"], "013"),
        (["--older-than", "48h"], "13"),
        (["--stage", "nothing"], "0123"),
    ],
)
def test_prune_deletes_what_is_selected_and_keeps_the_subjects_of_the_rest(
    work: Workdir, made: list[str], options: list[str], kept: str
) -> None:
    before = (work.path / "calls.sqlite").stat().st_size
    ran = work.dream("store", "prune", *options)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith(f"dream store: {4 - len(kept)} of 4 calls deleted, 0.")
    assert left(work) == set(kept)
    assert ((work.path / "calls.sqlite").stat().st_size < before) == (len(kept) < 4)
    with closing(sqlite3.connect(work.path / "calls.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM subjects").fetchone() == (len(kept),)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_export_and_import_give_the_same_store(work: Workdir, made: list[str]) -> None:
    assert work.dream("store", "export", "-o", "calls.jsonl").err == "dream store: 4 calls exported\n"
    assert [row["key"] for row in work.read("calls.jsonl")] == [made[0], made[2], made[1], made[3]]
    for new in (4, 0):
        ran = work.dream("store", "import", "calls.jsonl", "--store", "other.sqlite")
        assert (ran.code, ran.err) == (0, f"dream store: {new} {'call is' if new == 1 else 'calls are'} new, {4 - new} known already\n")
    assert left(work, "other.sqlite") == set("0123")
    again = work.dream("store", "export", "--store", "other.sqlite", "-q")
    assert (again.err, again.out) == ("", (work.path / "calls.jsonl").read_text())
    part = work.dream("store", "export", "--stage", "judge", "--older-than", "30d")
    assert [row["key"] for row in part.rows] == made[:1]


def test_imported_calls_are_not_made_again(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Is this sign safe?"}])
    first = work.dream("sample", "in.jsonl", "-v")
    work.dream("store", "export", "-o", "calls.jsonl")
    work.env["DREAM_STORE"] = str(work.path / "other.sqlite")
    work.dream("store", "import", stdin=(work.path / "calls.jsonl").read_bytes())
    again = work.dream("sample", "in.jsonl", "-v")
    assert ("1 call made" in first.err, "0 calls made, 1 answered from the store" in again.err, again.out == first.out) == (
        True,
        True,
        True,
    )


def test_what_is_no_call_is_counted_and_left_out(work: Workdir, made: list[str]) -> None:
    lines = work.dream("store", "export", "-q").out.splitlines()
    other = json.loads(lines[0]) | {"key": made[1]}
    odd = json.loads(lines[2]) | {"stage": 7}
    ran = work.dream(
        "store", "import", "--store", "new.sqlite", stdin="\n".join([lines[0], "no JSON", json.dumps(other), json.dumps(odd), "[1]"])
    )
    assert ran.code == 1
    assert ran.err.startswith(
        "dream store: 1 call is new, 0 known already, 4 lines skipped as not a call; the first: line 2: Expecting value"
    )


def test_damaged_calls_are_not_exported(work: Workdir, made: list[str]) -> None:
    with closing(sqlite3.connect(work.path / "calls.sqlite")) as database, database:
        database.execute("UPDATE calls SET reply = 'not JSON' WHERE key = ?", made[:1])
    ran = work.dream("store", "export")
    assert (ran.code, len(ran.rows), ran.err) == (1, 3, "dream store: 3 calls exported, 1 damaged call left out\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["prune"], "name the calls to delete"),
        (["prune", "--older-than", "soon"], "'soon' is not an age"),
        (["info", "x.jsonl"], "FILE is for import"),
        (["import", "-o", "x"], "--out is for export"),
        (["path", "--stage", "judge"], "path takes none of them"),
        (["info", "--store", "none.sqlite"], "there is no call store at none.sqlite yet"),
        (["export", "-o", "no/such/folder/x"], "cannot write no/such/folder/x"),
        (["import", "none.jsonl"], "none.jsonl does not exist"),
        (["clean"], "clean"),
    ],
)
def test_wrong_usage(work: Workdir, made: list[str], line: list[str], words: str) -> None:
    ran = work.dream("store", *line)
    assert (ran.code, words in ran.err, "Traceback" in ran.err) == (2, True, False), ran.err
    assert left(work) == set("0123")


def test_a_store_of_an_older_version_is_shown_exported_and_pruned(work: Workdir) -> None:
    with closing(sqlite3.connect(work.path / "calls.sqlite")) as database, database:
        database.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, verb TEXT, model TEXT, created_at TEXT, request TEXT, reply TEXT)")
        database.execute("""INSERT INTO calls VALUES ('k', 'choose', 'm', '2025', '{"messages": []}', '{"text": "paid"}')""")
    assert json.loads(work.dream("store", "info", "--json").out)["by_stage"] == [{"stage": None, "model": "m", "calls": 1}]
    (row,) = work.dream("store", "export", "-q").rows
    assert (row["key"], row["stage"], row["subjects"], row["reply"]) == ("k", "", [""], {"text": "paid"})
    assert work.dream("store", "prune", "--model", "m").err.startswith("dream store: 1 of 1 call deleted")

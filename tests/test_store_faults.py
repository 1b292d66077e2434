"""A store that is damaged, read-only, full, locked, newer or closed costs no reply."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dream_cli.engines.protocol import Choice
from dream_cli.engines.store import CallStore
from dream_cli.engines.stored_engine import StoredEngine
from tests.counting import DRAWN, Counting, ask, draw, drawn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "calls.sqlite"


@pytest.mark.parametrize("reply", ["not json", '{"nope": 1}', "[1]", '{"text": 5, "finish_reason": "stop"}', "[" * 100_000, "7"])
def test_a_damaged_reply_is_requested_again_and_replaced(path: Path, reply: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(drawn(path, Counting(), 0))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE calls SET reply = ?", (reply,))
    for calls in ([[0], "closed"], ["closed"]):
        inner = Counting()
        assert asyncio.run(drawn(path, inner, 0)) == ["hello 0"]
        assert inner.calls == calls
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "reply", ['{"probabilities": {"Yes": "a"}, "covered": 1, "text": ""}', '{"probabilities": [1], "covered": 1, "text": ""}']
)
def test_a_damaged_choice_is_requested_again(path: Path, reply: str) -> None:
    async def choose(inner: Counting) -> Choice:
        engine = StoredEngine(inner, CallStore(path))
        choice = await engine.choose(ask(), ["Yes", "No"])
        await engine.close()
        return choice

    asyncio.run(choose(Counting()))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE calls SET reply = ?", (reply,))
    assert asyncio.run(choose(Counting())).probabilities == {"Yes": 0.5, "No": 0.5}


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no store be opened for writing."""
    real = os.open

    def refuse(name: Any, flags: int, *rest: Any) -> int:
        if str(name).endswith("calls.sqlite"):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(name, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)


def test_a_read_only_store_still_answers(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(drawn(path, Counting(), 0))
    read_only(monkeypatch)
    inner = Counting()
    assert asyncio.run(drawn(path, inner, 0, 1)) == ["hello 0", "hello 1"]
    assert inner.calls == [[1], "closed"]
    assert capsys.readouterr().err == (
        f"dream: the call store at {path} cannot be written: [Errno 30] Read-only file system; "
        "what it holds is used, and calls that are not kept are made again by a rerun\n"
    )


def test_without_a_usable_store_the_run_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    read_only(monkeypatch)
    inner = Counting()

    async def run() -> None:
        engine = StoredEngine(inner, CallStore(path))
        assert await draw(engine, ask(), 0) == await draw(engine, ask(), 0) == ["hello 0"]
        engine.forget(ask(), DRAWN)
        assert engine.usage.unkept == 2
        await engine.close()

    asyncio.run(run())
    assert inner.calls == [[0], [0], "closed"]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_store_of_a_newer_version_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CallStore(path).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE calls ADD COLUMN extra TEXT")
    before = path.read_bytes()
    inner = Counting()
    assert asyncio.run(drawn(path, inner, 0)) == ["hello 0"]
    assert "was made by a newer version of dream" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_full_or_locked_store_costs_no_reply_and_is_reported_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dream_cli.engines.store.BUSY", 0.2)

    async def run() -> None:
        inner = Counting()
        engine = StoredEngine(inner, CallStore(path))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert await draw(engine, ask(), 0) == ["hello 0"]
            assert await draw(engine, ask("more"), 0) == ["more 0"]
            assert engine.usage.unkept == 2
        # Free again: what comes now is kept.
        assert await draw(engine, ask(), 0) == ["hello 0"]
        assert engine.usage.unkept == 2
        assert await draw(engine, ask(), 0) == ["hello 0"]
        assert len(inner.calls) == 3
        await engine.close()

    asyncio.run(run())
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"dream: the call store at {path} cannot be written: database is locked; calls that are not kept are made again by a rerun"
    ]


def test_a_disk_that_fills_up_costs_no_reply(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        store = CallStore(path)
        engine = StoredEngine(Counting(), store)
        assert store._db is not None
        store._db.execute("PRAGMA max_page_count = 12")
        for i in range(40):
            assert await draw(engine, ask(f"{i} " + "w" * 3000), 0) == [f"{i} " + "w" * 3000 + " 0"]
        assert 0 < engine.usage.unkept < 40
        await engine.close()

    asyncio.run(run())
    assert capsys.readouterr().err.count("database or disk is full") == 1


def test_a_closed_store_keeps_nothing_and_raises_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = CallStore(path)
    claimed = store.claim(["k"])
    store.close()
    store.release(claimed)
    store.put("generate", "m", [("k", {}, {"text": "late"})])
    assert (store.get("k"), store.unkept, capsys.readouterr().err) == (None, 1, "")

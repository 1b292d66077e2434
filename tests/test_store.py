"""The store: a finished call is never paid for again, and nothing else is taken for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dream_cli.engines.protocol import PURPOSE, ChatMessage, Choice, Completion, Purpose, Sampling
from dream_cli.engines.store import LEASE, CallStore, call_key, calls_about, default_store, subject_of, subject_of_image
from dream_cli.engines.stored_engine import StoredEngine
from dream_cli.errors import EngineError, UsageError
from dream_cli.records.access import Access
from dream_cli.records.record import Image
from tests.counting import DRAWN, Counting, ask, draw, drawn
from tests.pictures import picture

ANY = ['"messages"']  # occurs in every request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "calls.sqlite"


def test_one_more_sample_is_one_more_call(path: Path) -> None:
    async def run() -> None:
        inner = Counting()
        engine = StoredEngine(inner, CallStore(path))
        assert await draw(engine, ask(), 0, 1) == ["hello 0", "hello 1"]
        assert await draw(engine, ask(), 0, 1, 2) == ["hello 0", "hello 1", "hello 2"]
        assert inner.calls == [[0, 1], [2]]
        assert (engine.usage.calls, engine.usage.reused) == (3, 2)
        await engine.close()

    asyncio.run(run())


def test_a_new_process_pays_nothing(path: Path) -> None:
    async def run(inner: Counting) -> tuple[list[Completion], Choice]:
        engine = StoredEngine(inner, CallStore(path))
        results = await engine.generate(ask(), DRAWN, [0]), await engine.choose(ask(), ["Yes", "No"])
        await engine.close()
        return results

    first, again = Counting(), Counting()
    assert asyncio.run(run(first)) == asyncio.run(run(again))
    assert first.calls == [[0], ["Yes", "No"], "closed"]
    assert again.calls == ["closed"]


def test_whatever_changes_the_answer_is_a_new_call(path: Path) -> None:
    async def run() -> None:
        store, inner, other = CallStore(path), Counting(), Counting("b")
        engine = StoredEngine(inner, store)
        await engine.generate(ask(), DRAWN, [0])
        await engine.generate(ask("hello!"), DRAWN, [0])
        await engine.generate([ChatMessage("system", "hello")], DRAWN, [0])
        await engine.generate(ask("hello", Image(data=b"1")), DRAWN, [0])
        await engine.generate(ask("hello", Image(data=b"2")), DRAWN, [0])
        await engine.generate(ask(), Sampling(temperature=1.0, seed=1), [0])
        await engine.generate(ask(), Sampling(temperature=1.0, schema={"type": "object"}), [0])
        await engine.choose(ask(), ["Yes", "No"])
        await engine.choose(ask(), ["Yes", "No", "Maybe"])
        await StoredEngine(other, store).generate(ask(), DRAWN, [0])
        assert (len(inner.calls), len(other.calls), engine.usage.reused) == (9, 1, 0)
        await engine.close()

    asyncio.run(run())


def test_a_large_image_at_its_full_size_is_a_new_call(path: Path) -> None:
    async def run() -> None:
        inner, large = Counting(), picture("red", (4100, 4000)).data
        engine = StoredEngine(inner, CallStore(path))
        for limit in (None, 16_400_000, 20_000_000):
            await engine.generate(ask("hello", Image(data=large, access=Access(max_pixels=limit))), DRAWN, [0])
        assert len(inner.calls) == 2
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize(("answers", "is_kept"), [(("Yes", "No"), True), (("A", "B"), True), (("0", "1", "10"), False)])
def test_choices_that_were_read_in_an_older_way_do_not_answer(path: Path, answers: tuple[str, ...], is_kept: bool) -> None:
    messages = [{"role": "user", "text": "hello", "images": []}]
    request = {"version": 1, "verb": "choose", "engine": Counting().fingerprint, "messages": messages, "answers": list(answers)}
    reply = {"probabilities": dict.fromkeys(answers, 0.5), "covered": 1.0, "text": answers[0]}
    store = CallStore(path)
    store.put("choose", "counting", calls=[(call_key(request), request, reply)])
    inner = Counting()
    engine = StoredEngine(inner, store)
    asyncio.run(engine.choose(ask(), answers))
    asyncio.run(engine.choose(ask(), answers))
    assert inner.calls == ([] if is_kept else [list(answers)])
    asyncio.run(engine.close())


def test_the_same_bytes_at_another_path_are_a_hit(path: Path) -> None:
    async def run() -> None:
        engine = StoredEngine(Counting(), CallStore(path))
        await draw(engine, ask("hello", Image("a.png", b"1")), 0)
        await draw(engine, ask("hello", Image("b/c.png", b"1")), 0)
        assert (engine.usage.calls, engine.usage.reused) == (1, 1)
        await engine.close()

    asyncio.run(run())


def test_identical_requests_in_flight_are_asked_once(path: Path) -> None:
    async def run() -> None:
        inner = Counting()
        inner.latency = 0.02
        engine = StoredEngine(inner, CallStore(path))
        results = await asyncio.gather(*(draw(engine, ask(), *samples) for samples in [(0, 1), (1, 0), (0,), (1, 2)]))
        assert results == [["hello 0", "hello 1"], ["hello 1", "hello 0"], ["hello 0"], ["hello 1", "hello 2"]]
        assert inner.calls == [[0, 1], [2]]
        await engine.close()

    asyncio.run(run())


def test_errors_are_not_kept_and_the_next_one_asks(path: Path) -> None:
    async def run() -> None:
        inner = Counting()
        engine = StoredEngine(inner, CallStore(path))
        inner.broken = True
        with pytest.raises(EngineError):
            await draw(engine, ask(), 0)
        inner.broken, inner.latency = False, 0.05
        cancelled = asyncio.create_task(draw(engine, ask(), 0))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(draw(engine, ask(), 0))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        assert await waiting == ["hello 0"]
        assert len(inner.calls) == 3
        await engine.close()

    asyncio.run(run())


def test_a_call_can_be_looked_up_without_its_image_bytes(path: Path) -> None:
    async def run() -> None:
        engine = StoredEngine(Counting(), CallStore(path))
        await draw(engine, ask("hello", Image("a.png", b"pixels")), 0)
        await engine.close()

    asyncio.run(run())
    database = sqlite3.connect(path)
    ((verb, model, created, request, reply),) = database.execute("SELECT verb, model, created_at, request, reply FROM calls")
    database.close()
    assert (verb, model, created[:2]) == ("generate", "counting", "20")
    assert json.loads(request)["messages"][0]["text"] == "hello"
    assert "pixels" not in request
    assert json.loads(reply)["text"] == "hello 0"


def test_the_stage_and_the_subjects_of_a_call_are_kept_and_its_key_does_not_depend_on_them(path: Path) -> None:
    async def run() -> None:
        engine = StoredEngine(Counting(), CallStore(path))
        chat = ask("Is hello a greeting?", Image(data=b"pixels"))
        PURPOSE.set(Purpose("judge", ("hello",)))
        await engine.choose(chat, ["Yes", "No"])
        PURPOSE.set(Purpose("eval", ("other",)))
        await engine.choose(chat, ["Yes", "No"])
        await draw(engine, ask("other"), 0)
        assert engine.usage.reused == 1
        await engine.close()

    asyncio.run(run())

    def stages(subject: str) -> list[tuple[str, str]]:
        return [(call.stage, call.verb) for call in calls_about(path, [subject], ANY)]

    assert stages(subject_of("hello")) == [("judge", "choose")]
    assert stages(subject_of_image(hashlib.sha256(b"pixels").hexdigest())) == [("judge", "choose")]
    assert stages(subject_of("other")) == [("eval", "generate")]
    assert stages(subject_of("nothing")) == []
    assert not list(calls_about(path, [subject_of("hello")], ["absent"]))
    assert not list(calls_about(path, [subject_of("hello")], []))


def test_a_call_outside_of_a_run_is_about_anything(path: Path) -> None:
    async def run() -> None:
        engine = StoredEngine(Counting(), CallStore(path))
        await draw(engine, ask(), 0)
        await engine.close()

    asyncio.run(run())
    assert [call.stage for call in calls_about(path, [], ANY)] == [""]


def test_an_older_store_is_migrated_once_and_keeps_its_replies(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            """CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, verb TEXT NOT NULL, model TEXT NOT NULL, created_at TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL
)"""
        )
        database.execute("""INSERT INTO calls VALUES ('k', 'choose', 'm', '2025', '{"messages": []}', '{"text": "paid"}')""")
    assert [(call.key, call.stage) for call in calls_about(path, [], ANY)] == [("k", "")]
    for _ in range(2):
        store = CallStore(path)
        assert store.get("k") == {"text": "paid"}
        store.put("choose", "m", [("new", {"messages": []}, {"text": "x"})], Purpose("judge", ("p",)))
        store.close()
        assert [(call.key, call.stage) for call in calls_about(path, [subject_of("p")], ANY)] == [("k", ""), ("new", "judge")]


def test_a_new_store_is_for_its_owner_alone(path: Path) -> None:
    store = CallStore(path)
    store.put("generate", "m", [("key", {}, {"text": "paid"})])
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "calls.sqlite": 0o600,
        "calls.sqlite-wal": 0o600,
        "calls.sqlite-shm": 0o600,
    }
    store.close()


def test_an_image_without_bytes_is_an_error(path: Path) -> None:
    engine = StoredEngine(Counting(), CallStore(path))
    with pytest.raises(EngineError, match=r"a\.png"):
        asyncio.run(draw(engine, ask("hello", Image("a.png")), 0))
    asyncio.run(engine.close())


def test_two_processes_write_at_once(path: Path) -> None:
    script = """
import sys
from pathlib import Path
from dream_cli.engines.store import CallStore
store = CallStore(Path(sys.argv[1]))
for i in range(200):
    store.put("generate", "m", [(f"{sys.argv[2]} {i}", {}, {"i": i}), (f"both {i}", {}, {"i": i})])
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), name], cwd=Path(__file__).parent.parent) for name in "ab"]
    assert [process.wait(30) for process in processes] == [0, 0]
    store = CallStore(path)
    assert all(store.get(f"{name} {i}") == {"i": i} for name in ("a", "b", "both") for i in range(200))
    store.close()


def test_a_killed_process_loses_no_finished_call(path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from dream_cli.engines.store import CallStore
CallStore(Path(sys.argv[1])).put("generate", "m", [("key", {}, {"text": "paid"})])
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=Path(__file__).parent.parent)
    assert process.wait(30) == -9
    store = CallStore(path)
    assert store.get("key") == {"text": "paid"}
    store.close()


def test_a_path_that_is_no_store_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is not a database, but it is long enough to be looked at " * 20)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE calls (name TEXT)")
    other.close()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "text", tmp_path / "text" / "below", tmp_path / "other", tmp_path / "pipe"):
        with pytest.raises(UsageError, match="call store"):
            CallStore(path)
    assert (tmp_path / "text").read_text().startswith("this is not")


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("DREAM_STORE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_store() == Path("/home/me/.cache/dream/calls.sqlite")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_store() == Path("/cache/dream/calls.sqlite")
    monkeypatch.setenv("DREAM_STORE", "/here.sqlite")
    assert default_store() == Path("/here.sqlite")


def test_two_stores_make_one_call(path: Path) -> None:
    async def run() -> None:
        first, second = Counting(), Counting()
        first.latency = second.latency = 0.2
        calls = (drawn(path, inner, *samples) for inner, samples in ((first, [0, 1]), (second, [1, 2])))
        assert await asyncio.gather(*calls) == [["hello 0", "hello 1"], ["hello 1", "hello 2"]]
        assert [first.calls, second.calls] == [[[0, 1], "closed"], [[2], "closed"]]

    asyncio.run(run())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_a_reply_that_another_process_stored_while_this_one_waited_for_a_slot_is_used(path: Path) -> None:
    async def run() -> None:
        inner, elsewhere = Counting(), Counting()
        inner.concurrency, inner.latency = 1, 0.2
        engine = StoredEngine(inner, CallStore(path))
        first = asyncio.create_task(draw(engine, ask("first"), 0))
        await asyncio.sleep(0.05)
        waits = asyncio.create_task(draw(engine, ask(), 0))  # has looked for its reply, and waits for the only slot
        await asyncio.sleep(0.05)
        assert await drawn(path, elsewhere, 0) == ["hello 0"]
        assert (await first, await waits) == (["first 0"], ["hello 0"])
        assert (inner.calls, engine.usage.reused) == ([[0]], 1)
        await engine.close()

    asyncio.run(run())


def test_a_call_that_fails_elsewhere_is_made_here(path: Path) -> None:
    async def run() -> None:
        first, second = Counting(), Counting()
        first.latency, first.broken = 0.2, True
        failed = asyncio.create_task(drawn(path, first, 0))
        await asyncio.sleep(0.05)
        assert await drawn(path, second, 0) == ["hello 0"]
        with pytest.raises(EngineError):
            await failed

    asyncio.run(run())


def test_the_first_reply_stays_and_both_get_it(path: Path) -> None:
    one, other = CallStore(path), CallStore(path)
    assert one.put("generate", "m", [("k", {}, {"text": "first"})]) == {}
    assert other.put("generate", "m", [("k", {}, {"text": "second"}), ("l", {}, {"text": "new"})]) == {"k": {"text": "first"}}
    assert (other.get("k"), other.get("l")) == ({"text": "first"}, {"text": "new"})
    one.close()
    other.close()


def test_the_claim_of_a_dead_process_or_of_an_ended_lease_counts_no_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from dream_cli.engines.store import CallStore
assert CallStore(Path(sys.argv[1])).claim(["a", "b"]) == {"a", "b"}
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False, cwd=Path(__file__).parent.parent).returncode == -9
    store = CallStore(path)
    assert store.claim(["a"]) == {"a"}
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE claims SET host = 'elsewhere'")
    assert store.claim(["a", "b", "c"]) == {"c"}
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + LEASE + 1)
    assert store.claim(["a", "b", "c"]) == {"a", "b", "c"}
    store.close()

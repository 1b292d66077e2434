"""The circuit breaker: when a run stops, when it does not, and what is left behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from dream_cli.engines import breaker, openai_attempt
from dream_cli.engines.breaker import FINAL, IN_A_ROW, BreakingEngine, Outage, Streak
from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, Sampling
from dream_cli.engines.usage import Usage
from dream_cli.errors import EngineError, NoAnswer, RowError, RunFailure, UnreadableAnswer
from tests.conftest import Workdir
from tests.loopback import Fault, Loopback, using

CHAT = [ChatMessage("user", "What is unsafe here?")]
DOWN = EngineError("http://host/v1: 500: boom (5 times)")
TOO_LONG = EngineError("the prompt is 9000 tokens long", of_input=True)


def failures(streak: Streak, error: Exception, most: int = 100) -> int:
    """Return the number of calls that fail before the run stops; `most` where it does not."""
    for n in range(1, most + 1):
        try:
            streak.failure(error)
        except RunFailure:
            return n
    return most


def test_twenty_calls_in_a_row_stop_the_run_with_the_first_error() -> None:
    streak = Streak()
    streak.failure(DOWN)
    with pytest.raises(RunFailure, match=r"^http://host/v1: 500: boom \(5 times\); 20 calls in a row failed$"):
        for _ in range(IN_A_ROW - 1):
            streak.failure(EngineError("another"))


def test_one_success_begins_a_new_streak() -> None:
    streak = Streak()
    for _ in range(50):
        assert failures(streak, DOWN, IN_A_ROW - 1) == IN_A_ROW - 1
        streak.success()
    assert failures(streak, DOWN) == IN_A_ROW


def test_refused_inputs_stop_a_run_only_before_the_first_answer() -> None:
    assert failures(Streak(), TOO_LONG) == IN_A_ROW
    streak = Streak()
    streak.success()
    assert failures(streak, TOO_LONG) == 100
    # They are no answers either: a server that is down between them is still down.
    assert failures(streak, DOWN, IN_A_ROW - 1) == IN_A_ROW - 1
    streak.failure(TOO_LONG)
    assert failures(streak, DOWN) == 1


def test_an_exception_of_an_engine_counts_as_a_failure() -> None:
    streak = Streak()
    with pytest.raises(RunFailure, match=r"^RuntimeError: CUDA error: device-side assert triggered; 20 calls"):
        for _ in range(IN_A_ROW):
            streak.failure(RuntimeError("CUDA error: device-side assert triggered"))


def test_an_outage_lasts_from_its_first_request_until_an_answer() -> None:
    outage = Outage(timeout=120.0)
    assert outage.left(1000.0) == float("inf")
    outage.failure(100.0, "429: slow down")
    outage.failure(180.0, "500: boom")
    assert (outage.first, outage.patience) == ("429: slow down", 140.0)
    assert outage.left(180.0) == 60.0
    outage.success()
    assert outage.left(180.0) == float("inf")
    outage.failure(200.0, "500: boom")
    assert outage.left(340.0) == 0.0


def test_an_outage_does_not_last_while_no_request_is_in_flight() -> None:
    outage = Outage(timeout=120.0)
    outage.failure(100.0, "500: boom")
    outage.pause(110.0)
    assert outage.left(900.0) == float("inf")
    outage.resume(900.0)
    assert outage.left(900.0) == 130.0
    outage.failure(1000.0, "500: boom")
    assert outage.left(1030.0) == 0.0


def test_a_run_that_passes_over_finished_rows_after_a_failure_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "SILENCE", 2.0)
    monkeypatch.setattr(openai_attempt, "BACKOFF", 0.001)

    async def failure_and_pause(engine: Engine) -> str:
        with pytest.raises(EngineError, match="500"):
            await engine.generate(CHAT, Sampling(), [0])
        await asyncio.sleep(2.5)
        return (await engine.generate(CHAT, Sampling(), [0]))[0].text

    with Loopback(faults=[500] * 5, reply=lambda body: "An answer.") as server:
        assert using(server, failure_and_pause, timeout=1.0) == "An answer."


def test_the_end_of_an_outage_waits_for_a_long_time_limit_and_a_named_wait() -> None:
    assert Outage(timeout=600.0).patience == 690.0
    outage = Outage(timeout=1.0)
    outage.failure(0.0, "429", wait=240.0)
    outage.failure(1.0, "429", wait=5.0)
    assert outage.patience == 480.0
    outage.success()
    assert outage.patience == 140.0


def test_three_refusals_of_the_account_in_a_row_are_final() -> None:
    outage = Outage(timeout=1.0)
    assert [outage.refused() for _ in range(FINAL)] == [False, False, True]
    outage.success()
    assert not outage.refused()


class Scripted(Engine):
    """An engine that raises what stands in its script, and answers where there is nothing."""

    kind = model = fingerprint = "scripted"
    concurrency = 1

    def __init__(self, *script: Exception | None) -> None:
        self.usage, self.script = Usage(), list(script)

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        if self.script and (error := self.script.pop(0)) is not None:
            raise error
        return [Completion("yes", "stop") for _ in samples]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        await self.generate(chat, Sampling(), [0])
        return Choice(None, 0.0, answers[0])

    async def close(self) -> None:
        return


@pytest.mark.parametrize("answer", [None, NoAnswer("filtered", "held back"), UnreadableAnswer("declines")])
def test_a_reply_of_any_kind_is_an_answer(answer: Exception | None) -> None:
    script = [*[DOWN] * 19, answer] * 3

    async def work() -> list[str]:
        engine, kinds = BreakingEngine(Scripted(*script)), []
        for n in range(len(script)):
            verb: Any = engine.generate(CHAT, Sampling(), [0]) if n % 2 else engine.choose_many([(CHAT, ["Yes", "No"])])
            try:
                await verb
            except RowError as error:
                kinds.append(error.kind)
        return kinds

    assert len(asyncio.run(work())) == 60 - 3 * (answer is None)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_attempt, "BACKOFF", 0.001)


def results(server: Loopback, rows: int, **spec: Any) -> list[str]:
    """Return how each of the calls ended that are made at once."""

    async def work(engine: Engine) -> list[str]:
        calls = (engine.generate([ChatMessage("user", str(n))], Sampling(), [0]) for n in range(rows))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        return [f"{type(end).__name__}: {end}" if isinstance(end, BaseException) else "answer" for end in ends]

    return using(server, work, **spec)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("fault", [Fault(429), Fault(503), Fault(0)], ids=["429", "503", "reset"])
def test_an_outage_stops_every_request_when_it_lasts_too_long(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "SILENCE", 0.3)
    monkeypatch.setattr(openai_attempt, "BACKOFF", 10.0)
    with Loopback(refuse=lambda _: fault) as server:
        ends = results(server, 30, timeout=0.1, concurrency=4)
    assert {end.partition(":")[0] for end in ends} == {"RunFailure"}
    assert "no request was answered for 0 s" in ends[0]
    assert server.calls < 20


@pytest.mark.usefixtures("_quick")
def test_a_server_that_hangs_is_not_waited_for_in_a_second_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "SILENCE", 0.1)
    with Loopback(latency=30) as server:
        ends = results(server, 30, timeout=1.0, concurrency=4)
    # The first round ends after 1 s, the outage after 1.15 s, in the middle of the second round.
    assert set(ends) == {f"RunFailure: {server.url}: no answer within 1 s; no request was answered for 1 s"}
    assert server.calls <= 8


@pytest.mark.usefixtures("_quick")
def test_a_rate_limit_that_lets_some_requests_through_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "SILENCE", 2.0)
    count = itertools.count()
    with Loopback(refuse=lambda _: Fault(429, "slow down", {"Retry-After": "0.05"}) if next(count) % 4 else None) as server:
        assert results(server, 60, concurrency=8).count("answer") > 40


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(401, "Incorrect API key provided"), "401: Incorrect API key provided (3 replies in a row). The key is read from"),
        (Fault(402, "Payment required"), "402: Payment required (3 replies in a row)"),
        (Fault(429, "You exceeded your current quota"), "429: You exceeded your current quota (3 replies in a row)"),
        (
            Fault(429, "no more today", {"Retry-After": "3600"}),
            "429: the server asks to wait for 3600 s: no more today (3 replies in a row)",
        ),
        (Fault(403, "The account was suspended"), "403: The account was suspended (3 replies in a row)"),
        (Fault(400, "API key expired"), "400: API key expired (3 replies in a row)"),
    ],
    ids=["key", "payment", "quota", "wait", "account", "key-400"],
)
def test_refusals_of_the_account_stop_the_run_also_after_answers(fault: Fault, words: str) -> None:
    count = itertools.count()
    with Loopback(refuse=lambda _: fault if next(count) >= 5 else None) as server:
        ends = results(server, 40, concurrency=1)
    assert ends[:5] == ["answer"] * 5
    assert [end.partition(":")[0] for end in ends[5:8]] == ["Refused", "Refused", "RunFailure"]
    assert words in ends[7]
    assert set(ends[8:]) == {ends[7]}
    assert server.calls == 8


@pytest.mark.usefixtures("_quick")
def test_a_single_refusal_of_the_account_is_the_error_of_its_row() -> None:
    count = itertools.count()
    with Loopback(refuse=lambda _: Fault(401) if next(count) % 2 else None) as server:
        ends = results(server, 20, concurrency=1)
    assert [end.partition(":")[0] for end in ends] == ["answer", "Refused"] * 10


def rows(work: Workdir, n: int) -> None:
    work.write("in.jsonl", [{"id": str(i), "prompt": f"fern {i}"} for i in range(n)])


def test_calls_that_are_all_refused_alike_stop_the_run(work: Workdir) -> None:
    rows(work, 200)
    with Loopback(refuse=lambda _: Fault(404, "no such model")) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert (ran.code, "Traceback" in ran.err) == (2, False)
    assert f"dream: {server.url}: 404: no such model; 20 calls in a row failed; run the same command again to continue" in ran.err
    assert server.calls <= IN_A_ROW + 2 * 8
    assert 0 < len(ran.rows) <= 20
    assert [row["id"] for row in ran.rows] == [str(i) for i in range(len(ran.rows))]


def test_refusals_of_inputs_between_answers_stop_nothing_and_neither_does_the_rerun(work: Workdir) -> None:
    rows(work, 60)
    with Loopback(refuse=lambda body: Fault(400, "flagged") if int(body["messages"][0]["content"].split()[1]) >= 10 else None) as server:
        for calls in (60, 110):
            ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
            assert (ran.code, len(ran.rows), server.calls) == (1, 60, calls)
            assert (
                f"50 of 60 rows got an error (50 engine), see their `error` field; the first: in.jsonl:11: {server.url}: 400: flagged\n"
                in ran.err
            )


@pytest.mark.parametrize("command", ["prefer", "eval"])
def test_a_judge_that_refuses_every_call_stops_stages_that_keep_what_is_unscored(work: Workdir, command: str) -> None:
    lines = {
        "prefer": ["prefer", "b.jsonl", "a.jsonl", "--model", "loopback", "--base-url"],
        "eval": ["eval", "a.jsonl", "--judge", "loopback", "--judge-base-url"],
    }
    for name in "ab":
        benchmark = {"name": "figstep", "subset": "tiny", "topic": "Fraud"}
        items = [
            {"id": str(i), "prompt": f"fern {i}?", "benchmark": benchmark | {"item": str(i)}, "response": f"{name} {i}"} for i in range(80)
        ]
        work.write(f"{name}.jsonl", items)
    with Loopback(refuse=lambda _: Fault(404, "no such model")) as server:
        ran = work.dream(*lines[command], server.url)
    # The 20 calls, and those in flight; prefer puts both orders of a row in parallel.
    assert (ran.code, server.calls < (60 if command == "prefer" else 40)) == (2, True), ran.err
    assert "404: no such model; 20 calls in a row failed" in ran.err


@pytest.mark.parametrize("store", [True, False])
def test_a_server_that_dies_stops_the_run_and_the_same_line_goes_on_later(work: Workdir, store: bool) -> None:
    rows(work, 300)
    count = itertools.count()

    def die(_: Any) -> None:
        if next(count) == 60:
            server.stop()

    with Loopback(refuse=die) as server:
        line = ["sample", "in.jsonl", "--base-url", server.url, *([] if store else ["--no-store"])]
        stopped = work.dream(*line)
        assert stopped.code == 2, stopped.err
        assert re.search(rf"^dream: {server.url}: cannot be reached: .* \(5 times\)", stopped.err, re.MULTILINE)
        assert "such requests are tried again" in stopped.err
        assert ("calls in the store are not repeated" in stopped.err) == store
        assert "Traceback" not in stopped.err
        done = [row for row in stopped.rows if "error" not in row]
        assert 0 < len(done) < 300
        port, paid = server.port, server.calls
    if store:
        with Loopback(port=port) as server:
            again = work.dream(*line)
        assert (again.code, again.rows[: len(done)]) == (0, done)
        assert server.calls <= 300 - len(done)
        assert paid + server.calls <= 300 + 16


def test_retries_are_reported_once_a_kind_and_counted_at_the_end(work: Workdir) -> None:
    rows(work, 4)
    with Loopback(faults=[Fault(429, "slow down"), Fault(429, "slow down"), Fault(503, "busy")]) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert ran.code == 0
    assert sorted(ran.err.splitlines()) == [
        "dream sample: requests tried again: 3 (2 429, 1 503)",
        f"dream: {server.url}: 429: slow down; such requests are tried again",
        f"dream: {server.url}: 503: busy; such requests are tried again",
    ]


def test_an_odd_row_is_an_internal_error_with_its_place(work: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(work, 3)
    script = """
import sys
from dream_cli.cli import main
from dream_cli.method import sampling
draw = sampling.Sampler.__call__
async def odd(self, record):
    if record.id == "1":
        return {}["no such key"]
    return await draw(self, record)
sampling.Sampler.__call__ = odd
main.main()
"""
    with Loopback() as server:
        command = work.command
        monkeypatch.setattr(work, "command", lambda *args: [command()[0], "-c", script, *args])
        quiet = work.dream("sample", "in.jsonl", "--base-url", server.url)
        loud = work.dream("sample", "in.jsonl", "--base-url", server.url, "-v")
    assert (quiet.code, [row.get("error", {}).get("kind") for row in quiet.rows]) == (1, [None, "internal", None])
    message = quiet.rows[1]["error"]["message"]
    assert re.fullmatch(r"in\.jsonl:2: KeyError at dream_cli/method/stages\.py:\d+: 'no such key'", message)
    assert ("Traceback" in quiet.err, "Traceback" in loud.err) == (False, True)
    assert json.dumps(quiet.rows) == json.dumps(loud.rows)

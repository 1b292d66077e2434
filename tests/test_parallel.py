"""Calls of one record in parallel: they end together, what was paid for is kept, and what stops the run waits for nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from dream_cli.engines.parallel import all_of
from dream_cli.errors import EngineError, RunFailure, UnreadableAnswer
from tests.conftest import Workdir
from tests.loopback import Fault, Loopback, answers_of

SOON, LATER = 0.01, 0.05  # seconds


class Calls:
    """Coroutines that note how they ended."""

    def __init__(self) -> None:
        self.ends: dict[str, str] = {}

    async def __call__(self, name: str, seconds: float, error: Exception | None = None) -> str:
        """Return the name after some time, or raise."""
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.ends[name] = "cancelled"
            raise
        if error is not None:
            self.ends[name] = "raised"
            raise error
        self.ends[name] = "returned"
        return name


def run(*calls: Coroutine[Any, Any, str]) -> list[str]:
    """Run the calls in a loop of their own, whose end cancels what still runs."""
    return asyncio.run(all_of(calls))


def test_results_come_in_the_order_of_the_calls() -> None:
    call = Calls()
    assert run(call("slow", LATER), call("quick", SOON)) == ["slow", "quick"]
    assert list(call.ends) == ["quick", "slow"]
    assert run() == []


@pytest.mark.parametrize("error", [EngineError("down"), ZeroDivisionError("of nobody's making")])
def test_an_error_of_the_record_waits_for_the_other_calls(error: Exception) -> None:
    call = Calls()
    with pytest.raises(type(error)) as caught:
        run(call("slow", LATER), call("fails", SOON, error), call("slow too", LATER))
    assert caught.value is error
    assert call.ends == {"fails": "raised", "slow": "returned", "slow too": "returned"}


def test_the_first_error_in_order_is_raised_and_not_the_first_in_time() -> None:
    call = Calls()
    with pytest.raises(UnreadableAnswer):
        run(call("one", LATER, UnreadableAnswer("mumbled")), call("two", SOON, EngineError("down")))


@pytest.mark.parametrize("stop", [RunFailure("the server is gone"), BrokenPipeError()])
def test_what_stops_the_run_cancels_the_other_calls(stop: Exception) -> None:
    call = Calls()
    with pytest.raises(type(stop)) as caught:
        run(call("slow", 60.0), call("stops", SOON, stop))
    assert caught.value is stop
    assert call.ends == {"stops": "raised", "slow": "cancelled"}


def test_a_cancelled_record_leaves_no_call_behind() -> None:
    call = Calls()

    async def cancelled() -> None:
        record = asyncio.ensure_future(all_of([call("one", 60.0), call("two", 60.0)]))
        await asyncio.sleep(SOON)
        record.cancel()
        with pytest.raises(asyncio.CancelledError):
            await record
        assert call.ends == {"one": "cancelled", "two": "cancelled"}

    asyncio.run(cancelled())


def test_a_rerun_repeats_only_the_call_that_failed(work: Workdir) -> None:
    down = True

    def refuse(body: dict[str, Any]) -> Fault | None:
        return Fault(400, "not now") if down and "whole number" in str(body) else None

    row = {"id": "a", "prompt": "How do I fold a letter?", "observations": [], "responses": ["In three.", "In two."]}
    with Loopback(refuse=refuse, latency=SOON, tokens=lambda body: [[("5", 0.5), (answers_of(body)[1], 0.5)]]) as server:
        first = work.dream("judge", "--base-url", server.url, stdin=json.dumps(row))
        assert (first.code, first.rows[0]["error"]["kind"]) == (1, "engine")
        calls, down = server.calls, False
        again = work.dream("judge", "--base-url", server.url, "--retry-errors", stdin=first.out)
        assert (again.code, server.calls - calls) == (0, 2), "the helpfulness of two responses; their harm is in the store"
    assert [response["judgement"]["score"] for response in again.rows[0]["responses"]] == [0.5, 0.5]

"""Limits of a run: what it may cost, and how many requests and tokens per minute it may send."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest

from dream_cli.cli.main import load
from dream_cli.engines import limits
from dream_cli.engines.costs import Prices, cost_report, most_tokens
from dream_cli.engines.limits import Limits, Rate
from dream_cli.engines.protocol import ChatMessage, Completion, Engine, Sampling
from dream_cli.engines.usage import Usage
from dream_cli.errors import UsageError
from tests.conftest import Workdir
from tests.loopback import Loopback, using

CHEAP = ("--price-in", "1", "--price-out", "2")


def counting(body: dict[str, Any]) -> dict[str, Any]:
    """Reply with 1,000 prompt tokens, 400 of them cached, and 100 completion tokens."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
    return {"choices": [{"message": {"content": f"answer to {body['messages'][-1]['content']}"}, "finish_reason": "stop"}], "usage": usage}


def rows(work: Workdir, count: int) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": f"Hi {n}"} for n in range(count)])


def test_cached_prompt_tokens_have_a_price_of_their_own() -> None:
    usage = Usage(calls=1, prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
    assert Prices(1.0, 2.0).cost(usage) == pytest.approx((1000 + 200) / 1e6)
    assert Prices(1.0, 2.0, cached=0.25).cost(usage) == pytest.approx((600 + 100 + 200) / 1e6)
    assert cost_report(usage, Prices(1e3, 2e3, cached=250)) == (
        "1 call made, 0 answered from the store; 1000 prompt (400 of them cached) and 100 completion tokens; cost 0.9"
    )


def test_the_most_tokens_of_a_request() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:..."}}, {"type": "text", "text": "12345678"}]
    body = {"messages": [{"role": "system", "content": "1234"}, {"role": "user", "content": parts}], "max_tokens": 50, "n": 3}
    assert most_tokens(body) == Usage(prompt_tokens=1 + 576 + 2, completion_tokens=150)
    assert most_tokens({"messages": [], "max_completion_tokens": 7}) == Usage(completion_tokens=7)


def test_requests_of_a_minute_by_hand() -> None:
    rate = Rate(requests=2, tokens=None)
    for now, wait in ((0.0, 0.0), (10.0, 0.0), (20.0, 40.0), (60.0, 0.0), (61.0, 9.0)):
        assert rate.wait(now, 1) == pytest.approx(wait)
        if not wait:
            rate.begin(now, 1)


def test_tokens_of_a_minute_by_hand() -> None:
    rate = Rate(requests=None, tokens=100)
    first = rate.begin(0.0, 60)
    assert rate.wait(1.0, 40) == 0.0
    rate.begin(1.0, 40)
    assert rate.wait(2.0, 30) == pytest.approx(58.0)  # the first request leaves the minute at 60 s
    assert rate.wait(2.0, 70) == pytest.approx(59.0)  # both must leave
    assert rate.wait(2.0, 1000) == pytest.approx(59.0)  # larger than the limit: it begins alone
    first[0] = 10  # the server counted fewer
    assert rate.wait(2.0, 30) == 0.0


def test_requests_to_a_server_wait_for_their_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOW", 0.2)
    begun: list[float] = []
    begin = Rate.begin

    def note(rate: Rate, now: float, tokens: int) -> list[int]:
        begun.append(now)
        return begin(rate, now, tokens)

    monkeypatch.setattr(Rate, "begin", note)

    async def work(engine: Engine) -> Sequence[list[Completion]]:
        chats = [[ChatMessage("user", str(n))] for n in range(7)]
        return await asyncio.gather(*(engine.generate(chat, Sampling(max_tokens=5), [0]) for chat in chats))

    with Loopback(whole=counting) as server:
        assert len(using(server, work, limits=Limits(rpm=3))) == 7 == len(begun) == server.calls
    # Of any four requests in a row the last one begins at least a minute after the first.
    assert all(later - earlier >= 0.2 for earlier, later in zip(begun, begun[3:], strict=False))


def test_a_run_stops_before_it_costs_more_than_it_may_and_goes_on_later(work: Workdir) -> None:
    rows(work, 10)
    # A call costs (1000 + 2 x 100) / 1e6 = 0.0012, and at most (1 + 2 x 256) / 1e6 by the estimate before the first reply.
    line = ("sample", "in.jsonl", "--concurrency", "1", "--max-cost", "0.005", *CHEAP)
    with Loopback(whole=counting) as server:
        ran = work.dream(*line, "--base-url", server.url)
        assert ran.code == 2
        assert [row["id"] for row in ran.rows] == [str(n) for n in range(server.calls)]
        assert server.calls == 3  # a fourth may cost 0.0036 + 0.0015 = 0.0051: the prompt as counted, and a reply of full length
        assert "the cost limit is reached: 0.0036 of --max-cost 0.005 is spent, and the next call may cost up to " in ran.err
        assert "run the same command again to continue: calls in the store are not repeated" in ran.err
        again = work.dream(*line, "--base-url", server.url)
        assert again.code == 2 and [row["id"] for row in again.rows] == [str(n) for n in range(6)] and server.calls == 6
        whole = work.dream(*line[:4], "--base-url", server.url, *CHEAP)
        assert whole.code == 0 and len(whole.rows) == 10 and server.calls == 10
        assert "dream sample: 4 calls made, 6 answered from the store; 4000 prompt (1600 of them cached)" in whole.err
        assert "and 400 completion tokens; cost 0.0048" in whole.err


def test_the_limit_holds_for_requests_at_the_same_time(work: Workdir) -> None:
    rows(work, 20)
    with Loopback(whole=counting, latency=0.05) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url, "--max-tokens", "100", "--max-cost", "0.0049", *CHEAP)
        assert ran.code == 2
        # The first requests go out before any is counted; their prompts are larger than the rule of thumb has it.
        assert server.calls <= 24


def test_a_server_that_counts_no_tokens_cannot_be_held_to_a_cost(work: Workdir) -> None:
    rows(work, 3)
    with Loopback(whole=lambda body: {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url, "--concurrency", "1", "--max-cost", "1", *CHEAP)
    assert ran.code == 2 and server.calls == 1
    assert "the server does not report token counts, so --max-cost cannot be enforced" in ran.err


def test_eval_and_prefer_have_prices_and_limits(work: Workdir) -> None:
    work.write("a.jsonl", [{"id": "1", "prompt": "Hi", "response": "Ho"}])
    work.write("b.jsonl", [{"id": "1", "prompt": "Hi", "response": "Hu"}])
    work.write("own.jsonl", [{"id": str(n), "prompt": f"Hi {n}", "harmful": False} for n in range(4)])
    with Loopback(reply=lambda _: "A") as server:
        ran = work.dream("prefer", "a.jsonl", "b.jsonl", "--base-url", server.url, *CHEAP)
        assert "dream prefer: 2 calls made" in ran.err and "; cost " in ran.err
    with Loopback(reply=lambda body: "No" if "logprobs" in body else "Sure") as server:
        served = ("--base-url", server.url, "--judge-base-url", server.url, "--concurrency", "1")
        ran = work.dream("eval", "own.jsonl", "--model", "loopback", "--judge", "loopback", *served, *CHEAP)
        costs = [float(cost) for cost in re.findall(r"dream eval: loopback: .*; cost ([\d.e-]+)$", ran.err, re.MULTILINE)]
        (total,) = re.findall(r"^dream eval: cost of all models ([\d.e-]+)$", ran.err, re.MULTILINE)
        assert len(costs) == 2 and float(total) == pytest.approx(sum(costs), rel=1e-3)  # of the policy and of the judge
        spent = server.calls
        ran = work.dream(
            "eval", "own.jsonl", "--no-store", "--model", "loopback", "--judge", "loopback", *served, *CHEAP, "--max-cost", "0.00000001"
        )
        assert (ran.code, server.calls) == (2, spent) and "the cost limit is reached" in ran.err


def test_a_limit_for_a_model_on_this_machine_is_reported(work: Workdir) -> None:
    ran = work.dream("sample", "--rpm", "5", stdin="")
    assert ran.code == 0 and "--rpm limits requests to a server; nano answers on this machine, without a limit" in ran.err


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("sample", ("--price-in", "nan", "--price-out", "1"), "'--price-in' (env var: 'DREAM_PRICE_IN'): Input should be greater than"),
        ("eval", ("--price-in", "-1", "--price-out", "1"), "'--price-in' (env var: 'DREAM_PRICE_IN'): Input should be greater than"),
        ("sample", ("--price-in", "1", "--price-out", "inf"), "--price-out inf is not an amount of money"),
        ("eval", ("--price-in", "", "--price-out", "1"), "'--price-in'"),
        ("judge", ("--price-in", "0", "--price-out", "0"), "with prices of 0 nothing has a cost"),
        ("disentangle", ("--price-cached", "1"), "--price-cached needs the prices --price-in and --price-out"),
        ("eval", ("--max-cost", "1"), "--max-cost needs the prices --price-in and --price-out"),
        ("sample", (*CHEAP, "--max-cost", "0"), "--max-cost 0 allows no call"),
        ("sample", (*CHEAP, "--max-cost", "-2"), "--max-cost -2 allows no call"),
        ("sample", (*CHEAP, "--max-cost", "nan"), "--max-cost nan is not an amount of money"),
        ("sample", ("--rpm", "0", "--tpm", "-5"), "2 problems with the arguments"),
    ],
)
def test_a_price_or_a_limit_of_nothing_is_refused(command: str, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        load(command).make_context(f"dream {command}", [*options], auto_envvar_prefix=f"DREAM_{command.upper()}")


def test_a_dry_run_names_the_limit_that_it_may_reach(work: Workdir) -> None:
    rows(work, 5)
    ran = work.dream("sample", "in.jsonl", "--dry-run", *CHEAP, "--max-cost", "0.001")
    assert ran.code == 0 and "(--max-cost 0.001 may stop the run)" in ran.err

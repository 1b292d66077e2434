"""The engine against a real server on 127.0.0.1: what comes back, what is asked again, and what never leaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from typing import Any, TypeVar

import pytest
from PIL import Image as Pillow

from dream_cli.engines import openai_attempt
from dream_cli.engines.openai_answers import read_answers
from dream_cli.engines.openai_server import open_openai
from dream_cli.engines.protocol import ChatMessage, Choice, Engine, EngineSpec, Sampling
from dream_cli.errors import EngineError, UsageError
from dream_cli.records.record import Image
from tests.loopback import Fault, Loopback, Positions, using

T = TypeVar("T")
CHAT = [ChatMessage("user", "What is unsafe here?")]
DRAWN = Sampling(temperature=1.0, max_tokens=64)
DIGITS = [str(i) for i in range(11)]
SCHEMA = {"type": "array", "items": {"type": "string"}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_attempt, "BACKOFF", 0.001)
    for name in ("DREAM_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def texts(server: Loopback, samples: Sequence[int], sampling: Sampling = DRAWN) -> list[str]:
    return [c.text for c in using(server, lambda engine: engine.generate(CHAT, sampling, samples))]


def choice(server: Loopback, answers: Sequence[str] = DIGITS) -> Choice:
    return using(server, lambda engine: engine.choose(CHAT, answers))


def fingerprint(server: Loopback, **spec: Any) -> str:
    async def read(engine: Engine) -> str:
        return engine.fingerprint

    return using(server, read, **spec)


def test_images_stand_before_the_text() -> None:
    buffer = BytesIO()
    Pillow.new("RGB", (32, 32), "red").save(buffer, "PNG")
    chat = [ChatMessage("system", "Be brief."), ChatMessage("user", "What?", (Image("a.png", buffer.getvalue()),))]
    with Loopback() as server:
        (completion,) = using(server, lambda engine: engine.generate(chat, Sampling(), [0]))
    system, user = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/")
    assert completion.finish_reason == "stop"
    assert completion.completion_tokens == 6


def test_one_request_draws_all_samples() -> None:
    with Loopback() as server:
        assert len(set(texts(server, [0, 1, 2, 3]))) == 4
    assert server.calls == 1
    assert server.bodies[0]["n"] == 4


def test_an_ignored_n_is_topped_up_with_the_same_texts() -> None:
    with Loopback() as server:
        whole = texts(server, [0, 1, 2])
    with Loopback(ignore=["n"]) as server:
        assert texts(server, [0, 1, 2]) == whole
    assert sorted(body["seed"] for body in server.bodies) == [0, 1, 2]


def test_a_sample_is_the_same_in_whatever_run_it_comes() -> None:
    with Loopback() as server:
        whole = texts(server, [0, 1, 2, 3])
        assert texts(server, [0, 2, 3]) == [whole[0], whole[2], whole[3]]


def test_greedy_text_is_asked_for_once() -> None:
    with Loopback() as server:
        assert len(set(texts(server, [0, 1, 2], Sampling()))) == 1
    assert server.calls == 1


@pytest.mark.parametrize("faults", [[500, 503], [429, 408], [0, 0], [500, 0, 429, 502]])
def test_passing_faults_are_tried_again(faults: list[int]) -> None:
    with Loopback(faults=faults) as server:
        assert texts(server, [0])
    assert server.calls == len(faults) + 1


@pytest.mark.parametrize(("status", "calls"), [(500, 5), (501, 1), (400, 1), (404, 1), (422, 1), (0, 5)])
def test_lasting_faults_end_in_an_engine_error(status: int, calls: int) -> None:
    with Loopback(faults=[Fault(status, "no " * 500)] * 20) as server:
        with pytest.raises(EngineError) as caught:
            texts(server, [0])
        assert server.calls == calls
    assert len(str(caught.value)) < 400
    if status:
        assert f"{status}: no no" in str(caught.value)


def test_retry_after_is_waited_for() -> None:
    with Loopback(faults=[Fault(429, headers={"Retry-After": "0.3"})]) as server:
        start = time.monotonic()
        texts(server, [0])
        assert time.monotonic() - start >= 0.3


def test_retry_after_is_read_as_seconds_or_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < openai_attempt.Attempt(429, "", soon).wait < 61
    assert openai_attempt.Attempt(429, "", "7").wait == 7
    assert openai_attempt.Attempt(429, "", "later").wait == 0
    assert openai_attempt.is_passing(openai_attempt.Attempt(429, "", "300"))
    assert not openai_attempt.is_passing(openai_attempt.Attempt(429, "", "301"))
    assert 7 <= openai_attempt.pause(1, 7) < 8


@pytest.mark.parametrize(
    ("words", "wait"),
    [
        ("Rate limit reached for m. Please try again in 20s.", 20),
        ("Please try again in 1.2s. Visit the console.", 1.2),
        ("Please try again in 6m0s", 360),
        ("try again in 1h2m3s", 3723),
        ("try again in 120ms", 0),
        ("Please retry after 7 seconds.", 7),
        ('{"details": [{"retryDelay": "39s"}]}', 39),
        ("try again later", 0),
        ("try again in 5 minutes", 0),
    ],
)
def test_without_a_header_the_wait_is_read_from_the_words_of_a_busy_server(words: str, wait: float) -> None:
    assert openai_attempt.Attempt(429, words).wait == wait
    assert openai_attempt.Attempt(429, words, "2").wait == 2
    assert openai_attempt.Attempt(400, words).wait == 0


def test_a_quota_per_minute_is_waited_for_and_one_per_day_is_not() -> None:
    def attempt(quota: str, words: str) -> openai_attempt.Attempt:
        return openai_attempt.Attempt(429, f'{{"error": {{"message": "You exceeded your current quota. {words}", "quotaId": "{quota}"}}}}')

    assert openai_attempt.is_passing(attempt("GenerateRequestsPerMinutePerProject", "Please retry in 39.5s."))
    assert not openai_attempt.is_passing(attempt("GenerateRequestsPerMinutePerProject", "Please check your plan."))
    per_day = attempt("GenerateRequestsPerDayPerProject", "Please retry in 39.5s.")
    assert not openai_attempt.is_passing(per_day)
    assert openai_attempt.is_of_account(per_day)


def test_a_slow_server_is_a_fault() -> None:
    with Loopback(latency=0.2) as server, pytest.raises(EngineError, match="no answer within 0.02 s"):
        using(server, lambda engine: engine.generate(CHAT, DRAWN, [0]), timeout=0.02)


def test_no_more_requests_in_flight_than_asked_for() -> None:
    async def many(engine: Engine) -> None:
        await asyncio.gather(*(engine.generate([ChatMessage("user", str(i))], DRAWN, [0]) for i in range(12)))

    with Loopback(latency=0.02) as server:
        using(server, many, concurrency=3)
    assert server.peak == 3


@pytest.mark.parametrize("name", ["DREAM_API_KEY", "OPENAI_API_KEY"])
def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    key = "sk-" + "very-secret" * 30
    monkeypatch.setenv(name, key)
    # OpenAI's own key is for a host that its user has given it for.
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")

    async def report(engine: Engine) -> str:
        with pytest.raises(EngineError) as caught:
            await engine.generate(CHAT, DRAWN, [0])
        return f"{engine!r} {getattr(engine, '_wire')!r} {engine.fingerprint} {caught.value!r}"  # noqa: B009

    with Loopback(faults=[Fault(401, f"Incorrect API key provided: {key}")]) as server:
        message = using(server, report)
    assert server.headers[0]["Authorization"] == f"Bearer {key}"
    assert "very-secret" not in message
    assert "***" in message


def test_the_only_model_is_taken_and_others_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with Loopback(model="only") as server:
        texts(server, [0])
    assert server.bodies[0]["model"] == "only"
    with Loopback(models=["qwen-7b", "llama"]) as server:
        with pytest.raises(UsageError, match="qwen-7b, llama"):
            fingerprint(server)
        assert fingerprint(server, model="qwen-7B")
        assert "does not list the model 'qwen-7B' and may refuse it; did you mean qwen-7b?" in capsys.readouterr().err
    with Loopback(list_status=404) as server:
        assert fingerprint(server, model="anything")
    with Loopback(list_status=401) as server, pytest.raises(UsageError, match="DREAM_API_KEY"):
        fingerprint(server)


def test_a_server_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        asyncio.run(open_openai(EngineSpec(base_url="http://127.0.0.1:9/v1")))
    with pytest.raises(UsageError, match="is not a URL"):
        asyncio.run(open_openai(EngineSpec(base_url="localhost:8000")))


def test_the_fingerprint_follows_what_the_server_says_of_the_model() -> None:
    with Loopback(card={"root": "/ckpt/1"}) as server:
        first = fingerprint(server)
        assert fingerprint(server) == first
        assert fingerprint(server, model_tag="2") != first
        server.card["root"] = "/ckpt/2"
        assert fingerprint(server) != first


def test_a_refused_max_tokens_is_renamed_once() -> None:
    def refuse(body: dict[str, Any]) -> Fault | None:
        return Fault(400, "Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead.") if "max_tokens" in body else None

    async def twice(engine: Engine) -> None:
        await engine.generate(CHAT, DRAWN, [0])
        await engine.generate(CHAT, DRAWN, [1])

    with Loopback(refuse=refuse) as server:
        using(server, twice)
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 64, 64]


def test_a_refused_schema_is_dropped_and_another_still_sent() -> None:
    def refuse(body: dict[str, Any]) -> Fault | None:
        form = body.get("response_format")
        return Fault(400, "Invalid schema: root must be an object") if form and form["json_schema"]["schema"] == SCHEMA else None

    async def thrice(engine: Engine) -> None:
        for schema in (SCHEMA, SCHEMA, {"type": "object", "properties": {}}):
            await engine.generate(CHAT, Sampling(schema=schema), [0])

    with Loopback(refuse=refuse) as server:
        using(server, thrice)
    assert ["response_format" in body for body in server.bodies] == [True, False, False, True]
    assert server.bodies[0]["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": SCHEMA}


def message(*positions: dict[str, float]) -> Callable[[dict[str, Any]], Positions]:
    return lambda body: [list(position.items()) for position in positions]


def test_yes_is_the_sum_of_its_spellings() -> None:
    tokens = message({"Yes": 0.5, " yes": 0.1, "YES": 0.05, "No": 0.15, "Maybe": 0.2})
    with Loopback(tokens=tokens) as server:
        results = choice(server, ["Yes", "No"])
    assert results.probabilities == pytest.approx({"Yes": 0.65 / 0.8, "No": 0.15 / 0.8})
    assert results.covered == pytest.approx(0.8)
    assert results.text == "Yes"
    assert server.calls == 1


def test_ten_is_split_from_one_where_the_text_goes_through_it() -> None:
    # 0.6 * 0.7 is "10", 0.6 * (0.2 + 0.05) is "1"; "15" and what is not listed are no answer.
    tokens = message({"1": 0.6, "7": 0.3, "x": 0.1}, {"0": 0.7, "<|im_end|>": 0.2, ".": 0.05, "5": 0.04})
    with Loopback(tokens=tokens) as server:
        results = choice(server)
    assert results.covered == pytest.approx(0.6 * 0.95 + 0.3)
    assert results.probabilities is not None
    assert results.probabilities["10"] * results.covered == pytest.approx(0.42)
    assert results.probabilities["1"] * results.covered == pytest.approx(0.15)
    assert results.probabilities["7"] * results.covered == pytest.approx(0.3)


def elsewhere(body: dict[str, Any]) -> Positions:
    """Write 7, with "1" as the other way; behind a prefilled "1" comes 0 or the end."""
    if body["messages"][-1] == {"role": "assistant", "content": "1"}:
        assert body["continue_final_message"] is True
        assert body["add_generation_prompt"] is False
        return [[("<|im_end|>", 0.75), ("0", 0.25)]]
    return [[("7", 0.6), ("1", 0.4)]]


def test_only_vllm_is_asked_what_follows_an_unwritten_one() -> None:
    with Loopback(tokens=elsewhere, owned_by="vllm", end_token="<|im_end|>") as server:
        results = choice(server)
    assert server.calls == 2
    assert results.covered == pytest.approx(1.0)
    assert results.probabilities is not None
    assert {a: p for a, p in results.probabilities.items() if p} == pytest.approx({"7": 0.6, "1": 0.3, "10": 0.1})
    with Loopback(tokens=elsewhere) as server:
        results = choice(server)
    assert server.calls == 1
    assert (results.covered, results.divided) == pytest.approx((1.0, 0.4))
    assert results.probabilities is not None
    assert {a: p for a, p in results.probabilities.items() if p} == pytest.approx({"7": 0.6, "1": 0.2, "10": 0.2})


def test_a_prefill_that_is_refused_leaves_the_answer_divided() -> None:
    def refuse(body: dict[str, Any]) -> Fault | None:
        return Fault(400, "cannot continue") if body.get("continue_final_message") else None

    with Loopback(tokens=elsewhere, refuse=refuse, owned_by="vllm") as server:
        results = choice(server)
    assert (results.covered, results.divided) == pytest.approx((1.0, 0.4))


def test_ten_as_one_token_needs_no_split() -> None:
    with Loopback(tokens=message({"7": 0.5, "1": 0.2, "10": 0.3}), owned_by="vllm") as server:
        results = choice(server)
    assert server.calls == 1
    assert results.probabilities is not None
    assert (results.probabilities["1"], results.probabilities["10"]) == pytest.approx((0.2, 0.3))


def test_a_written_one_with_no_token_for_its_end_is_one() -> None:
    with Loopback(tokens=message({"1": 0.9, "2": 0.1})) as server:
        results = choice(server)
    assert results.probabilities is not None
    assert results.probabilities["1"] == pytest.approx(0.9)


def read(answers: Sequence[str], *positions: dict[str, float]) -> dict[str, float]:
    async def nothing(start: str) -> list[dict[str, float]]:
        return []

    return asyncio.run(read_answers(answers, list(positions), nothing)).of


def test_an_answer_in_pieces_and_behind_a_space() -> None:
    assert read(["Yes", "No"], {" ": 0.9, "Yes": 0.1}, {"No": 0.8, "Yes": 0.2}) == pytest.approx({"Yes": 0.28, "No": 0.72})
    assert read(["Unsafe", "Safe"], {"Un": 0.7, "Safe": 0.3}, {"safe": 0.9, "known": 0.1}) == pytest.approx({"Unsafe": 0.63, "Safe": 0.3})
    assert read(["Maybe"], {"May": 0.5, "Maybe": 0.4}) == pytest.approx({"Maybe": 0.4})


def test_a_beginning_from_which_nothing_goes_on_is_divided_only_where_it_is_an_answer() -> None:
    scores = read(["1", "2", "10"], {"2": 0.7, "1": 0.2, "x": 0.1})
    assert scores == pytest.approx({"1": 0.1, "2": 0.7, "10": 0.1})
    assert read(["Unsafe", "Unsure"], {"Un": 0.7, "Unsafe": 0.3}) == pytest.approx({"Unsafe": 0.3, "Unsure": 0.0})
    # In the middle of a reply too: 0.9 * 0.5 is a 1 of which nobody knows the end.
    assert read(["1", "10", "No"], {" ": 0.9, "No": 0.1}, {"No": 0.5, "1": 0.5}) == pytest.approx({"1": 0.225, "10": 0.225, "No": 0.55})


def test_an_answer_that_is_none_is_covered_by_nothing() -> None:
    with Loopback(tokens=message({"Well": 1.0})) as server:
        results = choice(server, ["Yes", "No"])
    assert (results.probabilities, results.covered) == ({"Yes": 0.0, "No": 0.0}, 0.0)


def test_a_server_without_logprobs_gives_its_text() -> None:
    with Loopback(ignore=["logprobs"], reply=lambda body: "No") as server:
        assert choice(server, ["Yes", "No"]) == Choice(None, 0.0, "No")
    assert server.calls == 1
    with Loopback(ignore=["logprobs"], reply=lambda body: "I would rather say it is No") as server:
        assert choice(server, ["Yes", "No"]).text == "I would rather say it is No"
    assert server.bodies[1]["max_tokens"] == 16
    assert "logprobs" not in server.bodies[1]


def test_refused_logprobs_are_dropped() -> None:
    def refuse(body: dict[str, Any]) -> Fault | None:
        return Fault(400, "logprobs is not supported") if "logprobs" in body else None

    with Loopback(refuse=refuse, reply=lambda body: "Yes") as server:
        assert choice(server, ["Yes", "No"]) == Choice(None, 0.0, "Yes")


def test_a_request_gets_two_tries_within_its_time_limit() -> None:
    with Loopback(latency=5) as server, pytest.raises(EngineError, match=r"no answer within 0.1 s \(2 times\)"):
        using(server, lambda engine: engine.generate(CHAT, DRAWN, [0]), timeout=0.1)
    assert server.calls == 2

"""Replies of servers: what is an answer, what is none, and that an odd shape is the error of one row."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.engines import openai_attempt
from dream_cli.engines.openai_answers import read_positions
from dream_cli.engines.openai_reply import read_choices, read_completions, token_count
from dream_cli.engines.openai_server import open_openai
from dream_cli.engines.protocol import ChatMessage, Completion, EngineSpec, Sampling, answer_of
from dream_cli.errors import EngineError, NoAnswer, UnreadableAnswer
from tests.conftest import Ran, Workdir
from tests.loopback import Fault, Json, Loopback, answers_of

SORRY = "I'm sorry, I can't assist with that request."
ROW = {"id": "a", "prompt": "Name a colour."}
OBSERVED = {"malicious_content": "a home address", "source": "text instruction", "risk_category": "Privacy"}


def reply(message: Any, finish: Any = "stop", **choice: Any) -> Json:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}]}


def sampled(work: Workdir, whole: Json | bytes, *options: str) -> tuple[Ran, int]:
    """Run `dream sample` twice against a server with one reply; return the second run and the number of requests."""
    work.write("in.jsonl", [ROW])
    with Loopback(whole=lambda body: whole) as server:
        run = ("sample", "in.jsonl", "--base-url", server.url, *options)
        first, second = work.dream(*run), work.dream(*run)
    assert (first.code, first.out) == (second.code, second.out)
    return second, server.calls


@pytest.mark.parametrize(
    ("whole", "text", "finish"),
    [
        (reply({"content": "Blue."}), "Blue.", "stop"),
        (reply({"content": [{"type": "text", "text": "Blue"}, {"type": "text", "text": "."}]}), "Blue.", "stop"),
        (reply({"content": [{"type": "thinking", "thinking": [{"text": "Red?"}]}, {"type": "text", "text": "Blue."}]}), "Blue.", "stop"),
        (reply({"content": None, "refusal": SORRY}), SORRY, "refusal"),
        (reply({"content": "Blue.", "refusal": None}), "Blue.", "stop"),
        (reply({"content": "Blue and then"}, "length"), "Blue and then", "length"),
        (reply({"content": "Blue."}, {"type": "stop"}), "Blue.", None),
        ({"choices": [{"index": 0, "text": "Blue.", "finish_reason": "stop"}]}, "Blue.", "stop"),
        (b"\xef\xbb\xbf" + json.dumps(reply({"content": "Blue."})).encode(), "Blue.", "stop"),
    ],
)
def test_an_answer_in_any_form_is_kept(work: Workdir, whole: Json | bytes, text: str, finish: str | None) -> None:
    ran, calls = sampled(work, whole)
    assert (ran.code, calls) == (0, 1)
    response = ran.rows[0]["responses"][0]
    assert (response["text"], response.get("finish_reason")) == (text, finish)


@pytest.mark.parametrize(
    ("whole", "kind", "message"),
    [
        (reply({"content": None}, "content_filter"), "filtered", "the server's content filter withheld the reply"),
        (reply({"content": "Half an"}, "content_filter"), "filtered", "the server's content filter withheld the reply"),
        (reply({"content": ""}), "empty", "the reply is empty"),
        (reply({"content": None}, None), "empty", "the reply is empty"),
        (reply({"content": None, "tool_calls": [{}]}, "tool_calls"), "empty", "the reply is empty"),
        (reply({"content": "   \n"}), "empty", "the reply is empty"),
        (reply({"content": ""}, "error"), "engine", "an error in place of an answer"),
        (reply({"content": "Blu"}, "error", error={"message": "upstream is gone"}), "engine", "upstream is gone"),
        ({"error": {"message": "no such account", "code": 402}}, "engine", "402: no such account"),
        ({"error": "no such account"}, "engine", "400: no such account"),
        ({"choices": []}, "engine", "the reply has no choices"),
        ({"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}, "filtered", "the reply has no choices"),
        ({"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}, "filtered", "no choices"),
        (
            reply({"content": ""}, content_filter_results={"hate": {"filtered": False}, "violence": {"filtered": True}}),
            "filtered",
            "the server's content filter withheld the reply",
        ),
        (reply({"content": ""}, content_filter_results={"hate": {"filtered": False}}), "empty", "the reply is empty"),
        (reply({"content": None}, "refusal"), "filtered", "the server's content filter withheld the reply"),
        ({"choices": None}, "engine", "the reply has no choices"),
        ({"choices": {"0": {}}}, "engine", "the reply has no choices"),
        ({"choices": ["Blue."]}, "engine", "the reply has no choices"),
        (reply("Blue."), "engine", "is not an object: 'Blue.'"),
        (reply(None), "engine", "is not an object: 'None'"),
        ({"choices": [{}]}, "engine", "has no message"),
        (reply({"content": 7}), "engine", "the content of the reply is not text: '7'"),
        (reply({"content": {"text": "Blue."}}), "engine", "the content of the reply is not text"),
        (b"[" * 200_000, "engine", "the reply is not a JSON object"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "engine", "the reply is not a JSON object"),
        (b"[]", "engine", "the reply is not a JSON object"),
        (b"", "engine", "the reply is not a JSON object"),
        (b"\xff\xfe", "engine", "the reply is not a JSON object"),
    ],
)
def test_what_is_no_answer_is_an_error_of_the_row_and_is_not_kept(work: Workdir, whole: Json | bytes, kind: str, message: str) -> None:
    ran, calls = sampled(work, whole)
    assert (ran.code, calls) == (1, 2)
    assert ran.rows[0]["error"]["kind"] == kind
    assert message in ran.rows[0]["error"]["message"]
    assert "responses" not in ran.rows[0]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "broken reply: the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "broken reply: the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "broken reply: Response payload is not completed"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "broken reply: "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", "broken reply: "),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 100_000 + b"\r\n\r\n{}", "broken reply: "),
        (b"hello", "broken reply: "),
    ],
)
def test_a_reply_that_breaks_off_is_not_a_server_that_cannot_be_reached(raw: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_attempt, "BACKOFF", 0.001)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        listed = b'HTTP/1.1 200 OK\r\nContent-Length: 25\r\nConnection: close\r\n\r\n{"data": [{"id": "one"}]}'
        writer.write(listed if b"/models" in head else raw)
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            engine = await open_openai(EngineSpec(base_url=f"http://127.0.0.1:{port}/v1"))
            try:
                with pytest.raises(EngineError, match=rf"^http://127\.0\.0\.1:{port}/v1: {message}.* \(5 times\)$"):
                    await engine.generate([ChatMessage("user", "Name a colour.")], Sampling(), [0])
            finally:
                await engine.close()

    asyncio.run(ask())


def test_one_filtered_sample_stands_beside_the_others_and_is_never_scored(work: Workdir) -> None:
    work.write("in.jsonl", [ROW | {"observations": []}])
    mixed = {
        "choices": [reply({"content": "Blue."})["choices"][0], reply({"content": None}, "content_filter")["choices"][0] | {"index": 1}]
    }
    with Loopback(whole=lambda body: mixed) as server:
        ran = work.dream("sample", "in.jsonl", "-n", "2", "--base-url", server.url, "-o", "sampled.jsonl")
        assert ran.code == 0
        # What is kept is the one answer: the other sample alone is requested again.
        work.dream("sample", "in.jsonl", "-n", "2", "--base-url", server.url)
    assert [body.get("n") for body in server.bodies] == [2, None]

    def judge(body: Json) -> str:
        return "8" if "10" in body["messages"][0]["content"] else answers_of(body)[1]

    with Loopback(reply=judge, ignore=["logprobs"]) as server:
        ran = work.dream("judge", "sampled.jsonl", "--base-url", server.url)
    answered, filtered = ran.rows[0]["responses"]
    assert answered["judgement"]["score"] == 0.8
    assert filtered["finish_reason"] == "content_filter"
    assert filtered["judgement"] == {"model": "loopback", "unscored": "the response is empty or was withheld by a content filter"}
    # Helpfulness, the two facts of harm, and harm in other words: of the answer alone.
    assert server.calls == 4


@pytest.mark.parametrize(
    "response", [{"text": "", "finish_reason": "stop"}, {"text": "Half an", "finish_reason": "content_filter"}, {"text": " \n"}]
)
def test_a_response_that_is_none_costs_no_call_of_the_judge(work: Workdir, response: Json) -> None:
    work.write("in.jsonl", [ROW | {"observations": [], "responses": [response]}])
    with Loopback(reply=lambda body: "8") as server:
        ran = work.dream("judge", "in.jsonl", "--base-url", server.url)
    assert (ran.code, server.calls) == (0, 0)
    assert ran.rows[0]["responses"][0]["judgement"]["unscored"].startswith("the response is empty")


def test_an_empty_reply_of_an_older_store_is_requested_again(work: Workdir) -> None:
    import sqlite3

    ran, _ = sampled(work, reply({"content": "Blue."}))
    with sqlite3.connect(work.path / "calls.sqlite") as db:
        (kept,) = db.execute("SELECT reply FROM calls").fetchone()
        db.execute("UPDATE calls SET reply = ?", (json.dumps(json.loads(kept) | {"text": ""}),))
    db.close()
    ran, calls = sampled(work, reply({"content": "Red."}))
    assert (ran.rows[0]["responses"][0]["text"], calls) == ("Red.", 1)


def test_a_benchmark_that_gets_no_answer_has_an_error_and_no_verdict(work: Workdir) -> None:
    item = {"benchmark": {"name": "xstest", "subset": "safe", "item": "1", "topic": "homonyms"}}
    work.write("items.jsonl", [ROW | item])
    with Loopback(whole=lambda body: reply({"content": None}, "content_filter")) as server:
        ran = work.dream("eval", "items.jsonl", "--rule", "official", "--model", "loopback", "--base-url", server.url, "--judge", "nano")
    assert ran.code == 1
    assert ran.rows[0]["error"]["kind"] == "filtered"


@pytest.mark.parametrize("read", ["expected", "parsed"])
def test_a_marked_refusal_of_a_judge_is_no_verdict_whatever_its_words(work: Workdir, read: str) -> None:
    work.write("in.jsonl", [ROW | {"observations": [OBSERVED], "response": "Blue."}])
    arguments = ("judge", "in.jsonl", "--score", "observation", "--read", read)
    with Loopback(whole=lambda body: reply({"content": None, "refusal": "No."})) as server:
        ran = work.dream(*arguments, "--base-url", server.url)
    unscored = {"unscored": "the judge declines to answer: 'No.'", "model": "loopback"}
    assert (ran.rows[0]["responses"][0]["judgement"], server.calls) == (unscored, 2)

    def yes_if_asked_again(body: Json) -> Json:
        again = body["messages"][0]["content"].endswith("Write nothing else.")
        return reply({"content": answers_of(body)[0]} if again else {"content": None, "refusal": "No."})

    with Loopback(whole=yes_if_asked_again) as server:
        runs = [work.dream(*arguments, "--base-url", server.url) for _ in range(2)]
    assert [ran.rows[0]["responses"][0]["judgement"]["recognised"] for ran in runs] == [[1.0], [1.0]]
    assert server.calls == 4  # the observation and harm, each asked twice by the first run and never by the second


def test_log_probabilities_beside_an_empty_reply_are_no_verdict(work: Workdir) -> None:
    work.write("in.jsonl", [ROW | {"observations": [OBSERVED], "response": "Blue."}])
    logprobs = {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": [{"token": "Yes", "logprob": -0.1}]}]}
    with Loopback(whole=lambda body: reply({"content": None}, "tool_calls", logprobs=logprobs)) as server:
        ran = work.dream("judge", "in.jsonl", "--score", "observation", "--base-url", server.url)
    assert (ran.code, ran.rows[0]["error"]["kind"]) == (1, "empty")


@pytest.mark.parametrize(
    "logprobs",
    [
        [],
        "high",
        {"content": {}},
        {"content": [None]},
        {"content": ["Yes"]},
        {"content": [{"token": "Yes", "logprob": "-0.1"}]},
        {"content": [{"token": "Yes", "logprob": True}]},
        {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": 5}]},
        {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": ["No"]}]},
    ],
)
def test_odd_log_probabilities_are_the_error_of_the_row(work: Workdir, logprobs: Any) -> None:
    work.write("in.jsonl", [ROW | {"observations": [OBSERVED], "response": "Blue."}])
    with Loopback(whole=lambda body: reply({"content": "Yes"}, logprobs=logprobs)) as server:
        ran = work.dream("judge", "in.jsonl", "--score", "observation", "--base-url", server.url)
    assert (ran.code, ran.rows[0]["error"]["kind"]) == (1, "engine")
    assert "log-probabilit" in ran.rows[0]["error"]["message"]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "5.0", "0.02"])
@pytest.mark.parametrize("alternative", [False, True])
def test_a_number_that_is_no_log_probability_leaves_the_response_unscored(work: Workdir, number: str, alternative: bool) -> None:
    work.write("in.jsonl", [ROW | {"observations": [OBSERVED], "response": "Blue."}])
    logprobs = f'"logprob": -0.1, "top_logprobs": [{{"token": "No", "logprob": {number}}}]' if alternative else f'"logprob": {number}'
    body = f'{{"choices": [{{"message": {{"content": "Yes"}}, "logprobs": {{"content": [{{"token": "Yes", {logprobs}}}]}}}}]}}'
    with Loopback(whole=lambda _: body.encode()) as server:
        ran = work.dream("judge", "in.jsonl", "--score", "observation", "--base-url", server.url)
    odd = str(float(number))
    unscored = f"a log-probability of the reply is not a number up to 0: {odd!r}"
    assert (ran.code, ran.rows[0]["responses"][0]["judgement"]) == (0, {"unscored": unscored, "model": "loopback"})
    assert f"unscored: 1 x {unscored.rpartition(':')[0]}" in ran.err


@pytest.mark.parametrize("brackets", ["[" * 5000 + "]" * 5000, '[{"a":' * 400, "[" + "{" * 300 + "]", "[" * 400 + "]"])
def test_nested_brackets_of_a_teacher_are_an_unreadable_answer(work: Workdir, brackets: str) -> None:
    work.write("in.jsonl", [ROW, ROW | {"id": "b", "prompt": "Name a fruit."}])

    def answer(body: Json) -> str:
        if "response_format" not in body:
            return "Yes"  # there is a risk; the list of risks has a schema
        return brackets if "colour" in body["messages"][-1]["content"] else json.dumps([OBSERVED])

    with Loopback(reply=answer, tokens=lambda body: [[(answer(body), 1.0)]]) as server:
        ran = work.dream("disentangle", "in.jsonl", "--mode", "text", "--no-verify", "--base-url", server.url)
    assert "Traceback" not in ran.err
    assert ran.code == 1
    assert ran.rows[0]["error"]["kind"] == "unparsed"
    assert ran.rows[1]["observations"] == [OBSERVED | {"confidence": 1.0}]


@pytest.mark.parametrize("usage", [None, [], "many", {"prompt_tokens": "5"}, {"prompt_tokens": float("nan")}, {"prompt_tokens": 10**400}])
def test_odd_counts_of_tokens_count_for_none(work: Workdir, usage: Any) -> None:
    assert token_count(usage, "prompt_tokens") is None
    ran, _ = sampled(work, reply({"content": "Blue."}) | {"usage": usage}, "-v")
    assert ran.rows[0]["responses"][0]["text"] == "Blue."


def test_a_quota_that_is_spent_and_a_long_wait_are_not_waited_for(work: Workdir) -> None:
    work.write("in.jsonl", [ROW])
    quota = Fault(429, "You exceeded your current quota, please check your plan and billing details.")
    wait = Fault(429, "slow down", {"Retry-After": "99999999999"})
    for fault, words in ((quota, "429: You exceeded your current quota"), (wait, "the server asks to wait for 99999999999 s: slow down")):
        with Loopback(refuse=lambda body, fault=fault: fault) as server:  # type: ignore[misc]
            ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
        assert (ran.code, server.calls) == (1, 1)
        assert words in ran.rows[0]["error"]["message"]


def test_a_failure_of_the_server_behind_a_router_is_tried_again(work: Workdir) -> None:
    work.write("in.jsonl", [ROW])
    replies = [{"error": {"code": 429, "message": "slow down"}}, {"error": {"code": 502, "message": "gone"}}, reply({"content": "Blue."})]
    with Loopback(whole=lambda body: replies.pop(0)) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert (ran.code, server.calls) == (0, 3)


def test_a_500_about_what_the_model_cannot_do_is_not_tried_again(work: Workdir) -> None:
    work.write("in.jsonl", [ROW])
    with Loopback(refuse=lambda body: Fault(500, "image input is not supported")) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert (ran.code, server.calls) == (1, 1)


def test_what_is_no_answer_has_a_reason() -> None:
    assert answer_of(Completion("Blue.", "length")) == "Blue."
    with pytest.raises(NoAnswer) as caught:
        answer_of(Completion("Blu", "content_filter"))
    assert caught.value.kind == "filtered"
    with pytest.raises(NoAnswer) as caught:
        answer_of(Completion(" ", "stop"))
    assert caught.value.kind == "empty"
    with pytest.raises(UnreadableAnswer, match="--thinking-budget"):
        answer_of(Completion("", "length", reasoning="a"))
    with pytest.raises(UnreadableAnswer, match="holds no text up to its maximum number of tokens"):
        answer_of(Completion("", "length"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "text", "token", "logprob", "top_logprobs"]), inner)
    ),
    max_leaves=8,
)
FIELDS = ["index", "message", "finish_reason", "logprobs", "text", "error"]


@given(st.dictionaries(st.sampled_from(["choices", "usage"]), JSON | st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON), max_size=3)))
def test_no_shape_of_a_reply_raises_anything_but_an_engine_error(whole: Json) -> None:
    for read in (read_completions, lambda reply: [read_positions(choice) for choice in read_choices(reply)]):
        try:
            for completion in read(whole):
                assert not isinstance(completion, Completion) or isinstance(completion.text, str)
        except EngineError:
            pass

"""Replies in the words of other servers: blocked prompts, finish reasons, and messages in parts."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from dream_cli.engines import openai_attempt
from dream_cli.engines.openai_reply import read_completions
from dream_cli.engines.protocol import ChatMessage, Sampling
from dream_cli.errors import EngineError, NoAnswer
from tests.conftest import Workdir
from tests.loopback import Fault, Json, Loopback, using

SORRY = "I'm sorry, I can't assist with that request."
CHAT = [ChatMessage("user", "Name a colour.")]


def reply(message: Json, finish: Any = "stop") -> Json:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


BLOCKED = [
    "The response was filtered due to the prompt triggering the content management policy.",
    "litellm.ContentPolicyViolationError: the request was blocked",
    "Your request was rejected as a result of our safety system.",
    "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
    "<400> InternalError.Algo.DataInspectionFailed: Input data may contain inappropriate content.",
    "Content Exists Risk",
    "The request was rejected because it was considered high risk",
    "Output blocked by content filtering policy",
    "Content violates usage guidelines.",
    'Your input was flagged for "harassment"',
    "blocked by Bedrock Guardrails",
    "The prompt contains words that violate Google's Responsible AI practices",
    "The model requires moderation. Your input was flagged",
    "InputTextSensitiveContentDetected: the input text may contain sensitive information",
    "系统检测到输入或生成内容可能包含不安全或敏感内容",
    "We've limited access to this content for safety reasons.",
]


def test_a_prompt_that_a_filter_holds_back_has_a_kind_of_its_own(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": str(i), "prompt": f"{i}."} for i in range(len(BLOCKED))])
    with Loopback(refuse=lambda body: Fault(400, BLOCKED[int(body["messages"][0]["content"].rstrip("."))])) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert (ran.code, server.calls, [row["error"]["kind"] for row in ran.rows]) == (1, len(BLOCKED), ["filtered"] * len(BLOCKED))


def test_the_error_of_the_server_behind_a_gateway_is_reported(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Name a colour."}])
    error = {"message": "Provider returned error", "code": 400, "metadata": {"raw": '{"error":{"message":"the image is too small"}}'}}
    with Loopback(whole=lambda body: {"error": error}) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert ran.rows[0]["error"]["message"].endswith("/v1: 400: Provider returned error: the image is too small")


@pytest.mark.parametrize("status", [403, 500])
def test_a_filter_is_known_by_its_words_whatever_the_status(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_attempt, "BACKOFF", 0.001)
    with Loopback(refuse=lambda body: Fault(status, BLOCKED[0])) as server, pytest.raises(NoAnswer) as caught:
        using(server, lambda engine: engine.generate(CHAT, Sampling(), [0]))
    assert caught.value.kind == "filtered"


@pytest.mark.parametrize(
    ("finish", "ours"),
    [
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("SAFETY", "content_filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("content-filter", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("insufficient_system_resource", "error"),
        ("abort", "error"),
        ("FinishReason.MAX_TOKENS", "length"),
        ("truncated", "length"),
        ("max_completion_tokens", "length"),
        ("content-policy", "content_filter"),
        ("STOP ", "stop"),
        ("preempted", "error"),
        ("tool_calls", "tool_calls"),
        (7, None),
    ],
)
def test_the_finish_reasons_of_other_servers_are_read(finish: Any, ours: str | None) -> None:
    completion = read_completions(reply({"content": "Blue."}, finish))[0]
    assert (completion.finish_reason, completion.is_answer) == (ours, ours != "content_filter")


@pytest.mark.parametrize(("finish", "stop", "ours"), [(None, "max_tokens", "length"), (None, 128009, None), ("stop", "max_tokens", "stop")])
def test_a_stop_reason_counts_where_there_is_no_finish_reason(finish: str | None, stop: Any, ours: str | None) -> None:
    choice = reply({"content": "Blue."}, finish)["choices"][0] | {"stop_reason": stop}
    assert read_completions({"choices": [choice]})[0].finish_reason == ours


@pytest.mark.parametrize("finish", ["abort", "insufficient_system_resource", "network_error", "ERROR"])
def test_a_reply_that_the_server_broke_off_is_an_error(finish: str) -> None:
    with (
        Loopback(whole=lambda body: reply({"content": "Blu"}, finish)) as server,
        pytest.raises(EngineError, match="in place of an answer"),
    ):
        using(server, lambda engine: engine.generate(CHAT, Sampling(), [0]))


@pytest.mark.parametrize(
    ("message", "text", "finish", "reasoning"),
    [
        ({"content": [{"type": "refusal", "refusal": SORRY}]}, SORRY, "refusal", None),
        ({"content": [{"type": "reasoning", "text": "Yes?"}, {"type": "text", "text": "No"}]}, "No", "stop", "Yes?"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Red?"}]}, "Blue."]}, "Blue.", "stop", "Red?"),
        ({"content": [{"type": "thinking", "thinking": "Red?"}, {"type": "output_text", "text": "Blue."}]}, "Blue.", "stop", "Red?"),
        ({"content": "Blue.", "thinking": "Red?"}, "Blue.", "stop", "Red?"),
        ({"content": "Blue.", "reasoning": {"of": 1}}, "Blue.", "stop", None),
        ({"content": [{"type": "reasoning_text", "text": "Red?"}, {"type": "text", "text": "Blue."}]}, "Blue.", "stop", "Red?"),
        ({"content": [{"text": "Red?", "thought": True}, {"text": "Blue."}]}, "Blue.", "stop", "Red?"),
        ({"content": [{"type": "reasoning", "summary": [{"text": "Red?"}]}, {"type": "text", "text": "Blue."}]}, "Blue.", "stop", "Red?"),
        ({"content": "Blue.", "reasoning_content": [{"type": "text", "text": "Red?"}]}, "Blue.", "stop", "Red?"),
        ({"content": "Blue.", "thinking_blocks": [{"type": "thinking", "thinking": "Red?"}]}, "Blue.", "stop", "Red?"),
        ({"content": "Blue.", "reasoning": {"content": "Red?"}}, "Blue.", "stop", "Red?"),
        ({"content": [{"type": "text", "text": {"value": "Blue.", "annotations": []}}]}, "Blue.", "stop", None),
        ({"content": [{"type": "tool_use"}, 7, None]}, "", "empty", None),
    ],
)
def test_parts_of_a_message_are_text_refusal_or_thoughts(message: Json, text: str, finish: str, reasoning: str | None) -> None:
    completion = read_completions(reply(message))[0]
    assert (completion.text, completion.finish_reason, completion.reasoning) == (text, finish, reasoning)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Blue.<|im_end|>", "Blue."),
        ("Blue.\n<end_of_turn>\n", "Blue."),
        ("Blue.</s><pad><pad>", "Blue."),
        ("Blue <|im_end|> red.", "Blue <|im_end|> red."),
        ("<s>Blue.</s>", "<s>Blue.</s>"),
        ("Blue. \n", "Blue. \n"),
    ],
)
def test_the_tokens_that_end_a_turn_are_not_part_of_the_text(content: str, text: str) -> None:
    completion = read_completions(reply({"content": content}))[0]
    assert (completion.text, completion.finish_reason) == (text, "stop")


def events(*pieces: Json, end: str = "data: [DONE]\n\n") -> bytes:
    return ("".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + end).encode()


def piece(text: str | None, finish: str | None = None, index: int = 0, **delta: Any) -> Json:
    return {"choices": [{"index": index, "delta": {"content": text, **delta}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("body", "text", "reasoning"),
    [
        (events(piece("Bl", role="assistant"), piece("ue."), piece(None, "stop"), {"choices": [], "usage": {}}), "Blue.", None),
        (events(piece(None, reasoning_content="Re"), piece(None, reasoning_content="d?"), piece("Blue.", "stop")), "Blue.", "Red?"),
        (b": ping\n\nevent: message\n" + events(piece("Blue.", "stop"), end=""), "Blue.", None),
        (events(piece("Blue.", "stop")).replace(b"\n", b"\r\n"), "Blue.", None),
        (events(reply({"content": "Blue."})), "Blue.", None),
    ],
)
def test_a_stream_that_is_sent_although_not_requested_is_read(body: bytes, text: str, reasoning: str | None) -> None:
    with Loopback(whole=lambda _: body) as server:
        (completion,) = using(server, lambda engine: engine.generate(CHAT, Sampling(), [0]))
    assert (completion.text, completion.finish_reason, completion.reasoning) == (text, "stop", reasoning)


def test_the_samples_and_log_probabilities_of_a_stream() -> None:
    both = events(piece("Red.", index=1), piece("Blue", index=0), piece(".", "stop", 0), piece(None, "length", 1))
    with Loopback(whole=lambda _: both) as server:
        drawn = using(server, lambda engine: engine.generate(CHAT, Sampling(temperature=1.0), [0, 1]))
    assert [(completion.text, completion.finish_reason) for completion in drawn] == [("Blue.", "stop"), ("Red.", "length")]
    top = [{"token": "Yes", "logprob": math.log(0.75)}, {"token": "No", "logprob": math.log(0.25)}]
    choice = piece("Yes", "stop")["choices"][0] | {"logprobs": {"content": [top[0] | {"top_logprobs": top}]}}
    with Loopback(whole=lambda _: events({"choices": [choice]})) as server:
        verdict = using(server, lambda engine: engine.choose(CHAT, ["Yes", "No"]))
    assert verdict.probabilities == pytest.approx({"Yes": 0.75, "No": 0.25})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (events(piece("Bl"), end=""), "is not a JSON object"),
        (events(piece("Blue.", "stop"), end='data: {"choi'), "is not a JSON object"),
        (b"data: [DONE]\n\n", "is not a JSON object"),
        (events(piece("Bl"), {"error": {"message": "the input is too long", "code": 400}}), "400: the input is too long"),
    ],
)
def test_a_stream_that_ends_early_or_with_an_error_is_an_error(body: bytes, words: str) -> None:
    with Loopback(whole=lambda _: body) as server, pytest.raises(EngineError, match=words):
        using(server, lambda engine: engine.generate(CHAT, Sampling(), [0]))


@pytest.mark.parametrize("content", ["", " \n", "\u200b", "\ufeff", "<|eot_id|>", "</s>", "<pad><pad>"])
def test_a_text_without_a_visible_character_is_empty(content: str) -> None:
    completion = read_completions(reply({"content": content}))[0]
    assert (completion.text, completion.finish_reason, completion.is_answer) == ("", "empty", False)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "model overloaded", "code": 503}, 503),
        ({"message": "slow down", "code": "429"}, 429),
        ({"type": "overloaded_error", "message": "Overloaded"}, 503),
        ({"type": "rate_limit_error", "message": "Wait."}, 429),
        ({"message": "Internal server error", "code": "x"}, 503),
        ("the upstream timed out", 503),
        ({"message": "the input is too long", "code": "invalid_request"}, 400),
        ({"message": "the input is too long", "code": 7}, 400),
    ],
)
def test_the_status_of_a_failure_that_is_reported_with_status_200(error: Any, status: int) -> None:
    failure = openai_attempt.embedded_failure({"error": error})
    assert failure is not None
    assert (failure.status, openai_attempt.is_passing(failure)) == (status, status != 400)

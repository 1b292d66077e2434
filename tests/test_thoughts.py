"""The thoughts of a reasoning model never reach a text, a list or a verdict."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.engines.protocol import Completion, Sampling
from dream_cli.engines.thoughts import EXTRA_TOKENS, split_thoughts, with_more_tokens, with_thoughts_apart
from tests.conftest import Workdir
from tests.loopback import Fault, Json, Loopback

OBSERVED = {"malicious_content": "a home address", "source": "text instruction", "risk_category": "Privacy"}
ROW = {"id": "a", "prompt": "What is on the sign?"}
JUDGED = ROW | {"observations": [OBSERVED], "response": "The sign shows where someone lives, so it is better not shared."}
MARKS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<THINK>", "</think>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_marks_of_all_spellings(opening: str, closing: str) -> None:
    parts = split_thoughts(f"{opening}\nYes? 3 or [4]?\n{closing}\n\nNo")
    assert (parts.text, parts.reasoning, parts.unclosed) == ("No", "Yes? 3 or [4]?", False)
    cut = split_thoughts(f"{opening}\nYes? 3 or")
    assert (cut.text, cut.reasoning, cut.unclosed) == ("", "Yes? 3 or", True)


@pytest.mark.parametrize(
    ("reply", "text", "reasoning"),
    [
        ("I would say yes.\n</think>\n8", "8", "I would say yes."),  # the chat template wrote the opening mark
        ("<think>one</think><think>two</think>8", "8", "one\n\ntwo"),
        ("<think>\n\n</think>\n\n8", "8", ""),
        ("<think>a</think>\n<answer> 8 </answer>", "8", "a"),
        ("Well.\n<think>a</think>8", "Well.\n8", "a"),
        ("<think>a</think>\n<response>8</response>", "8", "a"),
        ("<think>a</think><|begin_of_solution|>8<|end_of_solution|>", "8", "a"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>8<|END_RESPONSE|>", "8", "a"),
        ("a</thought>8", "8", "a"),
        ("a</reasoning>\n8", "8", "a"),
        ("a<|END_THINKING|>8", "8", "a"),
        ("Close it with `</think>` at the end.", "Close it with `</think>` at the end.", None),
        ("Here is my thought process:\na\n\nHere is my response:\n8", "8", "a"),
        ("Here is my thought process: first a.", "Here is my thought process: first a.", None),
        ("<|channel|>final<|message|>8<|return|>", "8", ""),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=x<|message|>b<|call|><|start|>assistant"
            + "<|channel|>analysis<|message|>c<|end|><|start|>assistant<|channel|>final<|message|>8<|return|>",
            "8",
            "a\n\nb\n\nc",
        ),
        ("analysisI would say 3.assistantcommentaryHm.assistantfinal8", "8", "I would say 3.\n\nHm."),
        ("analysis of the picture: 8", "analysis of the picture: 8", None),
        ("Write <think> in the prompt.", "Write <think> in the prompt.", None),
        ("  8 ", "  8 ", None),
        ("<answer>8</answer>", "<answer>8</answer>", None),
    ],
)
def test_what_is_answer_and_what_is_thought(reply: str, text: str, reasoning: str | None) -> None:
    parts = split_thoughts(reply)
    assert (parts.text, parts.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    "reply",
    ["analysisWe need to", "<|channel|>analysis<|message|>We need to", "<|channel|>analysis<|message|>We need<|end|><|start|>assistant"],
)
def test_a_reply_of_channels_without_a_final_one_is_cut_off(reply: str) -> None:
    parts = split_thoughts(reply)
    assert (parts.text, parts.unclosed) == ("", True)
    assert (parts.reasoning or "").startswith("We need")


@given(st.text())
def test_no_reply_ends_in_an_exception_and_what_is_left_is_stable(reply: str) -> None:
    once = split_thoughts(reply)
    assert split_thoughts(once.text).text == once.text


@given(st.text(alphabet="ab \n"), st.text(alphabet="xyz", min_size=1))
def test_a_thought_is_never_part_of_the_text(thought: str, answer: str) -> None:
    assert split_thoughts(f"<think>{thought}</think>{answer}").text == answer


def test_a_reply_that_ends_inside_its_thoughts_is_cut_off() -> None:
    assert with_thoughts_apart(Completion("<think>a", "stop")) == Completion("", "length", reasoning="a")
    assert with_thoughts_apart(Completion("<think>a</think>b", "stop", reasoning="c")) == Completion("b", "stop", reasoning="c\n\na")


def test_only_thoughts_that_are_cut_get_more_room_and_once() -> None:
    requests: list[tuple[int, list[int]]] = []

    async def draw(sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        requests.append((sampling.max_tokens, list(samples)))
        return [Completion("", "length", reasoning="a") if s == 1 else Completion("b", "length") for s in samples]

    drawn = asyncio.run(with_more_tokens(draw, Sampling(max_tokens=100), [0, 1, 2]))
    assert requests == [(100, [0, 1, 2]), (100 + EXTRA_TOKENS, [1])]
    assert [c.text for c in drawn] == ["b", "", "b"]


def is_list(body: Json) -> bool:
    """Whether a request is for a list of risks, and not for a verdict."""
    return "response_format" in body


def thinker(answer: str, needed: int, field: str | None = None) -> Any:
    """Return a model that thinks for `needed` tokens: in its text, or in a field of the message."""

    def whole(body: Json) -> Json:
        limit = body.get("max_tokens") or body["max_completion_tokens"]
        done = limit > needed
        thought = "Yes? 3 or 4? Maybe [] or [1]."
        text = answer if answer else "[]"
        if field is None:
            content: str | None = f"<think>{thought}</think>\n{text}" if done else f"<think>{thought}"
            message: Json = {"role": "assistant", "content": content}
        else:
            message = {"role": "assistant", "content": text if done else None, field: thought}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop" if done else "length"}]}

    return whole


@pytest.mark.parametrize("field", [None, "reasoning_content", "reasoning"])
def test_the_thoughts_of_a_policy_stand_in_a_field_of_their_own(work: Workdir, field: str | None) -> None:
    work.write("in.jsonl", [ROW])
    with Loopback(whole=thinker("A mild answer.", 50, field)) as server:
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert ran.code == 0
    assert ran.rows[0]["responses"] == [
        {"text": "A mild answer.", "model": "loopback", "finish_reason": "stop", "reasoning": "Yes? 3 or 4? Maybe [] or [1]."}
    ]


@pytest.mark.parametrize("field", [None, "reasoning_content"])
def test_a_judge_that_thinks_is_given_room_once_and_then_from_the_start(work: Workdir, field: str | None) -> None:
    work.write("in.jsonl", [JUDGED, JUDGED | {"id": "b", "prompt": "And here?"}])
    with Loopback(whole=thinker("8", 50, field)) as server:
        ran = work.dream("judge", "in.jsonl", "--score", "global", "--base-url", server.url, "--concurrency", "1")
    assert [row["responses"][0]["judgement"]["global_score"] for row in ran.rows] == [8.0, 8.0]
    assert [row["responses"][0]["judgement"]["rubric"] for row in ran.rows] == ["global/parsed"] * 2
    assert [body["max_tokens"] for body in server.bodies] == [4, 16 + EXTRA_TOKENS, 16 + EXTRA_TOKENS]


def test_a_judge_that_never_stops_thinking_leaves_the_response_unscored(work: Workdir) -> None:
    work.write("in.jsonl", [JUDGED])
    with Loopback(whole=thinker("8", 10**6)) as server:
        ran = work.dream("judge", "in.jsonl", "--score", "global", "--base-url", server.url)
        judgement = ran.rows[0]["responses"][0]["judgement"]
        assert "score" not in judgement
        assert "cut off inside its thoughts; allow more tokens with --thinking-budget" in judgement["unscored"]
        # What could not be read is requested again.
        work.dream("judge", "in.jsonl", "--score", "global", "--base-url", server.url)
    assert [body["max_tokens"] for body in server.bodies] == [4, 16 + EXTRA_TOKENS] * 2


def test_a_vendor_that_hides_its_thoughts_and_one_that_refuses_a_small_budget(work: Workdir) -> None:
    work.write("in.jsonl", [JUDGED, JUDGED | {"id": "b", "prompt": "And here?"}])

    def hidden(body: Json) -> Json:
        done = body["max_tokens"] > 200
        return {"choices": [{"message": {"content": "8" if done else ""}, "finish_reason": "stop" if done else "length"}]}

    def refuse(body: Json) -> Fault | None:
        text = "Could not finish the message because max_tokens or model output limit was reached."
        return Fault(400, text) if body["max_tokens"] < 200 else None

    for server in (Loopback(whole=hidden), Loopback(refuse=refuse, reply=lambda body: "8", ignore=["logprobs"])):
        with server:
            ran = work.dream("judge", "in.jsonl", "--score", "global", "--base-url", server.url, "--concurrency", "1")
        assert [row["responses"][0]["judgement"]["global_score"] for row in ran.rows] == [8.0, 8.0]
        assert [body["max_tokens"] for body in server.bodies] == [4, 16 + EXTRA_TOKENS, 16 + EXTRA_TOKENS]


def test_a_list_in_the_thoughts_of_a_teacher_is_no_list(work: Workdir) -> None:
    work.write("in.jsonl", [ROW])
    with Loopback(whole=lambda body: thinker(json.dumps([OBSERVED]) if is_list(body) else "Yes", 50)(body)) as server:
        ran = work.dream("disentangle", "in.jsonl", "--no-verify", "--base-url", server.url)
    # Without token probabilities the answer Yes is certain.
    assert ran.rows[0]["observations"] == [OBSERVED | {"confidence": 1.0}]
    with Loopback(whole=thinker("No", 50)) as server:
        ran = work.dream("disentangle", "in.jsonl", "--no-verify", "--base-url", server.url)
    assert ran.rows[0]["observations"] == []


def test_the_thinking_budget_is_room_on_top_of_the_answer(work: Workdir) -> None:
    work.write("in.jsonl", [JUDGED])
    with Loopback(whole=lambda body: thinker("Yes" if "Yes or No" in str(body) else "8", 50)(body)) as server:
        ran = work.dream("judge", "in.jsonl", "--score", "global", "--base-url", server.url, "--thinking-budget", "500")
        assert ran.rows[0]["responses"][0]["judgement"]["global_score"] == 8.0
        work.dream("disentangle", "in.jsonl", "--redo", "--no-verify", "--base-url", server.url, "--thinking-budget", "500")
    # The score, whether there is a risk, and the list of risks, which "8" is not: it is requested twice.
    assert [body["max_tokens"] for body in server.bodies] == [516, 516, 1012, 1012]


def test_a_thinking_budget_of_zero_asks_for_no_thoughts(work: Workdir) -> None:
    work.write("in.jsonl", [JUDGED])
    with Loopback(reply=lambda body: "8") as server:
        work.dream("judge", "in.jsonl", "--score", "global", "--base-url", server.url, "--thinking-budget", "0")
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert server.bodies[0]["max_tokens"] == 4
    with Loopback(model="openai/gpt-5-mini", reply=lambda body: "8") as server:
        work.dream("judge", "in.jsonl", "--score", "global", "--base-url", server.url, "--thinking-budget", "0")
    assert server.bodies[0]["reasoning_effort"] == "minimal"
    assert "chat_template_kwargs" not in server.bodies[0]

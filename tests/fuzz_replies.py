"""Fuzzing of the replies of a server: the checks of what is read from them, and the parts that inputs are made of."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from dream_cli.engines.address import read_address
from dream_cli.engines.breaker import Outage
from dream_cli.engines.masking import Mask
from dream_cli.engines.openai_attempt import Attempt, Refused, embedded_failure, error_message, is_of_account, is_passing, seconds
from dream_cli.engines.openai_events import read_events
from dream_cli.engines.openai_reply import read_choices
from dream_cli.engines.openai_request import blamed_parameters
from dream_cli.engines.openai_server import OpenAIEngine
from dream_cli.engines.openai_wire import Wire
from dream_cli.engines.protocol import ChatMessage, Completion, EngineSpec, Sampling
from dream_cli.engines.thoughts import split_thoughts, with_thoughts_apart
from dream_cli.errors import RowError, UnreadableAnswer
from dream_cli.method.read_choice import first_of, score
from dream_cli.prompts.parsing import parse_observations
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.prompts.verdict_words import SCORES, YES_NO, written_answer, written_score
from tests.fuzz_input import Json, parts_of

TOP = [{"token": "8", "logprob": -0.2, "bytes": [56]}, {"token": "1", "logprob": -1.7, "bytes": [49]}]
REPLY = {
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "8", "refusal": None, "reasoning_content": None},
            "finish_reason": "stop",
            "logprobs": {"content": [TOP[0] | {"top_logprobs": TOP}]},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}
ERROR = {
    "error": {"message": "temperature is not supported", "type": "x", "param": "temperature", "code": 429},
    "detail": [{"loc": ["body", "seed"]}],
}


class CannedWire(Wire):
    """A connection on which every request gets the same reply."""

    reply: str

    async def send(self, method: str, path: str, body: Any = None, faults: int = 0) -> dict[str, Any]:
        """Return the reply, read as one of a server."""
        return self._read(self.reply)

    def warn(self, message: str) -> None:
        """Write nothing."""


def canned(reply: str, owner: str) -> OpenAIEngine:
    """Return the engine of a server with a single reply."""
    wire = CannedWire(cast("Any", None), read_address("http://host/v1"), asyncio.Semaphore(1), mask=Mask(), outage=Outage(60.0))
    wire.reply = reply
    return OpenAIEngine(wire, {"id": "m", "owned_by": owner}, EngineSpec())


def check_reply(given: tuple[Json, bool]) -> None:
    """A reply of any shape is completions, readings within their range, or the error of a row."""
    reply, continues = given
    engine, chat = canned(json.dumps(reply), "vllm" if continues else "x"), [ChatMessage("user", "How aware is it?")]

    async def read() -> None:
        try:
            for completion in await engine.generate(chat, Sampling(1.0), [0, 1]):
                assert isinstance(completion.text, str)
                assert completion.finish_reason is None or isinstance(completion.finish_reason, str)
                assert completion.reasoning is None or isinstance(completion.reasoning, str)
                json.dumps([completion.prompt_tokens, completion.completion_tokens], allow_nan=False)
        except RowError:
            pass
        for answers, reading, most in ((SCORES, score, 10), (YES_NO, first_of(YES_NO), 1)):
            try:
                choice = await engine.choose(chat, answers)
                assert 0 <= choice.divided <= 1.000001
                assert 0 <= reading(choice).value <= most
            except RowError:
                pass

    asyncio.run(read())


def check_refusal(given: tuple[Json, str | None]) -> None:
    """The body of an error of any shape is classified and quoted; a wait is none or a number of seconds."""
    body, retry_after = given
    wait = seconds(retry_after)
    assert wait is None or (math.isfinite(wait) and wait >= 0)
    text = json.dumps(body)
    for status in (200, 400, 401, 422, 429, 500):
        attempt = Attempt(status, text, retry_after)
        assert isinstance(is_passing(attempt) or is_of_account(attempt), bool)
        assert 0 < len(error_message(text)) <= 300
        sent = {"temperature": 0.0, "seed": 1, "top_logprobs": 20, "logprobs": True}
        assert blamed_parameters(Refused(status, "no", text), sent) <= set(sent)
    failure = embedded_failure(body) if isinstance(body, dict) else None
    assert failure is None or 400 <= failure.status < 600


# --- the words of a judge and of a teacher

WORDS = (
    "Yes|No|yes|no|8|10|0|7|0.8|8,5|10/10|/10|out of 10|on a scale of 0 to 10|Score: |Answer: |**|`|not |or |and |"
    "between | to |-|~|.|,|:|;|\n| |\"|'|(|)|{|}|[[|]]|%|１０|\\boxed{|I'm sorry, |I can't |maybe |It is |The response |"
    "is aware|so |Step 1: |1. |2) |risk 3 |no doubt |<score>|</score>|->|> |Safe: |If so, |[1]|.8"
)


def check_verdict(reply: str) -> None:
    """Words are one allowed answer or unreadable; those that count alone count among others too, and two answers never do."""
    readings: tuple[tuple[Callable[..., Any], Sequence[str]], ...] = (
        (written_score, SCORES),
        (lambda text, alone=False: written_answer(text, YES_NO, alone=alone), YES_NO),
        (lambda text, alone=False: written_answer(text, ("A", "B"), alone=alone), ("A", "B")),
    )
    for read, answers in readings:
        verdict, strict = (_read(read, reply, alone) for alone in (False, True))
        assert strict is None or strict == verdict
        if verdict is None:
            continue
        assert 0 <= verdict <= 10 if answers is SCORES else verdict in answers
        assert _read(read, f"**{reply}**", False) in (verdict, None)
        assert _read(read, f"{answers[0]} or {answers[1]}", False) is None


def _read(read: Callable[..., Any], text: str, alone: bool) -> Any:
    try:
        return read(text, alone=alone)
    except UnreadableAnswer:
        return None


RISK = {"malicious_content": "a knife", "source": "image content", "risk_category": "Violence"}
LIST = [RISK, RISK | {"malicious_content": "a threat", "source": "text instruction"}]
LISTED = (json.dumps(LIST), json.dumps({"observations": LIST}), f"```json\n{json.dumps(LIST, indent=1)}\n```", "[]", "There are none: []")
MARKS = [mark.encode() for mark in parts_of('[|]|{|}|"|,|:|[{|}]|[{"a":|```|null|//|/*|\\u|NaN|1e999|é|\'|N/A')]
TAXONOMY = Taxonomy.load()


def check_list(given: tuple[bytes, Json]) -> None:
    """An answer is observations with words in every field, or unreadable; a sound list is read as it stands."""
    answer, listed = given
    for text in (answer.decode("utf-8", "replace"), json.dumps(listed)):
        try:
            observations = parse_observations(text, TAXONOMY)
        except UnreadableAnswer:
            continue
        assert all(isinstance(part, str) and part for o in observations for part in (o.malicious_content, o.source, o.risk_category))


def check_thoughts(reply: str) -> None:
    """A reply parts into an answer and thoughts; one without marks stays as it is, one inside its thoughts is no answer."""
    parts = split_thoughts(reply)
    if parts.reasoning is None:
        assert (parts.text, parts.unclosed) == (reply, False)
    completion = with_thoughts_apart(Completion(reply, "stop"))
    if parts.unclosed:
        assert (completion.text, completion.finish_reason, completion.is_answer) == ("", "length", False)
    assert not any(mark in completion.text.lower() for mark in ("</think>",)) or "<think>" in completion.text.lower()


# The marks of thoughts that hold a bar.
CHANNELS = (
    *(
        "<|channel|>",
        "<|message|>",
        "<|start|>assistant",
        "<|end|>",
        "<|return|>",
        "analysis",
        "final",
        "commentary",
        "assistantfinal",
        "We",
    ),
    *("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|channel>thought", "<channel|>", "<think>", "</think>", "8", "\n"),
    *("Here is my thought process:", "Here is my response:", "<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>"),
)

# --- streams of events

EVENTS = (
    *("data: ", "data:", "event: message\n", ": ping\n", "[DONE]", "\n\n", "\r\n", "\u2028", '{"choices": []}', '{"error": {"code": 500}}'),
    *(json.dumps({"choices": [{"index": i, "delta": {"content": "8"}, "finish_reason": f}]}) for i in (0, 1, "a") for f in (None, "stop")),
    *(json.dumps({"choices": [{"message": m, "logprobs": {"content": [1]}}]}) for m in (None, 7, {"content": ["8"]}, {"reasoning": "8"})),
)


def check_stream(body: str) -> None:
    """A body of events is a reply whose choices have all their pieces, an error, or not read."""
    try:
        reply = read_events(body)
    except (ValueError, RecursionError):
        return
    if reply is not None and "error" not in reply:
        assert all(choice["finish_reason"] is not None for choice in read_choices(reply)), reply

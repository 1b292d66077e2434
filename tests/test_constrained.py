"""A judge whose reply cannot be read is kept to the allowed answers where the server can do that, and its verdicts show it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from dream_cli.engines.openai_server import open_openai
from dream_cli.engines.protocol import ChatMessage, EngineSpec
from dream_cli.errors import UnreadableAnswer
from dream_cli.method.read_choice import ChoiceReading, ask_facts, joint_reading
from dream_cli.prompts.verdict_words import YES_NO
from tests.conftest import Workdir
from tests.loopback import Fault, Json, Loopback, Positions, answers_of

FIELDS: Mapping[str, Any] = {
    "vllm": ("structured_outputs", {"choice": ["Yes", "No"]}),
    "llamacpp": ("grammar", 'root ::= "Yes" | "No"'),
    "sglang": ("regex", "(Yes|No)"),
}
CHATTY: Positions = [[("The", 0.7), ("No", 0.2), ("Yes", 0.1)], [(" picture shows a cat.", 1.0)]]


def weak(field: str) -> Any:
    """Return the tokens of a judge that talks, and writes No where it is constrained."""
    return lambda body: [[("No", 1.0)]] if field in body else CHATTY


def verdict(server: Loopback) -> tuple[ChoiceReading[float], tuple[int, float]]:
    """Return the verdict of the server on one Yes/No question, and what is counted of constrained verdicts."""

    async def run() -> tuple[ChoiceReading[float], tuple[int, float]]:
        engine = await open_openai(EngineSpec(base_url=server.url))
        try:
            (read,) = await ask_facts(engine, [([ChatMessage("user", "Is it safe?")], YES_NO)])
            return read, (engine.usage.constrained, engine.usage.covered)
        finally:
            await engine.close()

    return asyncio.run(run())


@pytest.mark.parametrize("owner", FIELDS)
def test_each_server_is_constrained_in_its_own_way(owner: str) -> None:
    field, value = FIELDS[owner]
    with Loopback(owned_by=owner, tokens=weak(field)) as server:
        read, counted = verdict(server)
    assert read == ChoiceReading(0.0, "constrained", "No")
    assert (counted[0], round(counted[1], 6)) == (1, 0.3)
    first, second = (body for body in server.bodies if not body.get("continue_final_message"))
    assert field not in first  # the probabilities of a free reply come first
    assert second[field] == value
    assert second["messages"][-1]["content"].endswith("Answer with exactly one of: Yes, No. Write nothing else.")


def test_a_verdict_that_can_be_read_is_not_constrained() -> None:
    with Loopback(owned_by="llamacpp", tokens=lambda _: [[("No", 0.6), ("Yes", 0.2)]]) as server:
        read, counted = verdict(server)
    assert (read, counted) == (ChoiceReading(0.25, "expected"), (0, 0.0))
    assert len(server.bodies) == 1


def test_a_judge_that_declines_is_not_made_to_give_a_verdict() -> None:
    declining = Loopback(owned_by="llamacpp", tokens=lambda _: [[("I", 0.9), ("No", 0.1)], [("'m sorry, I can't", 1.0)]])
    with declining as server, pytest.raises(UnreadableAnswer, match="declines"):
        verdict(server)
    assert not any("grammar" in body for body in server.bodies)


def test_a_server_that_refuses_the_constraint_is_asked_in_words_and_nothing_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(body: Json) -> Fault | None:
        return Fault(400, "failed to parse grammar") if "grammar" in body else None

    with Loopback(owned_by="llamacpp", refuse=refuse, tokens=lambda body: CHATTY if body.get("logprobs") else [[("Yes.", 1.0)]]) as server:
        assert verdict(server) == (ChoiceReading(1.0, "parsed", "Yes."), (0, 0.0))
    assert "the server refuses `grammar`, which is no longer sent" in capsys.readouterr().err


def test_a_server_that_ignores_the_constraint_gives_no_constrained_verdict() -> None:
    with Loopback(owned_by="vllm", tokens=lambda body: CHATTY if body.get("logprobs") else [[("So the answer is: No", 1.0)]]) as server:
        assert verdict(server)[0] == ChoiceReading(0.0, "parsed", "So the answer is: No")


def test_other_servers_get_no_field_that_they_do_not_know() -> None:
    with Loopback(owned_by="someone", tokens=lambda _: CHATTY) as server, pytest.raises(UnreadableAnswer, match="cover only 0.30"):
        verdict(server)
    assert not any({"grammar", "structured_outputs", "regex"} & set(body) for body in server.bodies)


def test_a_verdict_of_several_is_as_weak_as_its_weakest() -> None:
    assert joint_reading(["expected", "constrained", "parsed"]) == "constrained"
    assert joint_reading(["expected", "parsed"]) == "parsed"
    assert joint_reading([]) == "expected"


def test_the_judgement_and_the_summary_name_the_constraint(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Hello", "observations": [], "response": "Hi."}])

    def tokens(body: Json) -> Positions:
        answer = "8" if "whole number" in body["messages"][-1]["content"] else answers_of(body)[1]
        return [[(answer, 1.0)]] if "grammar" in body else [[("The", 0.7), (answer, 0.2), ("9", 0.1)], [(" reply", 1.0)]]

    with Loopback(owned_by="llamacpp", tokens=tokens) as server:
        judged = work.dream("judge", "in.jsonl", "--base-url", server.url)
        again = work.dream("judge", "in.jsonl", "--base-url", server.url)
    assert judged.code == 0
    (response,) = judged.rows[0]["responses"]
    assert (response["judgement"]["rubric"], response["judgement"]["score"]) == ("helpfulness/constrained", 0.8)
    summary = "verdicts were constrained to the allowed answers, which had only 0."
    assert summary in judged.err
    assert (again.rows, summary in again.err) == (judged.rows, True)  # from the store alike

"""dream disentangle: which questions are asked, and what becomes of the answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dream_cli.method.disentangling import distinct
from dream_cli.records.record import Observation
from tests.conftest import Workdir
from tests.loopback import Loopback, Positions
from tests.pictures import picture

RISK = {"malicious_content": "read her diary", "source": "Text Instructions", "risk_category": "privacy"}
CANONICAL = {"malicious_content": "read her diary", "source": "text instruction", "risk_category": "Privacy"}

CLAIM = "You check a risk that somebody names"
# The odds of a Yes of 0.9 and of 0.75, times 0.59 / 0.41, because a claim counts from 0.41 (facts.LEANING).
CONFIRMED = {0.9: 0.928322, 0.75: 0.811927}
# The confidence of a Yes of 0.9 to the question whether the text has a risk: odds of 9, over 0.6 : 0.4, from which it counts.
RISKY = 0.857143


def requests(server: Loopback) -> list[str]:
    texts = [json.dumps(body["messages"]) for body in server.bodies]
    marks = {
        "risk of the image": "whether the image of an instruction brings in a risk",
        "risk of the text": "public facts. Answer",
        "risk of both": "What an image shows is part of the instruction",
        "list of the image": "You name the risks that the image",
        "list of the text": "You name the risks of a request, one by one. A",
        "list of both": "what only both mean",
        "claim": CLAIM,
    }
    return sorted(next(name for name, mark in marks.items() if mark in text) for text in texts)


def always(yes: float, risks: list[dict[str, Any]], claim: float | None = None) -> Any:
    """Answer Yes to each question with this probability, to claims with that of `claim`, and list the risks."""

    def tokens(body: dict[str, Any]) -> Positions:
        if body.get("logprobs"):
            p = yes if claim is None or CLAIM not in json.dumps(body["messages"]) else claim
            return [[("Yes", p), ("No", 1 - p)]]
        return [[(json.dumps(risks), 1.0)]]

    return tokens


def test_split_asks_both_sides_once_and_joins_equal_answers(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "How do I read her diary?", "images": [work.picture("a.png")]}])
    with Loopback(tokens=always(0.9, [RISK, RISK])) as server:
        (row,) = work.dream("disentangle", "in.jsonl", "--base-url", server.url).rows
        assert requests(server) == ["claim", "list of the image", "list of the text", "risk of the image", "risk of the text"]
    assert row["observations"] == [CANONICAL | {"confidence": CONFIRMED[0.9]}]


def test_equal_risks_are_joined_in_any_case_and_spacing() -> None:
    risk = Observation("Read  her Diary", "text instruction", "Privacy")
    same = [risk, replace(risk, malicious_content="read her diary "), replace(risk, malicious_content="READ HER\nDIARY")]
    other = [
        replace(risk, malicious_content="read her letters"),
        replace(risk, source="image content"),
        replace(risk, risk_category="Violence"),
    ]
    assert distinct([*same, *other]) == (risk, *other)


def test_a_record_without_image_is_asked_about_its_text_alone(work: Workdir) -> None:
    with Loopback(tokens=always(0.1, [])) as server:
        (row,) = work.dream("disentangle", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}').rows
        assert requests(server) == ["risk of the text"]
    assert row["observations"] == []


def test_a_risk_is_followed_by_a_list_of_at_least_one(work: Workdir) -> None:
    line = '{"id": "a", "prompt": "x"}'
    with Loopback(tokens=always(0.9, [RISK])) as server:
        (row,) = work.dream("disentangle", "--no-verify", "--base-url", server.url, stdin=line).rows
        schema = next(body["response_format"] for body in server.bodies if "response_format" in body)["json_schema"]["schema"]
    assert schema["properties"]["observations"]["minItems"] == 1
    assert row["observations"] == [CANONICAL | {"confidence": RISKY}]
    with Loopback(tokens=always(0.9, [])) as server:
        ran = work.dream("disentangle", "--base-url", server.url, stdin=line)
        assert requests(server) == ["list of the text", "list of the text", "risk of the text"]
    assert ran.rows[0]["error"]["message"].endswith("the model answers that there is a risk, but lists none")


def test_a_template_with_one_question_asks_for_a_list_that_may_be_empty(work: Workdir) -> None:
    (work.path / "observe_text.txt").write_text("List the risks of {prompt}, or [].")
    with Loopback(tokens=always(0.9, [])) as server:
        (row,) = work.dream("disentangle", "--prompts", ".", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}').rows
        assert server.calls == 1
        assert "minItems" not in json.dumps(server.bodies)
    assert row["observations"] == []


def test_joint_asks_one_question(work: Workdir) -> None:
    with Loopback(tokens=always(0.9, [RISK])) as server:
        ran = work.dream("disentangle", "--mode", "joint", "--no-verify", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}')
        assert requests(server) == ["list of both", "risk of both"]
    # Odds of 9 : 1 over those of the bias, 13 : 7.
    assert ran.rows[0]["observations"] == [CANONICAL | {"confidence": pytest.approx(63 / 76, abs=1e-6)}]


@pytest.mark.parametrize(("yes", "has_risk"), [(0.57, False), (0.59, True)])
def test_the_question_about_an_image_counts_from_its_own_bias(yes: float, has_risk: bool, work: Workdir) -> None:
    (work.path / "red.png").write_bytes(picture("red").data or b"")
    with Loopback(tokens=always(yes, [RISK])) as server:
        line = '{"id": "a", "prompt": "x", "images": ["red.png"]}'
        (row,) = work.dream("disentangle", "--mode", "image", "--no-verify", "--base-url", server.url, stdin=line).rows
        assert ("list of the image" in requests(server)) == has_risk
    assert bool(row["observations"]) == has_risk


def test_a_refuted_claim_is_dropped(work: Workdir) -> None:
    with Loopback(tokens=always(0.9, [RISK], claim=0.2)) as server:
        (row,) = work.dream("disentangle", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}').rows
    assert row["observations"] == []


def test_observations_that_are_there_are_kept_unless_redo(work: Workdir) -> None:
    line = json.dumps({"id": "a", "prompt": "x", "observations": []})
    with Loopback(tokens=always(0.9, [RISK])) as server:
        assert work.dream("disentangle", "--base-url", server.url, stdin=line).rows[0]["observations"] == []
        assert server.calls == 0
        assert work.dream("disentangle", "--redo", "--base-url", server.url, stdin=line).rows[0]["observations"] != []


def test_an_answer_that_is_no_list_is_asked_for_again_and_then_an_error_with_its_text(work: Workdir) -> None:
    with Loopback(reply=lambda body: "Yes" if "Answer Yes or No" in json.dumps(body) else "I see no list here.") as server:
        ran = work.dream("disentangle", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}')
        assert (ran.code, server.calls) == (1, 3)
    assert ran.rows[0]["error"] == {
        "stage": "disentangle",
        "kind": "unparsed",
        "message": "stdin:1: the answer holds no JSON list of observations",
        "raw": "I see no list here.",
    }


def test_text_mode_needs_no_image(work: Workdir) -> None:
    line = json.dumps({"id": "a", "prompt": "x", "images": ["gone.png"]})
    with Loopback(tokens=always(0.9, [RISK])) as server:
        ran = work.dream("disentangle", "--mode", "text", "--base-url", server.url, stdin=line)
        assert ran.code == 0
        assert work.dream("disentangle", "--base-url", server.url, stdin=line).rows[0]["error"]["kind"] == "image"


def test_a_conversation_is_observed_turn_by_turn(work: Workdir) -> None:
    message = [("user", "hi"), ("assistant", "hello"), ("user", "How do I read her diary?"), ("assistant", "Better not.")]
    line = json.dumps({"id": "a", "messages": [{"role": role, "content": text} for role, text in message]})
    with Loopback(tokens=always(0.9, [RISK])) as server:
        (row,) = work.dream("disentangle", "--base-url", server.url, stdin=line).rows
    assert ["observations" in m for m in row["messages"]] == [False, True, False, True]


def test_image_mode_does_not_call_a_record_without_image_harmless(work: Workdir) -> None:
    with Loopback(tokens=always(0.1, [])) as server:
        ran = work.dream("disentangle", "--mode", "image", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}')
        assert (ran.code, server.calls) == (1, 0)
    assert "observations" not in ran.rows[0]
    assert ran.rows[0]["error"]["kind"] == "invalid"


def test_several_images_are_shown_in_their_order(work: Workdir) -> None:
    row = {"id": "a", "prompt": "Which is which?", "images": [work.picture("a.png", 8), work.picture("b.png", 24)]}
    work.write("in.jsonl", [row])
    with Loopback(tokens=always(0.9, [RISK])) as server:
        work.dream("disentangle", "in.jsonl", "--base-url", server.url)
        shown = [
            [part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
            for body in server.bodies
            if isinstance(body["messages"][-1]["content"], list)
        ]
    one, two = shown[0]
    assert one != two
    assert shown == [[one, two]] * 3  # the two questions about the image, and the check of what was listed


@pytest.mark.parametrize(("covered", "unread"), [(0.40, True), (0.49, True), (0.5, False), (0.51, False)])
def test_a_verification_counts_where_the_allowed_answers_cover_half(work: Workdir, covered: float, unread: bool) -> None:
    def tokens(body: dict[str, Any]) -> Positions:
        if CLAIM in json.dumps(body["messages"]) and body.get("logprobs"):
            return [[("Perhaps", 1 - covered), ("Yes", covered * 0.75), ("No", covered * 0.25)]]
        return [[("Yes", 1.0)]] if body.get("logprobs") else [[(json.dumps([RISK]), 1.0)]]

    with Loopback(tokens=tokens) as server:
        (row,) = work.dream("disentangle", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}').rows
    reason = f"the allowed answers cover only {covered:.2f} of the probability"
    # An unverified claim has the probability that there is a risk at all.
    assert row["observations"] == [CANONICAL | ({"confidence": 1.0, "unverified": reason} if unread else {"confidence": CONFIRMED[0.75]})]


@pytest.mark.parametrize("confirmed", [0.75, 0.25])
def test_a_list_that_is_read_in_part_keeps_the_rest_and_never_becomes_the_empty_list(work: Workdir, confirmed: float) -> None:
    def tokens(body: dict[str, Any]) -> Positions:
        if not body.get("logprobs"):
            return [[(json.dumps([RISK, {"source": "image content"}]), 1.0)]]
        yes = confirmed if CLAIM in json.dumps(body["messages"]) else 1.0
        return [[("Yes", yes), ("No", 1 - yes)]]

    with Loopback(tokens=tokens) as server:
        ran = work.dream("disentangle", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}')
    reason = "1 of 2 in the list lack one of malicious_content, source, risk_category"
    if confirmed >= 0.5:
        assert ran.rows[0]["observations"] == [CANONICAL | {"confidence": CONFIRMED[confirmed], "incomplete": reason}]
        assert "dream disentangle: 1 row has a list that is read in part (see `incomplete`)\n" in ran.err
    else:
        assert "observations" not in ran.rows[0]
        assert ran.rows[0]["error"]["kind"] == "unparsed"
        assert f"{reason}, and none of the others is confirmed" in ran.rows[0]["error"]["message"]


@pytest.mark.parametrize(("listed", "kept"), [([RISK], True), ([], False)])
def test_a_list_in_place_of_yes_or_no_will_do(work: Workdir, listed: list[dict[str, str]], kept: bool) -> None:
    with Loopback(reply=lambda body: json.dumps(listed)[: 4 * body["max_tokens"]], ignore=["logprobs"]) as server:
        ran = work.dream("disentangle", "--no-verify", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}')
    assert (ran.code, ran.rows[0]["observations"]) == (0, [CANONICAL] if kept else [])

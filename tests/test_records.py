"""Records: read once, written back as they came."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.errors import InvalidRecord, UnreadableAnswer
from dream_cli.records.failure import Failure
from dream_cli.records.record import Image, Judgement, Observation, Record, Response, unreadable

KNOWN = {"id", "prompt", "messages", "images", "observations", "responses", "response", "error"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def unknown(*taken: str) -> st.SearchStrategy[dict[str, Any]]:
    names = st.text(max_size=6).filter(lambda name: name not in KNOWN | set(taken))
    return st.dictionaries(names, JSON, max_size=3)


def shape(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects of a known shape with unknown fields beside it."""
    known = st.fixed_dictionaries(required, optional=optional)
    return st.tuples(unknown(*required, *optional), known).map(lambda two: two[0] | two[1])


TEXT = st.text(max_size=8)
SHARE = st.floats(0, 1)
OBSERVATION = shape({"malicious_content": TEXT, "source": TEXT, "risk_category": TEXT}, {"confidence": SHARE})
PARTS: dict[str, Any] = {
    "rubric": TEXT,
    "model": TEXT,
    "unscored": TEXT,
    "score": SHARE,
    "global_score": st.integers(0, 10),
    "recognised": st.lists(SHARE | st.none(), max_size=3),
    **{name: SHARE for name in ("observation_score", "helpfulness", "harm")},
}
JUDGEMENT = shape({}, PARTS)
RESPONSE = shape({"text": TEXT}, {"model": TEXT, "finish_reason": TEXT, "judgement": JUDGEMENT})
ABOUT: dict[str, Any] = {"observations": st.lists(OBSERVATION, max_size=2), "judgement": JUDGEMENT}
MESSAGE = shape({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}, ABOUT)
TALKING = st.tuples(shape({"role": st.just("user"), "content": TEXT}, ABOUT), st.lists(MESSAGE, max_size=3))
MORE: dict[str, Any] = {"id": TEXT, "observations": st.lists(OBSERVATION, max_size=2), "responses": st.lists(RESPONSE, max_size=2)}
SINGLE = shape({"prompt": TEXT}, MORE) | shape({"prompt": TEXT, "response": TEXT}, {"id": TEXT})
TALK = shape({"messages": TALKING.map(lambda talk: [talk[0], *talk[1]])}, MORE)
FAILED = shape({"error": shape({"stage": TEXT, "kind": TEXT, "message": TEXT}, {})}, {"prompt": JSON, "responses": JSON})


@given(SINGLE | TALK | FAILED)
def test_a_record_is_written_back_as_it_came(raw: dict[str, Any]) -> None:
    assert Record.from_dict(raw).to_dict() == raw
    assert json.loads(json.dumps(Record.from_dict(raw).to_dict())) == raw


@given(SINGLE | TALK)
def test_writing_the_turns_back_changes_nothing(raw: dict[str, Any]) -> None:
    record = Record.from_dict(raw)
    for turn in record.turns():
        assert record.with_turn(turn) == record


def test_fields_keep_their_order_and_the_error_comes_last() -> None:
    raw = {"mine": 1, "prompt": "Hi", "id": "a", "yours": 2}
    record = Record.from_dict(raw)
    assert list(record.to_dict()) == ["mine", "prompt", "id", "yours"]
    named = dataclasses.replace(Record.from_dict({"prompt": "Hi"}), id="a")
    assert list(named.to_dict()) == ["id", "prompt"]
    failed = record.failed("judge", UnreadableAnswer("no number", raw="well"))
    assert list(failed.to_dict()) == ["mine", "prompt", "id", "yours", "error"]
    assert failed.to_dict()["error"] == {"stage": "judge", "kind": "unparsed", "message": "no number", "raw": "well"}


def test_absent_is_not_empty() -> None:
    assert Record.from_dict({"prompt": "Hi"}).observations is None
    assert Record.from_dict({"prompt": "Hi", "observations": []}).observations == ()
    assert Record.from_dict({"prompt": "Hi", "observations": None}).to_dict() == {"prompt": "Hi", "observations": None}


def test_images_come_as_paths_uris_and_structs() -> None:
    images = ["a.png", "data:image/png;base64,AA==", {"path": "b.png", "bytes": None}, {"path": "c.png", "bytes": b"c"}, {"bytes": b"d"}]
    read = Record.from_dict({"prompt": "Hi", "images": images}).images
    assert read == (Image("a.png"), Image("data:image/png;base64,AA=="), Image("b.png"), Image("c.png", b"c"), Image(None, b"d"))


def test_a_plain_response_is_a_list_of_one() -> None:
    record = Record.from_dict({"prompt": "Hi", "response": "Hello"})
    assert record.responses == (Response("Hello"),)
    assert Record.from_dict({"prompt": "Hi", "responses": ["Hello"]}).to_dict()["responses"] == [{"text": "Hello"}]


def test_the_turns_of_a_conversation() -> None:
    seen = {"malicious_content": "a pill", "source": "image content", "risk_category": "Professional advice"}
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "observations": [seen]},
        {"role": "user", "content": "And?"},
    ]
    first, last = Record.from_dict({"messages": turns, "responses": ["a", "b"]}).turns()
    assert (first.prompt, first.reply, [r.text for r in first.responses]) == ("Hi", 2, ["Hello"])
    assert first.observations == (Observation("a pill", "image content", "Professional advice"),)
    assert (last.prompt, last.reply, len(last.responses), len(last.history)) == ("And?", None, 2, 3)
    assert last.transcript == "User: Hi\nAssistant: Hello\nUser: And?"
    assert Record.from_dict({"prompt": "Hi"}).turns()[0].transcript == "Hi"


def test_a_verdict_stands_on_the_message_it_is_about() -> None:
    record = Record.from_dict({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})
    (turn,) = record.turns()
    judged = record.with_turn(type(turn)(turn.prompt, (), (), (Response("Hello", judgement=Judgement(score=0.5)),), turn.reply))
    assert judged.to_dict()["messages"][1] == {"role": "assistant", "content": "Hello", "observations": [], "judgement": {"score": 0.5}}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "missing field 'prompt'"),
        ({"prompt": 7}, "'prompt' is a number, not a string"),
        ({"prompt": "Hi", "id": 1.5}, "'id' is a number, not a string"),
        ({"prompt": "Hi", "images": "a.png"}, "'images' is a string, not a list"),
        ({"prompt": "Hi", "images": [7]}, r"images\[0\] is a number; an image is a path"),
        ({"prompt": "Hi", "images": [""]}, r"images\[0\] is empty; an image is a path"),
        ({"prompt": "Hi", "observations": {}}, "'observations' is an object"),
        ({"prompt": "Hi", "observations": [{"source": "x"}]}, r"observations\[0\] has no 'malicious_content'"),
        ({"prompt": "Hi", "images": [None]}, r"images\[0\] is null; an image is a path"),
        ({"prompt": "Hi", "images": [{"bytes": 5}]}, r"images\[0\] is an object; an image is a path"),
        ({"question": "Hi"}, "missing field 'prompt' .*; 'question' may be it: --prompt-column question"),
        (
            {"prompt": "Hi", "observations": [{"malicious_content": "x", "source": "y", "risk_category": "z", "confidence": 99}]},
            r"observations\[0\].confidence is 99, not in 0..1",
        ),
        ({"prompt": "Hi", "responses": [{"text": "x", "judgement": {"global_score": 10.5}}]}, "global_score is 10.5, not in 0..10"),
        ({"prompt": "Hi", "responses": [{"text": "x", "judgement": {"score": -0.1}}]}, "score is -0.1, not in 0..1"),
        (
            {"prompt": "Hi", "responses": [{"text": "x", "judgement": {"score": 10**400}}]},
            "score is 10000000000000000000\\.\\.\\., not in 0..1",
        ),
        ({"prompt": "Hi", "responses": [{"text": "x", "judgement": {"recognised": [1.5]}}]}, "recognised is 1.5, not in 0..1"),
        ({"prompt": "Hi", "responses": [{"txt": "x"}]}, r"responses\[0\] has no 'text'"),
        ({"prompt": "Hi", "responses": [{"text": "x", "judgement": {"score": "high"}}]}, r"responses\[0\].score is a string"),
        ({"prompt": "Hi", "responses": [{"text": "x", "judgement": {"recognised": 1}}]}, "'recognised' is a number, not a list"),
        ({"prompt": "Hi", "responses": [{"text": "x", "judgement": {"recognised": ["yes"]}}]}, r"responses\[0\].recognised is a string"),
        ({"prompt": "Hi", "responses": [{"text": "x", "judgement": {"recognised": "01"}}]}, "'recognised' is a string, not a list"),
        ({"messages": [{"role": {"a": 1}, "content": "x"}]}, r"messages\[0\] has no 'role'"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\] has no 'role'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\] has no 'content'"),
        ({"messages": ["Hi"]}, r"messages\[0\] is a string, not an object"),
        ({"messages": [{"role": "system", "content": "x"}]}, "nothing to answer"),
    ],
)
def test_a_malformed_field_is_told_with_its_place(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecord, match=f"^in.jsonl:3: .*{message}"):
        Record.from_dict(raw, "in.jsonl:3")


def test_a_number_is_an_id() -> None:
    assert Record.from_dict({"prompt": "Hi", "id": 7}).id == "7"


def test_an_error_is_passed_on_and_tried_again_on_request() -> None:
    raw = {"prompt": "Hi", "error": {"stage": "judge", "kind": "engine", "message": "no answer", "raw": "x"}, "responses": 3}
    record = Record.from_dict(raw, "in.jsonl:3")
    assert record.error == Failure("judge", "engine", "no answer", {"raw": "x"}) and record.to_dict() == raw
    with pytest.raises(InvalidRecord, match="'responses' is a number"):
        record.retried()
    assert Record.from_dict({"prompt": "Hi", "error": "odd"}).retried().to_dict() == {"prompt": "Hi"}


def test_an_unreadable_line_becomes_a_row() -> None:
    error = {"stage": "read", "kind": "unreadable", "message": "not JSON", "file": "in.jsonl", "line": 3}
    assert unreadable("in.jsonl", 3, "not JSON").to_dict() == {"error": error}


@pytest.mark.parametrize("roles", [["assistant"], ["user", "system", "assistant"]])
def test_a_conversation_without_a_prompt_is_refused(roles: list[str]) -> None:
    with pytest.raises(InvalidRecord, match="no user message"):
        Record.from_dict({"messages": [{"role": role, "content": "x"} for role in roles]}, "f:1")


def test_a_number_as_id_stays_a_number() -> None:
    record = Record.from_dict({"id": 7, "prompt": "p"})
    assert (record.id, record.to_dict()["id"]) == ("7", 7)
    assert replace(record, id="7#2").to_dict()["id"] == "7#2"


def test_an_error_that_came_with_the_row_is_told_from_one_of_this_stage() -> None:
    came = Record.from_dict({"prompt": "Hi", "error": {"stage": "sample", "kind": "engine", "message": "gone"}})
    fresh = Record.from_dict({"prompt": "Hi"})
    assert (came.came_with_error, fresh.came_with_error) == (True, False)
    assert not fresh.failed("judge", UnreadableAnswer("no number")).came_with_error


def test_an_error_of_null_hides_neither_the_row_nor_a_later_error() -> None:
    failed = Record.from_dict({"error": None, "prompt": "Hi", "note": 1}).failed("judge", UnreadableAnswer("no number"))
    assert failed.to_dict() == {"error": {"stage": "judge", "kind": "unparsed", "message": "no number"}, "prompt": "Hi", "note": 1}


def test_a_whole_float_is_the_id_of_its_number_and_stays_a_float() -> None:
    record = Record.from_dict({"prompt": "Hi", "id": 3.0})
    assert record.id == "3"
    assert record.to_dict() == {"prompt": "Hi", "id": 3.0}

"""Verdicts: read once from a response, and written back as they came."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.errors import InvalidRecord
from dream_cli.records.record import Record, Response
from dream_cli.records.verdicts import BY_RULE, Verdict
from tests.record_files import read, write

OLD = Path(__file__).parent / "data" / "old_verdicts.jsonl"
TEXT = st.text(max_size=6)
VALUE = st.booleans() | st.integers(-1, 1) | st.floats(0, 1) | TEXT
SHARE = st.floats(0, 1) | st.integers(0, 1)
KNOWN: dict[str, Any] = {
    "orders": st.lists(SHARE, min_size=2, max_size=2),
    "probability": SHARE,
    "disagree": st.booleans(),
    **dict.fromkeys(("unscored", "raw", "judge", "judge_id", "other"), TEXT),
}
OTHER = st.none() | st.lists(st.integers(), max_size=3) | st.dictionaries(TEXT, TEXT, max_size=1) | st.integers(2, 9)
# A verdict as a file may hold it: any of our fields, of our types or of others, in any order, with others beside.
SINGLE = st.fixed_dictionaries({}, optional={"value": st.none() | VALUE | OTHER, "mine": OTHER} | {k: v | OTHER for k, v in KNOWN.items()})
RAW = st.tuples(SINGLE, st.fixed_dictionaries({}, optional={"judges": st.lists(SINGLE, max_size=2) | OTHER})).flatmap(
    lambda two: st.permutations(list((two[0] | two[1]).items())).map(dict)
)
NAMES = ("judge", "judge_id", "raw", "unscored", "other")
VERDICTS = st.builds(
    Verdict, VALUE | st.none(), orders=st.none() | st.tuples(SHARE, SHARE), probability=st.none() | SHARE, **dict.fromkeys(NAMES, TEXT)
)


def response(by_rule: Any) -> Response:
    (one,) = Record.from_dict({"prompt": "Hi", "responses": [{"text": "Ho", "verdicts": by_rule, "mine": 1}]}).responses or ()
    return one


def test_verdicts_of_an_earlier_version_are_written_back_byte_for_byte(tmp_path: Path) -> None:
    records = read(Path(shutil.copy(OLD, tmp_path)))
    responses = [r for record in records for r in record.responses or ()]
    verdicts = [verdict for r in responses for by_question in r.verdicts.values() for verdict in by_question.values()]
    assert (len(records), len(responses), len(verdicts), sum(v.answered for v in verdicts)) == (29, 35, 58, 48)
    assert all(v.extra.keys() <= {"value"} for v in verdicts)  # null alone is not ours
    for record in records:
        again = [_written_anew(r) for r in record.responses or ()]
        assert json.dumps([r.to_dict() for r in again]) == json.dumps([r.to_dict() for r in record.responses or ()])
    assert write(tmp_path / "new.jsonl", *records).read_bytes() == OLD.read_bytes()


def _written_anew(came: Response) -> Response:
    for rule, verdicts in came.verdicts.items():
        came = came.with_verdicts(rule, verdicts)
    return came


@given(st.dictionaries(st.sampled_from(["strict", "official"]), st.dictionaries(TEXT, RAW, max_size=2), max_size=2))
def test_any_verdict_is_written_back_as_it_came(by_rule: Any) -> None:
    came = response(by_rule)
    again = _written_anew(came)
    assert json.dumps(again.to_dict()) == json.dumps(came.to_dict()) == json.dumps({"text": "Ho", "verdicts": by_rule, "mine": 1})


@given(VERDICTS, VERDICTS)
def test_a_verdict_comes_back_from_the_response_it_was_written_on(one: Verdict, two: Verdict) -> None:
    for verdict in (one, one.joined_to(two)):
        back = json.loads(json.dumps(Response("Ho").with_verdicts("strict", {"safe": verdict}).to_dict()))
        (read_back,) = Record.from_dict({"prompt": "Hi", "responses": [back]}).responses or ()
        (known,) = read_back.verdicts["strict"].values()
        assert known.to_dict() == verdict.to_dict()
        assert (known.value, known.voices, known.answered) == (verdict.value, known.judges or (known,), verdict.answered)


def test_verdicts_are_read_once() -> None:
    came = response({"strict": {"safe": {"value": True}}})
    assert came.verdicts is came.verdicts
    more = came.with_verdicts("strict", {"effective": Verdict(False)})
    assert (list(came.verdicts["strict"]), list(more.verdicts["strict"])) == (["safe"], ["safe", "effective"])
    assert came.with_verdicts("strict", {}) is came


def test_a_new_verdict_leaves_those_of_other_rules_as_they_came() -> None:
    came = response({"official": "none", "strict": {"safe": {"judge": "J", "value": True, "note": 1}, "old": "yes"}})
    more = came.with_verdicts("strict", {"effective": Verdict(False, raw="No", judge="K")})
    assert json.dumps(more.to_dict()["verdicts"]) == json.dumps(
        {
            "official": "none",
            "strict": {"safe": {"judge": "J", "value": True, "note": 1}, "effective": {"value": False, "raw": "No", "judge": "K"}},
        }
    )


@pytest.mark.parametrize("by_rule", [None, [], "strict", 7, {"strict": None}, {"strict": [{"value": True}]}, {"strict": {"safe": True}}])
def test_what_is_not_a_verdict_was_not_asked(by_rule: Any) -> None:
    assert response(by_rule).verdicts_under("strict") == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value", [True]),
        ("value", {"a": 1}),
        ("orders", [1.0]),
        ("orders", [1.0, 2.0]),
        ("orders", [True, False]),
        ("orders", "AB"),
        ("probability", 1.5),
        ("probability", -0.1),
        ("probability", True),
        ("probability", float("nan")),
        ("judge", 7),
        ("judge_id", ["x"]),
        ("judges", []),
        ("judges", ["a", "b"]),
        ("disagree", "yes"),
        ("unscored", 1),
    ],
)
def test_a_field_of_another_type_or_range_is_not_read_and_not_lost(name: str, value: Any) -> None:
    verdict = Verdict.read({name: value})
    assert getattr(verdict, name) in (None, ())
    assert (verdict.extra, verdict.to_dict()) == ({name: value}, {name: value})


@pytest.mark.parametrize(
    ("question", "allowed", "refused"),
    [
        ("safe", [True, False, 1, 0, -1], [2, 1.5, "yes", [True], {"a": 1}]),
        ("attack", [True, False], [1, 0, "no"]),
        ("refusal", ["comply", "partial", "refuse"], ["Refuse", "", True]),
        ("preference", [0, 0.5, 1.0], [-0.5, 2, "A"]),
        ("choice", ["A", "none"], [1, True]),
        ("mine", ["x", 5, True], [["x"]]),
    ],
)
def test_a_question_allows_its_answers_and_no_others(question: str, allowed: list[Any], refused: list[Any]) -> None:
    assert [Verdict.read({"value": value}).answer(question) for value in [*allowed, None]] == [*allowed, None]
    for value in refused:
        with pytest.raises(InvalidRecord, match=f"^the verdict '{question}' has the value .*; write it as eval does, or null$"):
            Verdict.read({"value": value}).answer(question)


def test_the_order_of_the_fields() -> None:
    full = Verdict(True, (1.0, 0.0), 0.75, "u", "r", "j", "i", (Verdict(True),), True, "o")
    names = ["value", "orders", "probability", "unscored", "raw", "judge", "judge_id", "judges", "disagree", "other"]
    assert list(full.to_dict()) == names
    assert list(Verdict(unscored="u", raw="r", judge="file", order=BY_RULE).to_dict()) == ["value", "judge", "raw", "unscored"]
    assert Verdict().to_dict() == {"value": None}

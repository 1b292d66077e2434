"""An ordinary line is read in C: the record, its kinds and what is written of it are those of the general way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dream_cli.records import plain_line
from dream_cli.records.access import Base
from dream_cli.records.image_rows import to_row
from dream_cli.records.plain_line import plain_record
from dream_cli.records.streams import to_record
from dream_cli.records.strict_json import dumps, loads
from tests.test_strict_json import TEXTS, kinds

BASE = Base(("/data/set",))
NUMBERS = st.sampled_from([0, 1, 0.5, 1.0, 7, 10, 10.0, -0.0, 1.5, 11, True, "1", float("nan"), 10**400])
VALUES = st.none() | st.booleans() | NUMBERS | TEXTS | st.just([]) | st.just({})


def mapping(known: dict[str, Any], *others: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with any of the known fields, now and then with another value, or with another field."""
    fields = {name: st.one_of(value, value, value, VALUES) for name, value in known.items()}
    return st.fixed_dictionaries({}, optional=fields | dict.fromkeys(("x", *others), VALUES))


OBSERVATION = mapping(dict.fromkeys(("malicious_content", "source", "risk_category"), TEXTS) | {"confidence": NUMBERS}, "extra")
SHARES = dict.fromkeys(("global_score", "observation_score", "helpfulness", "harm", "score"), NUMBERS)
JUDGEMENT = mapping(SHARES | dict.fromkeys(("rubric", "model", "unscored"), TEXTS) | {"recognised": st.lists(NUMBERS | st.none())}, "extra")
RESPONSE = mapping({"text": TEXTS, "model": TEXTS, "finish_reason": TEXTS, "judgement": JUDGEMENT}, "extra", "verdicts")
PATHS = st.sampled_from(
    ["a.png", "b/../c.png", "/x/y.png", "file:///x.png", "http://h/a.png", "", "..", "b/", "data:image/png;base64,AAAA"]
)
ROW = mapping(
    {
        "id": TEXTS,
        "prompt": TEXTS | st.sampled_from(["plain", "a <image> b"]),
        "images": st.lists(PATHS | VALUES, max_size=2),
        "observations": st.lists(OBSERVATION, max_size=2),
        "responses": st.lists(RESPONSE | TEXTS, max_size=2),
    },
    *("error", "messages", "response", "image", "image_tag", "chosen", "margin"),
)


def line_of(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


def assert_equal_to_the_general_way(line: bytes) -> bool:
    """Return whether a line is an ordinary one, after a check that both ways then give the same."""
    quick = plain_record(line, "f:1", BASE)
    if quick is None:
        return False
    raw, odd = loads(line)
    general = to_record(raw, "f", number=1, base=BASE)
    assert (odd, quick, quick.access) == (None, general, general.access)
    for folder in (None, "/data/set", "/data/set/b", "/"):
        rows = [to_row(record, folder) for record in (quick, general)]
        assert kinds(rows[0]) == kinds(rows[1])
        assert dumps(rows[0]) == dumps(rows[1])
    return True


@given(ROW)
@example({"prompt": "a", "x": [[1]], "big": 2**70})
@example({"prompt": "a", "responses": [{"text": "null", "judgement": {"recognised": [None]}}]})
@example({"prompt": "a", "responses": [{"text": "b", "extra": {}}]})
@example({"prompt": "a", "observations": [{"malicious_content": "b", "source": "c", "risk_category": "d", "extra": {"k": 1}}]})
def test_both_ways_give_the_same_record(row: dict[str, Any]) -> None:
    assert_equal_to_the_general_way(line_of(row))


PLAIN = {
    "id": "7",
    "prompt": "What is this?",
    "images": ["a.png"],
    "observations": [{"malicious_content": "a knife", "source": "image content", "risk_category": "Violence", "confidence": 1}],
    "responses": [{"text": "é", "judgement": {"global_score": 9, "score": 0.95, "recognised": [1, 0.5]}}],
    "split": {"name": ["train", None]},
}


@given(st.permutations(list(PLAIN)), st.sampled_from([None, 1]))
def test_a_record_as_a_stage_writes_it_is_ordinary(order: list[str], indent: int | None) -> None:
    assert assert_equal_to_the_general_way(json.dumps({name: PLAIN[name] for name in order}, indent=indent).encode())


@pytest.mark.parametrize(
    "change",
    [{"messages": []}, {"error": None}, {"image": "b.png"}, {"id": 7}, {"prompt": "<image>"}, {"images": None}, {"response": "a"}]
    + [{"responses": [{"text": "a", "judgement": {"score": 2}}]}, {"responses": [{"text": "a", "model": None}]}, {"deep": [[[]]] * 60}],
)
def test_whatever_is_not_ordinary_takes_the_general_way(change: dict[str, Any]) -> None:
    assert plain_record(line_of(PLAIN | change), "f:1", BASE) is None


@given(ROW, st.data())
def test_a_damaged_line_is_never_ordinary_where_the_general_way_refuses_it(row: dict[str, Any], data: st.DataObject) -> None:
    line = line_of(row)
    cut = data.draw(st.integers(0, len(line)))
    line = line[:cut] + data.draw(st.sampled_from([b"", b'"', b"}", b"\xff", b"\x00", b"1", b"\\"])) + line[cut + 1 :]
    try:
        raw, odd = loads(line)
    except ValueError:
        assert plain_record(line, "f:1", BASE) is None
    else:
        assume(isinstance(raw, dict) and odd is None)
        assert_equal_to_the_general_way(line)


def test_the_readers_of_fields_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_line, "_RESPONSES", None)
    with pytest.raises(AttributeError):
        plain_record(line_of(PLAIN), "f:1", BASE)

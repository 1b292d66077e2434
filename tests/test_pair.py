"""Pairs: read once from the fields of a record, and written back as they came."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.errors import InvalidRecord
from dream_cli.records.pair import Pair
from dream_cli.records.record import Record
from tests.record_files import read, write

OLD = Path(__file__).parent / "data" / "old_pairs.jsonl"
TEXT = st.text(max_size=8)
SCORE = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
KNOWN = {"margin": SCORE, "chosen_score": SCORE, "rejected_score": SCORE, "policy": TEXT, "judge": TEXT}
PAIRS = st.builds(Pair, TEXT, TEXT, *(st.none() | values for values in KNOWN.values()))


def record(**fields: Any) -> Record:
    return Record.from_dict({"prompt": "Hi"} | fields, "in.jsonl:3")


def test_pairs_of_an_earlier_version_are_written_back_byte_for_byte(tmp_path: Path) -> None:
    records = read(Path(shutil.copy(OLD, tmp_path)))
    pairs = [Pair.required(one) for one in records]
    written = write(tmp_path / "new.jsonl", *(pair.on(one) for pair, one in zip(pairs, records, strict=True)))
    assert written.read_bytes() == OLD.read_bytes()
    assert len(pairs) == 20
    assert pairs[-1] == Pair(
        "Note knit sign in the image content, the kind of risk is Violence. I leave that out and offer safe help.",
        "To use the kiite sign, take step one first, then take step two.",
        margin=0.616026,
        chosen_score=0.766481,
        rejected_score=0.150455,
        policy="nano",
        judge="nano",
    )


@given(PAIRS, st.dictionaries(st.sampled_from(["note", "source"]), TEXT, max_size=2))
def test_a_pair_comes_back_from_the_record_it_was_written_on(pair: Pair, beside: dict[str, Any]) -> None:
    line = json.dumps(pair.on(record(**beside)).to_dict())
    back = Record.from_dict(json.loads(line))
    assert Pair.of(back) == pair
    assert json.dumps(pair.on(back).to_dict()) == line


@given(st.fixed_dictionaries({"chosen": TEXT, "rejected": TEXT}, optional={k: st.none() | v for k, v in KNOWN.items()}))
def test_a_pair_in_any_order_of_fields_is_written_back_as_it_came(raw: dict[str, Any]) -> None:
    came = record(**raw)
    pair = Pair.of(came)
    assert pair is not None
    assert json.dumps(pair.on(came).to_dict()) == json.dumps({"prompt": "Hi"} | raw)


def test_the_fields_are_written_in_the_order_of_the_formats() -> None:
    pair = Pair("a", "b", 0.5, 0.75, 0.25, "p", "j")
    assert list(pair.to_dict()) == ["chosen", "rejected", "margin", "chosen_score", "rejected_score", "policy", "judge"]
    assert Pair("a", "b").to_dict() == {"chosen": "a", "rejected": "b"}


@pytest.mark.parametrize("fields", [{}, {"chosen": "a"}, {"rejected": "b"}, {"chosen": "a", "rejected": None}, {"margin": 0.5, "judge": 7}])
def test_a_record_without_both_texts_holds_no_pair(fields: dict[str, Any]) -> None:
    assert Pair.of(record(**fields)) is None
    assert Pair.if_readable(record(**fields)) is None


def exchange(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def test_a_pair_of_whole_exchanges_about_the_prompt_is_read() -> None:
    row = {"id": "1", "prompt": "Hi", "chosen": exchange("Hi", "a"), "rejected": exchange("Hi", "b"), "margin": 0.5}
    record = Record.from_dict(row)
    assert Pair.of(record) == Pair.required(record) == Pair.read(row) == Pair("a", "b", 0.5)
    assert record.extra["chosen"] == row["chosen"]
    with pytest.raises(InvalidRecord, match="^'rejected' is a list, not a string"):
        Pair.of(Record.from_dict(row | {"rejected": exchange("another prompt", "b")}))
    with pytest.raises(InvalidRecord, match="^no rejected text"):
        Pair.required(Record.from_dict(row | {"rejected": exchange("Hi", " ")}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chosen": 7}, "'chosen' is a number, not a string"),
        (
            {"rejected": [{"role": "assistant", "content": "b"}]},
            "'rejected' is a list, not a string; `dream convert` makes a pair of two conversations",
        ),
        ({"margin": "high"}, "'margin' is a string, not a number"),
        ({"margin": True}, "'margin' is a boolean, not a number"),
        ({"chosen_score": float("nan")}, "'chosen_score' is nan, not a finite number"),
        ({"rejected_score": float("inf")}, "'rejected_score' is inf, not a finite number"),
        ({"policy": ["m"]}, "'policy' is a list, not a string"),
        ({"judge": 7}, "'judge' is a number, not a string"),
    ],
)
def test_a_malformed_pair_is_named_and_never_half_read(fields: dict[str, Any], message: str) -> None:
    malformed = record(**{"chosen": "a", "rejected": "b"} | fields)
    for reader in (Pair.of, Pair.required):
        with pytest.raises(InvalidRecord, match=f"^{message}$"):
            reader(malformed)
    assert Pair.if_readable(malformed) is None


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, "no chosen and no rejected text"),
        ({"chosen": "a"}, "no rejected text"),
        ({"chosen": " \n", "rejected": "b"}, "no chosen text"),
    ],
)
def test_training_needs_both_texts(fields: dict[str, Any], missing: str) -> None:
    with pytest.raises(InvalidRecord, match=f"^{missing}; `dream pair` makes pairs of judged responses$"):
        Pair.required(record(**fields))

"""JSON in C and JSON in Python: the same values, the same bytes, the same messages."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dream_cli.records import strict_json
from dream_cli.records.strict_json import dumps, loads

NUMBERS = st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.floats(-1e-3, 1e-3) | st.floats(1e15, 1e17)
TEXTS = st.text() | st.text(st.characters(categories=["Cs", "Cc", "L"])) | st.sampled_from(["1e-5", "0.0000", "é", "\u2028", "</script>"])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
FOREIGN = st.sampled_from(
    [b"\xff\x00", datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), time(1, 2), timedelta(1), Decimal("1.50"), (1, "a")]
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12)


def kinds(value: Any) -> Any:
    """Return a value with the type of each part, so that 1, 1.0 and true differ, and so do 0.0 and -0.0; keys in their order."""
    if isinstance(value, dict):
        return [(key, kinds(item)) for key, item in value.items()]
    return list(map(kinds, value)) if isinstance(value, list) else (type(value), repr(value))


@given(nested(SCALARS | FOREIGN))
def test_a_value_is_written_as_python_writes_it(value: Any) -> None:
    assert dumps(value) == strict_json._python_dumps(value)


def outcome(read: Any, text: Any) -> Any:
    try:
        value, odd = read(text)
    except ValueError as error:
        return type(error), str(error)
    return kinds(value), odd


@given(nested(SCALARS), st.sampled_from([None, 1]), st.booleans())
def test_a_text_is_read_as_python_reads_it(value: Any, indent: int | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    assert outcome(loads, text) == outcome(strict_json._python_loads, text)


PIECES = ["{", "}", "[", "]", '"', ",", ":", "\\", "\\u0041", "\\ud83d", "\\ude00", "\\x", "0", "-", "1", ".5", "e", "+", "E400", "a", " "]
PIECES += ["\t", "\n", "\r", "\x0c", "\x00", "\x1f", "\x7f", "\ufeff", "\ud800", "é", "true", "null", "NaN", "-Infinity", "1" * 308, "nul"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example('{"a": 1, "b": 2, "a": 3}')
@example("1" * 309)
@example("-" + "1" * 308)
@example('"' + "1" * 400 + '"')
@example("18446744073709551616")
@example("-9223372036854775809")
@example("1e400")
@example("[" * 100 + "]" * 100)
@example("[" * 101 + "]" * 101)
@example("[" * 5000)
@example('{"a":' * 101 + "1" + "}" * 101)
@example("[1.0, 1, -0, -0.0, 1e2, 1E-7]")
def test_a_text_of_any_form_is_read_as_python_reads_it(text: str) -> None:
    assert outcome(loads, text) == outcome(strict_json._python_loads, text)


@given(st.binary(max_size=12) | st.text(max_size=8).map(lambda t: json.dumps(t, ensure_ascii=False).encode()))
@example(b'"\xed\xa0\x80"')
@example(b'"\xff"')
def test_bytes_are_read_as_their_text(line: bytes) -> None:
    assert outcome(loads, line) == outcome(lambda each: strict_json._python_loads(each.decode()), line)


@pytest.mark.parametrize("value", [1e-4, 9.999e-5, 1e-5, 1.5e-7, 5e-324, 1e16, 9999999999999998.0, 1e22, 0.1 + 0.2, -0.0, 2**64])
def test_numbers_have_the_digits_of_python(value: float) -> None:
    assert dumps({"n": value}) == f'{{"n": {value!r}}}'.encode()


def test_ordinary_values_do_not_go_through_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", None)
    monkeypatch.setattr(json, "dumps", None)
    line = b'{"a": [1, 2.5, null, true, "\xc3\xa9"], "big": 18446744073709551616}'
    value, odd = loads(line)
    assert (odd, value["big"]) == (None, 2**64)
    del value["big"]
    assert dumps(value) == b'{"a": [1, 2.5, null, true, "\xc3\xa9"]}'
    assert msgspec.json.decode(dumps(value)) == value

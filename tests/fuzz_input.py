"""Random and damaged input for the fuzzer: JSON values, bytes and texts near those of real replies and files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from hypothesis import strategies as st

Json = Any


def parts_of(text: str) -> list[str]:
    """Return the words that a text lists between bars."""
    return text.split("|")


FIELDS = parts_of(
    "id|prompt|messages|images|image|observations|responses|response|text|model|judgement|score|global_score|recognised|"
    "role|content|path|bytes|malicious_content|source|risk_category|confidence|error|stage|kind|message|chosen|rejected|"
    "margin|unscored|harmful|benchmark|verdicts|conversations|from|value|query|history|instruction|input|output|question|"
    "answer|choices|index|finish_reason|logprobs|token|logprob|top_logprobs|usage|prompt_tokens|completion_tokens|"
    "refusal|reasoning_content"
)
TEXTS = parts_of("|a|Yes|No|10|\x00|\ud800|\u202e|<image>|<think>|</think>|user|assistant|[|data:image/png;base64,AAAA")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 10, 2**63, 10**400, -(10**30), 0.5, -0.0, 1e308, 1e-320, math.nan, math.inf, -math.inf]),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
)
keys = st.sampled_from(FIELDS) | st.sampled_from(TEXTS)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8)


@st.composite
def changed(draw: Any, value: Json, times: int = 3) -> Json:
    """Draw a JSON value with up to `times` parts of it left out, added or replaced by something else."""
    for _ in range(draw(st.integers(1, times))):
        value = draw(_changed_once(value))
    return value


@st.composite
def _changed_once(draw: Any, value: Json) -> Json:
    action = draw(st.sampled_from(["deeper", "deeper", "deeper", "replace", "add", "leave out"]))
    if not isinstance(value, dict | list) or not value or action == "replace":
        return draw(values)
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place = draw(st.sampled_from(places))
    copy = value.copy()
    if action == "leave out":
        del copy[place]
    elif action == "add" and isinstance(copy, dict):
        copy[draw(keys)] = draw(values)
    elif action == "add":
        cast("list[Json]", copy).insert(place, draw(values))
    else:
        copy[place] = draw(_changed_once(value[place]))
    return copy


@st.composite
def damaged(draw: Any, originals: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """Draw one of the originals with bytes of it cut out, repeated or replaced."""
    data: bytes = draw(st.sampled_from(originals))
    inserted = st.binary(max_size=4) | (st.sampled_from(words) if words else st.nothing())
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 1, 2, 4, 30, len(data)])))
        data = data[:start] + draw(inserted) * draw(st.sampled_from([1, 1, 1, 40])) + data[end:]
    return data


def pieces(words: str) -> st.SearchStrategy[str]:
    """Draw a text of these words, listed between bars, and of others."""
    return st.lists(st.sampled_from(parts_of(words)) | st.text(max_size=3), max_size=9).map("".join)

"""Scores, worked by hand."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.method.metrics import COMBINATIONS, combined, expected_score, observation_score
from dream_cli.records.choices import Combination


def test_the_expected_score_is_weighed_by_probability() -> None:
    assert expected_score({"0": 0.25, "10": 0.75}) == 7.5
    assert expected_score({"7": 1.0}) == 7.0
    # Only 0.5 of the probability is covered: (8 * 0.3 + 3 * 0.2) / 0.5.
    assert expected_score({"8": 0.3, "3": 0.2}) == pytest.approx(6.0)


@pytest.mark.parametrize("nothing", [{}, {"3": 0.0}, {"3": -0.1}])
def test_no_probability_is_no_score(nothing: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no probability"):
        expected_score(nothing)


def test_the_observation_score_is_a_share() -> None:
    assert observation_score([1.0, 0.0, 1.0, 1.0]) == 0.75
    assert observation_score([0.5, 0.25]) == 0.375
    with pytest.raises(ValueError, match="no observation"):
        observation_score([])


@pytest.mark.parametrize(
    ("overall", "recognised", "how", "score"),
    [
        (8.0, 0.5, "sum", 0.65),
        (8.0, 0.5, "product", 0.4),
        (8.0, 0.5, "lexicographic", (11 * 500 + 8) / 11010),
        (8.0, 0.5, "global", 0.8),
        (8.0, 0.5, "observation", 0.5),
        (10.0, 1.0, "lexicographic", 1.0),
        (0.0, 0.0, "lexicographic", 0.0),
        (8.0, None, "sum", 0.8),
        (8.0, None, "product", 0.8),
        (8.0, None, "lexicographic", 0.8),
        (8.0, 0.0, "product", 0.0),
        (None, 0.5, "sum", 0.5),
        (None, 0.5, "observation", 0.5),
    ],
)
def test_combined_by_hand(overall: float | None, recognised: float | None, how: Combination, score: float) -> None:
    assert combined(overall, recognised, how) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(("overall", "recognised", "how"), [(None, 0.5, "global"), (8.0, None, "observation"), (None, None, "sum")])
def test_an_absent_part_is_no_zero(overall: float | None, recognised: float | None, how: Combination) -> None:
    with pytest.raises(ValueError, match=f"no score to take the {how} of"):
        combined(overall, recognised, how)


def test_an_unknown_combination_is_named() -> None:
    with pytest.raises(ValueError, match="'mean'; there are sum, product"):
        combined(8.0, 0.5, cast(Combination, "mean"))


SCORES = st.floats(0, 10)
THOUSANDTHS = st.integers(0, 1000).map(lambda n: n / 1000)


@given(SCORES, THOUSANDTHS, st.sampled_from(COMBINATIONS))
def test_every_combination_lies_between_0_and_1(overall: float, recognised: float, how: Combination) -> None:
    assert 0 <= combined(overall, recognised, how) <= 1


@given(SCORES, SCORES, THOUSANDTHS, THOUSANDTHS)
def test_lexicographic_goes_by_the_observations_first(a: float, b: float, x: float, y: float) -> None:
    if x > y:
        assert combined(a, x, "lexicographic") > combined(b, y, "lexicographic")
    if a >= b:
        assert combined(a, x, "lexicographic") >= combined(b, x, "lexicographic")

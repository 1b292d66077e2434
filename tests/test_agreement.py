"""Agreement of a judge with people: published examples, hand-worked numbers, and properties of any labels."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.stats.agreement import (
    Share,
    alpha,
    auc,
    cohen_kappa,
    confusion,
    corrected_rate,
    krippendorff_alpha,
    length_bias,
    mean_error,
    position_bias,
    rank_correlation,
    true_rates,
)

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units, * for missing.
TABLE = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)
UNITS = list(zip(*TABLE, strict=True))


@pytest.mark.parametrize(("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(metric: str, value: float) -> None:
    assert krippendorff_alpha(UNITS, metric) == pytest.approx(value, abs=0.0005)


def test_alpha_by_hand() -> None:
    # Two raters, two units: (a, a), (a, b). Observed 2/4 of the pairs differ; expected 2 * 3 * 1 / (4 * 3) = 1/2.
    assert krippendorff_alpha([("a", "a"), ("a", "b")]) == pytest.approx(0.0)
    # With two values, numbers are as far apart as names.
    assert krippendorff_alpha([(1, 1), (1, 2)], "interval") == pytest.approx(0.0)


def test_alpha_is_not_defined_where_nothing_differs() -> None:
    assert krippendorff_alpha([(1, 1), (1, None), (None, 2)]) is None
    assert krippendorff_alpha([]) is None
    assert alpha([(True, True)] * 5) is None
    with pytest.raises(ValueError, match="'ratio'; there are nominal"):
        krippendorff_alpha(UNITS, "ratio")


def test_auc_by_hand() -> None:
    # 0.8 is above both negatives, 0.4 above one of them: 3 of 4.
    result = auc([0.8, 0.4], [0.6, 0.2])
    assert result is not None and result.value == 0.75
    # A tie counts half: (1/2 + 1) / 2.
    assert auc([0.5], [0.5, 0.1]).value == 0.75  # type: ignore[union-attr]
    assert auc([], [0.1]) is None and auc([0.1], []) is None


def test_the_interval_of_an_auc_by_hand() -> None:
    # One of each, separated: (1 - t)^2 = z^2 t (1 - t), so t = 1 / (1 + z^2) = 1 / 4.841 459.
    result = auc([1.0], [0.0])
    assert result is not None
    assert result.value == result.interval.high == 1.0
    assert result.interval.low == pytest.approx(0.206549, abs=1e-6)
    # Ten of each, separated: no certainty, and less doubt than with one of each.
    assert 0.75 < auc([1.0] * 10, [0.0] * 10).interval.low < 0.9  # type: ignore[union-attr]


VALUES = st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=12)


@given(VALUES, VALUES)
def test_auc_of_the_other_class_is_the_rest_to_one(positive: list[float], negative: list[float]) -> None:
    one, other = auc(positive, negative), auc(negative, positive)
    assert one is not None and other is not None
    assert one.value + other.value == pytest.approx(1.0)
    assert one.interval.low <= one.value <= one.interval.high
    assert one.interval.low == pytest.approx(1 - other.interval.high, abs=1e-9)


LABELS = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=2, max_size=4), min_size=1, max_size=15)


@given(LABELS, st.sampled_from(["nominal", "ordinal", "interval"]), st.integers(-3, 3))
def test_alpha_is_at_most_1_and_does_not_see_the_order_of_raters_or_where_the_scale_starts(
    units: list[list[int | None]], metric: str, shift: int
) -> None:
    result = krippendorff_alpha(units, metric)
    moved = krippendorff_alpha([[None if v is None else v + shift for v in reversed(unit)] for unit in units], metric)
    assert (result is None) == (moved is None)
    if result is not None:
        assert result <= 1 + 1e-12
        assert result == pytest.approx(moved, abs=1e-9)


def test_alpha_has_an_interval_over_units() -> None:
    rng = Random(0)
    pairs = [(g, g if rng.random() < 0.9 else not g) for g in (rng.random() < 0.5 for _ in range(200))]
    result = alpha(pairs)
    assert result is not None
    assert result.interval.low < result.value < result.interval.high
    # Near 2 * 0.9 - 1, as all chance-corrected agreement of balanced labels.
    assert result.value == pytest.approx(0.8, abs=0.08)
    assert alpha([(True, True), (False, False)] * 20).interval == (1.0, 1.0)  # type: ignore[union-attr]


def test_kappa_by_hand() -> None:
    # 20 and 15 agree of 50; by chance 0.5 * 0.6 + 0.5 * 0.4: (0.7 - 0.5) / 0.5.
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    result = cohen_kappa(pairs)
    assert result is not None
    assert result.value == pytest.approx(0.4)
    assert 0.1 < result.interval.low < 0.4 < result.interval.high < 0.7
    assert confusion(pairs) == {"no": {"no": 15, "yes": 10}, "yes": {"no": 5, "yes": 20}}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60))
def test_kappa_is_that_of_the_definition(pairs: list[tuple[int, int]]) -> None:
    n, labels = len(pairs), {label for pair in pairs for label in pair}
    agreed = sum(a == b for a, b in pairs) / n
    chance = sum(sum(a == label for a, _ in pairs) * sum(b == label for _, b in pairs) for label in labels) / n**2
    result = cohen_kappa(pairs)
    if len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        assert result is None
    else:
        assert result is not None
        assert result.value == pytest.approx((agreed - chance) / (1 - chance))
        assert result.interval.low <= result.value + 1e-9 <= result.interval.high + 2e-9


def test_a_judge_that_gives_one_label_has_no_kappa() -> None:
    assert cohen_kappa([(True, True)] * 5 + [(False, True)] * 5) is None
    assert cohen_kappa([(True, True)] * 5 + [(True, False)] * 5) is None
    assert cohen_kappa([]) is None


def test_true_rates_by_hand() -> None:
    pairs = [(True, True)] * 8 + [(True, False)] * 2 + [(False, False)] * 27 + [(False, True)] * 3
    assert true_rates(pairs) == (Share(8, 10), Share(27, 30))
    assert true_rates([]) == (Share(0, 0), Share(0, 0))
    assert Share(0, 0).rate is None


def test_the_rate_is_corrected_for_the_judge() -> None:
    # 0.5 (0.9 + 0.8 - 1) + 0.2 = 0.55 is what such a judge sees of a rate of 0.5.
    result = corrected_rate(Share(550, 1000), Share(90, 100), Share(80, 100))
    assert result is not None
    assert result.value == pytest.approx(0.5)
    assert result.interval.low < 0.43
    assert result.interval.high > 0.57


def test_the_corrected_interval_by_hand() -> None:
    # With pseudo-observations se = 10/12, sp = 17/22, so the Youden index is 0.606061; z = 1.959964.
    # p = 61.92073/103.84146 = 0.596300, true 0.608896, shift +0.030158, half width 0.286170.
    most = corrected_rate(Share(60, 100), Share(9, 10), Share(16, 20))
    assert most is not None
    assert tuple(most.interval) == pytest.approx((0.352884, 0.925224), abs=2e-6)
    # p = 0.307399, true 0.132208, shift -0.041466, half width 0.293988: below 0 it is cut off.
    few = corrected_rate(Share(30, 100), Share(9, 10), Share(16, 20))
    assert few is not None
    assert tuple(few.interval) == pytest.approx((0.0, 0.384730), abs=2e-6)
    assert (Share(3, 4).rate, Share(0, 0).rate) == (0.75, None)


def test_with_a_perfect_and_well_known_judge_the_interval_is_that_of_agresti_and_coull() -> None:
    from statsmodels.stats.proportion import proportion_confint

    result = corrected_rate(Share(12, 80), Share(10**9, 10**9), Share(10**9, 10**9))
    assert result is not None
    assert (result.interval.low, result.interval.high) == pytest.approx(proportion_confint(12, 80, method="agresti_coull"), abs=1e-6)


@pytest.mark.parametrize(
    ("apparent", "tpr", "tnr"),
    [
        (Share(5, 10), Share(5, 10), Share(5, 10)),  # a coin
        (Share(5, 10), Share(0, 0), Share(9, 10)),  # no positive in gold
        (Share(0, 0), Share(9, 10), Share(9, 10)),
    ],
)
def test_a_judge_no_better_than_chance_corrects_nothing(apparent: Share, tpr: Share, tnr: Share) -> None:
    assert corrected_rate(apparent, tpr, tnr) is None


def test_the_corrected_interval_covers_the_truth() -> None:
    rng, covered = Random(1), 0
    for _ in range(400):
        truth, se, sp = 0.3, 0.85, 0.9
        draw = [sum(rng.random() < p for _ in range(n)) for p, n in ((truth * se + (1 - truth) * (1 - sp), 300), (se, 60), (sp, 60))]
        result = corrected_rate(Share(draw[0], 300), Share(draw[1], 60), Share(draw[2], 60))
        assert result is not None
        covered += result.interval.low <= truth <= result.interval.high
    assert 0.92 <= covered / 400 <= 0.99


def test_scores_are_compared_in_level_and_in_rank() -> None:
    pairs = [(float(gold), gold + 1.0 + gold % 2) for gold in range(10)]
    error = mean_error(pairs)
    assert error.value == pytest.approx(1.5)
    assert error.interval.low < 1.5 < error.interval.high
    assert rank_correlation([(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]).value == pytest.approx(1.0)  # type: ignore[union-attr]
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    assert rank_correlation([(1, 2), (2, 1), (3, 4), (4, 3)]).value == pytest.approx(0.6)  # type: ignore[union-attr]
    assert rank_correlation([(1.0, 2.0), (2.0, 2.0)]) is None
    # Two values on one side: ranks 1.5, 1.5, 3.5, 3.5 against 1 to 4 give 4 / sqrt(4 * 5).
    assert rank_correlation([(1, 1), (1, 2), (2, 3), (2, 4)]).value == pytest.approx(0.894427, abs=1e-6)  # type: ignore[union-attr]


def test_length_bias_is_seen_where_errors_grow_with_length() -> None:
    biased = length_bias([(words, 1.0 if words > 50 else 0.0) for words in range(100)])
    assert biased is not None
    assert biased.value > 0.8
    assert biased.interval.low > 0.7
    assert length_bias([(words, 0.0) for words in range(100)]) is None


def test_position_bias_by_hand() -> None:
    # Of 10 comparisons 4 flip: 3 took the first place both times, 1 the second.
    result = position_bias([(1.0, 1.0)] * 4 + [(0.0, 0.0)] * 2 + [(1.0, 0.0)] * 3 + [(0.0, 1.0)])
    assert (result.flipped, result.first) == (Share(4, 10), Share(3, 4))
    # Three or more of four heads, or of tails: 2 (1 + 4) / 16.
    assert result.p == pytest.approx(10 / 16)

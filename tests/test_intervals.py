"""Intervals and paired tests: equal to scipy and statsmodels, and on numbers worked out by hand or printed in papers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dream_cli.errors import UsageError
from dream_cli.stats.intervals import (
    Interval,
    Paired,
    _most_against,
    bootstrap,
    bootstrap_mean,
    mcnemar,
    mcnemar_power,
    newcombe,
    not_worse,
    paired_difference,
    percent,
    require_libraries,
    smallest_difference,
    student,
    wilson,
)

COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
TABLES = st.builds(Paired, *[st.integers(0, 60)] * 4).filter(lambda t: t.n > 0)


@given(COUNTS.filter(lambda c: c[1] > 0), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_that_of_statsmodels(count: tuple[int, int], level: float) -> None:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(*count, alpha=1 - level, method="wilson")
    assert (wilson(*count, level).low, wilson(*count, level).high) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (66, 167, 32.4, 47.1),  # DREAM on SIUO
        (39, 167, 17.6, 30.3),  # GPT-4V on SIUO
        (0, 50, 0.0, 7.1),
        (0, 167, 0.0, 2.2),
        (0, 442, 0.0, 0.9),
        (0, 0, 0.0, 100.0),
    ],
)
def test_wilson_of_published_counts(k: int, n: int, low: float, high: float) -> None:
    interval = wilson(k, n)
    assert (round(100 * interval.low, 1), round(100 * interval.high, 1)) == (low, high)
    assert str(interval) == f"[{low:.1f}, {high:.1f}]"


@pytest.mark.parametrize(("n", "half"), [(50, 13.4), (200, 6.9), (250, 6.2), (300, 5.6), (442, 4.6), (558, 4.1)])
def test_half_widths_at_one_half(n: int, half: float) -> None:
    interval = wilson(n // 2, n)
    assert round(50 * (interval.high - interval.low), 1) == half


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes of 5"):
        wilson(k, n)


@given(TABLES)
def test_mcnemar_is_that_of_statsmodels_and_scipy(table: Paired) -> None:
    from scipy.stats import binomtest
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    p = mcnemar(table)
    assert p == pytest.approx(theirs([[table.both, table.before], [table.after, table.neither]], exact=True).pvalue, abs=1e-12)
    if table.discordant:
        assert p == pytest.approx(binomtest(table.before, table.discordant).pvalue, abs=1e-12)


def test_mcnemar_by_hand() -> None:
    # 1 against 7: 2 (1 + 8) / 2^8.
    assert mcnemar(Paired(1, 1, 7, 12)) == 18 / 256
    assert mcnemar(Paired(40, 0, 0, 2)) == 1.0


@given(COUNTS.filter(lambda c: c[1] > 0), COUNTS.filter(lambda c: c[1] > 0))
def test_newcombe_is_that_of_statsmodels(after: tuple[int, int], before: tuple[int, int]) -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(*after, *before, method="newcomb", compare="diff")
    assert (newcombe(after, before).low, newcombe(after, before).high) == pytest.approx((low, high), abs=1e-12)


def test_seeds_of_the_same_items_are_averaged_and_add_no_items() -> None:
    mean = Paired.mean([Paired(10, 4, 6, 20), Paired(12, 5, 5, 18)])
    assert mean == Paired(11, 4.5, 5.5, 19)
    assert mean.n == 40
    assert paired_difference(Paired.mean([Paired(36, 2, 12, 0)] * 3)) == paired_difference(Paired(36, 2, 12, 0))
    with pytest.raises(ValueError, match="whole counts"):
        mcnemar(mean)


def test_newcombe_of_the_published_example() -> None:
    # Newcombe 1998, Stat. Med. 17:873, table II, (a) 56/70 - 48/80.
    interval = newcombe((56, 70), (48, 80))
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0524, 0.3339)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        (Paired(36, 2, 12, 0), 0.0569, 0.3404),  # Newcombe 1998, Stat. Med. 17:2635
        (Paired(14, 0, 5, 22), 0.0115, 0.2265),  # Altman et al. 2000, Statistics with Confidence, table 6.2: 0.011 to 0.226
        (Paired(1, 7, 1, 12), -0.5069, -0.0256),  # Fagerland et al. 2014, Stat. Med. 33:2850: -0.507 to -0.026
    ],
)
def test_paired_differences_of_published_tables(table: Paired, low: float, high: float) -> None:
    interval = paired_difference(table)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(TABLES)
def test_a_paired_difference_lies_within_its_interval(table: Paired) -> None:
    interval = paired_difference(table)
    assert -1 - 1e-9 <= interval.low - 1e-9 <= table.difference <= interval.high + 1e-9 <= 1 + 2e-9


@given(TABLES)
def test_swapping_before_and_after_turns_the_interval_round(table: Paired) -> None:
    one, other = paired_difference(table), paired_difference(Paired(table.both, table.after, table.before, table.neither))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)


def test_pairs_are_counted() -> None:
    outcomes = [(True, True), (True, False), (False, True), (False, True), (False, False)]
    assert Paired.count(outcomes) == Paired(1, 1, 2, 1)
    assert Paired.count(outcomes).difference == pytest.approx(1 / 5)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = [1.0] * 60 + [0.0] * 100 + [-1.0] * 40
    half = 1.96 * sqrt((100 / 200 - 0.1**2) / 200)
    interval = bootstrap_mean(values)
    assert (interval.low, interval.high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.006)
    assert interval == bootstrap_mean(values)
    assert bootstrap_mean([0.25] * 9) == Interval(0.25, 0.25)


def test_the_bootstrap_of_a_statistic_leaves_out_draws_in_which_it_is_not_defined() -> None:
    values = [0.0] * 50 + [1.0] * 50

    def mean(drawn: Sequence[int]) -> float:
        return sum(values[i] for i in drawn) / len(drawn)

    interval = bootstrap(100, mean)
    assert (interval.low, interval.high) == pytest.approx((0.4, 0.6), abs=0.02)
    partly = bootstrap(100, lambda drawn: nan if drawn[0] < 50 else mean(drawn))
    assert (partly.low, partly.high) == pytest.approx((0.4, 0.6), abs=0.03)
    assert isnan(bootstrap(3, lambda _: nan).low)


def test_without_the_libraries_the_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    require_libraries()
    monkeypatch.setattr("dream_cli.stats.intervals.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install '\.\[eval\]'"):
        require_libraries()


def test_student_by_hand() -> None:
    # Mean 0.2, standard deviation 0.1, t(0.975, 2) = 4.302653.
    interval = student([0.1, 0.2, 0.3])
    assert (interval.low, interval.high) == pytest.approx((0.2 - 4.302653 * 0.1 / sqrt(3), 0.2 + 4.302653 * 0.1 / sqrt(3)), abs=1e-6)


def test_not_worse_looks_at_the_bad_end() -> None:
    rise = Interval(-0.01, 0.029)
    assert not_worse(rise, 0.03, higher_is_better=False)
    assert not not_worse(rise, 0.029, higher_is_better=False)
    assert not_worse(rise, 0.03)
    assert not not_worse(Interval(-0.03, 0.2), 0.03)


def whole_power(n: int, discordant: float, difference: float) -> float:
    """The power of McNemar's exact test, summed over every pair of counts with p < 0.05."""
    toward, against = (discordant + difference) / 2, (discordant - difference) / 2
    return sum(
        binom.pmf(a, n, toward) * binom.pmf(b, n - a, against / (1 - toward)) if toward < 1 else float(a == n and b == 0)
        for a in range(n + 1)
        for b in range(n + 1 - a)
        if mcnemar(Paired(0, a, b, n - a - b)) < 0.05
    )


@pytest.mark.parametrize(
    ("n", "discordant", "difference"), [(50, 0.5, 0.276), (50, 0.04, 0.04), (30, 0.9, 0.4), (6, 0.97, 0.97), (5, 1.0, 1.0)]
)
def test_the_power_is_that_of_the_exact_test(n: int, discordant: float, difference: float) -> None:
    assert mcnemar_power(n, discordant, difference) == pytest.approx(whole_power(n, discordant, difference), abs=1e-3)


# Connor's formula, for the asymptotic test, gives these differences; simulated, the exact test finds them less often than in 80 %.
@pytest.mark.parametrize("discordant", [0, 5, 6, 50, 400, 2500, 10_000])
def test_the_border_of_the_exact_test_is_that_of_the_binomial(discordant: int) -> None:
    p_values = [min(1.0, 2 * float(p)) for p in binom.cdf(range(discordant + 1), discordant, 0.5)]
    assert _most_against(discordant, 0.05) == sum(p < 0.05 for p in p_values) - 1


@pytest.mark.parametrize(
    ("n", "discordant", "connor", "simulated"), [(50, 0.5, 0.276, 0.743), (167, 0.3, 0.1182, 0.773), (250, 0.3, 0.0968, 0.772)]
)
def test_the_power_at_the_differences_of_another_formula(n: int, discordant: float, connor: float, simulated: float) -> None:
    assert mcnemar_power(n, discordant, connor) == pytest.approx(simulated, abs=0.02)
    assert smallest_difference(n, discordant) > connor


@given(st.integers(0, 3000), st.floats(0.0, 0.5))
def test_what_a_set_can_show_is_found_in_80_of_100_and_a_little_less_is_not(n: int, discordant: float) -> None:
    d = smallest_difference(n, discordant)
    if d < 1:
        assert mcnemar_power(n, max(discordant, d), d) >= 0.8
        # The power climbs in steps, so that it is compared a little further below; d is rounded up to a thousandth.
        less = 0.9 * (d - 0.001)
        assert mcnemar_power(n, max(discordant, less), less) < 0.8


def test_what_a_set_can_show_at_its_ends() -> None:
    # All items that differ do so in one direction, and six must, for p < 0.05: P(Bin(50, d) >= 6) = 0.8.
    assert binom.sf(5, 50, 0.153) < 0.8 < binom.sf(5, 50, 0.154)
    assert smallest_difference(50, 0.0) == smallest_difference(50, 0.1) == 0.154
    assert smallest_difference(5, 0.5) == smallest_difference(0, 0.5) == 1.0
    # About 2.8 standard errors, sqrt(0.5 / 167) each, and a little more, as the exact test is conservative.
    assert smallest_difference(167, 0.5) == pytest.approx(2.8 * sqrt(0.5 / 167), abs=0.006)


@pytest.mark.parametrize(("share", "text"), [(0.125, "12.5 %"), (0.0, "0.0 %"), (1, "100.0 %"), (1 / 3, "33.3 %"), (None, "-")])
def test_a_percentage_has_one_decimal(share: float | None, text: str) -> None:
    assert percent(share) == text

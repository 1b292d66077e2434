"""The uncertainty of rates and differences: intervals, paired tests and the smallest detectable difference.

Rates are in [0, 1] and differences in [-1, 1]; `level` is the two-sided confidence level. The closed forms need only the
standard library; resampling and Student's quantiles need scipy (the `eval` extra).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import ceil, comb, exp, isnan, lgamma, log, log1p, nan, sqrt
from statistics import NormalDist, fmean
from typing import NamedTuple

from dream_cli.errors import UsageError, with_extra

LEVEL = 0.95


def percent(share: float | None) -> str:
    """Return a share in [0, 1] as a percentage with one decimal, such as "12.5 %"; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


class Interval(NamedTuple):
    """The bounds of a confidence interval."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Paired:
    """The outcomes of the same items in two runs: the number of successes in `both`, only `before`, only `after`, or in `neither`.

    Counts are fractional if several seeds of the same items are averaged.
    """

    both: float
    before: float
    after: float
    neither: float

    @classmethod
    def count(cls, pairs: Sequence[tuple[bool, bool]]) -> Paired:
        """Count (before, after) outcomes."""
        cells = [(True, True), (True, False), (False, True), (False, False)]
        return cls(*(sum((bool(b), bool(a)) == cell for b, a in pairs) for cell in cells))

    @classmethod
    def mean(cls, tables: Sequence[Paired]) -> Paired:
        """Return the mean of several tables of the same items."""
        return cls(*(fmean(cell) for cell in zip(*((t.both, t.before, t.after, t.neither) for t in tables), strict=True)))

    @property
    def n(self) -> int:
        """The number of items."""
        return round(self.both + self.before + self.after + self.neither)

    @property
    def discordant(self) -> float:
        """The number of items with different outcomes."""
        return self.before + self.after

    @property
    def difference(self) -> float:
        """The rate after minus the rate before; raises ZeroDivisionError if there are no items."""
        return (self.after - self.before) / self.n


def wilson(k: float, n: int, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of k successes in n (Wilson 1927); [0, 1] for no trials.

    `k` is fractional if several trials of an item are averaged. Raises ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes of {n}")
    if n == 0:
        return Interval(0.0, 1.0)
    z, p = normal_quantile(level), k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Exactly 0 or 1 at the ends, without the rounding error of the sum.
    return Interval(0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def mcnemar(paired: Paired) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 without discordant items.

    Under the null hypothesis each discordant item is a success before or after with probability 1/2. Raises ValueError for fractional
    counts.
    """
    n, fewer = int(paired.discordant), int(min(paired.before, paired.after))
    if (n, fewer) != (paired.discordant, min(paired.before, paired.after)):
        raise ValueError("McNemar's exact test needs whole counts")
    return min(1.0, 2 * sum(comb(n, i) for i in range(fewer + 1)) / (1 << n))


def newcombe(after: tuple[float, int], before: tuple[float, int], phi: float = 0.0, level: float = LEVEL) -> Interval:
    """Return the interval of the difference of two rates, each (k, n), `after` minus `before`, by Newcombe's square-and-add.

    `phi` is the correlation of the two: 0 for independent samples (Newcombe 1998, Stat. Med. 17:873, method 10).
    """
    p, q = after[0] / after[1], before[0] / before[1]
    of_p, of_q = wilson(*after, level), wilson(*before, level)

    def distance(a: float, b: float) -> float:
        return sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return Interval(p - q - distance(p - of_p.low, of_q.high - q), p - q + distance(of_p.high - p, q - of_q.low))


def paired_difference(paired: Paired, level: float = LEVEL) -> Interval:
    """Return the interval of the rate after minus the rate before on the same items (Newcombe 1998, Stat. Med. 17:2635, method 10)."""
    a, b, c, d, n = paired.both, paired.after, paired.before, paired.neither, paired.n
    product = (a + b) * (c + d) * (a + c) * (b + d)
    excess = float(a * d - b * c)
    if excess > 0:
        # A positive correlation narrows the interval; it gets a continuity correction.
        excess = max(excess - n / 2, 0.0)
    return newcombe((a + b, n), (a + c, n), excess / sqrt(product) if product else 0.0, level)


def bootstrap(n: int, statistic: Callable[[Sequence[int]], float], level: float = LEVEL, resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the percentile interval of a statistic of n items, resampled with replacement; `statistic` takes the indices of a resample.

    Resamples with an undefined statistic (NaN) are left out; if all are undefined, the interval is [NaN, NaN]. Needs numpy.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n).tolist()) for _ in range(resamples)]
    defined = [value for value in values if not isnan(value)]
    if not defined:
        return Interval(nan, nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def bootstrap_mean(values: Sequence[float], level: float = LEVEL, resamples: int = 9999, seed: int = 0) -> Interval:
    """Return the percentile interval of the mean of one value per item, such as a paired difference; needs scipy.

    Several trials or seeds of one item are not independent: pass their mean as a single value.
    """
    import numpy as np
    from scipy.stats import bootstrap as resample

    interval = resample(
        (np.asarray(values, float),),
        np.mean,
        n_resamples=resamples,
        # 100 resamples at a time, to limit the memory.
        batch=100,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))


def student(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Student's interval of the mean of a few independent values, such as one difference per seed; needs scipy and at least two values."""
    from statistics import stdev

    from scipy.stats import t

    half = float(t.isf((1 - level) / 2, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return Interval(fmean(values) - half, fmean(values) + half)


def not_worse(difference: Interval, margin: float, *, higher_is_better: bool = True) -> bool:
    """Whether the interval of a difference (after minus before) excludes a loss of `margin` or more.

    This is a test of non-inferiority, one-sided at (1 - level) / 2.
    """
    return difference.low > -margin if higher_is_better else difference.high < margin


def mcnemar_power(n: int, discordant: float, difference: float, level: float = LEVEL) -> float:
    """Return the probability that McNemar's exact test of n items has p < 1 - `level`.

    `discordant` is the share of items with different outcomes, `difference` that of the two rates; 0 < difference <= discordant.
    """
    toward = (discordant + difference) / (2 * discordant)
    middle, reach = n * discordant, 5 * sqrt(n * discordant * (1 - discordant)) + 1
    counts = range(max(0, round(middle - reach)), min(n, round(middle + reach)) + 1)
    # Of many counts, use about forty in equal steps.
    counts = counts[:: max(1, len(counts) // 40)]
    weights = [_binomial(k, n, discordant) for k in counts]
    power = 0.0
    for k, weight in zip(counts, weights, strict=True):
        fewer = _most_against(k, 1 - level)
        power += weight * (_at_most(fewer, k, toward) + _at_most(fewer, k, 1 - toward))
    return power / sum(weights)


@cache
def _most_against(discordant: int, alpha: float) -> int:
    """Return the largest minority among the discordant items with McNemar's exact p < alpha; -1 if there is none."""
    fewer = max(-1, int(discordant / 2 - sqrt(discordant)))
    while fewer >= 0 and not 2 * _at_most(fewer, discordant, 0.5) < alpha:
        fewer -= 1
    while 2 * _at_most(fewer + 1, discordant, 0.5) < alpha:
        fewer += 1
    return fewer


def _binomial(k: int, n: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == n * p)
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log1p(-p))


def _at_most(k: int, n: int, p: float) -> float:
    """Return the probability of at most k successes in n trials."""
    if k < 0 or k >= n or p in (0.0, 1.0):
        return float(k >= n * p if k >= 0 else 0)
    if k > n * p:
        # Sum the other tail, whose terms decrease from the first one, so that none underflows.
        return 1 - _at_most(n - k - 1, n, 1 - p)
    total = term = _binomial(k, n, p)
    while k > 0 and term > 1e-12 * total:
        term *= k / (n - k + 1) * (1 - p) / p
        total, k = total + term, k - 1
    return total


@cache
def smallest_difference(n: int, discordant: float = 0.5, power: float = 0.8, level: float = LEVEL) -> float:
    """Return the smallest difference of two rates on the same n items that McNemar's exact test detects with this power, to a thousandth.

    `discordant` is the share of items with different outcomes, at least the difference itself. Without a second run, use 2 p (1 - p),
    the value for an independent run with rate p: at most 0.5. The result is 1 if the set cannot show any difference.
    """
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if mcnemar_power(n, max(discordant, middle), middle, level) >= power else (middle, high)
    return min(1.0, ceil(1000 * high) / 1000)


def require_libraries() -> None:
    """Raise UsageError, with the command to install them, if scipy or statsmodels is missing."""
    if not all(map(find_spec, ("scipy", "statsmodels"))):
        raise UsageError(f"paired tests and agreement need scipy and statsmodels; {with_extra('eval')}")


def normal_quantile(level: float) -> float:
    """Return the standard normal quantile of a two-sided level: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)

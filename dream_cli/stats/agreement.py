"""The agreement of a judge with human labels, and the direction of its errors: pure functions on labels.

A label is a truth value, a word or a number. An undefined statistic (only one class, only one rater) is None, never 0 or 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import fmean

from dream_cli.stats.intervals import LEVEL, Interval, Paired, bootstrap, bootstrap_mean, mcnemar, normal_quantile, wilson

Label = bool | int | float | str
METRICS = ("nominal", "ordinal", "interval")


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, in the same unit."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Share:
    """A proportion, k of n, with Wilson's interval."""

    k: int
    n: int

    @property
    def rate(self) -> float | None:
        """The proportion; None for n = 0."""
        return self.k / self.n if self.n else None

    @property
    def interval(self) -> Interval:
        """Wilson's interval."""
        return wilson(self.k, self.n)


def confusion(pairs: Sequence[tuple[Label, Label]]) -> dict[Label, dict[Label, int]]:
    """Return the confusion matrix: the counts by gold label (outer) and judged label (inner), with every label in both, sorted."""
    counts, labels = Counter(pairs), sorted({label for pair in pairs for label in pair}, key=str)
    return {gold: {judged: counts[gold, judged] for judged in labels} for gold in labels}


def cohen_kappa(pairs: Sequence[tuple[Label, Label]], level: float = LEVEL) -> Estimate | None:
    """Return Cohen's kappa of two raters with its asymptotic interval (Fleiss et al. 1969).

    None if one rater used a single label: agreement is then equal to chance, whatever the other rater's labels are.
    Needs statsmodels.
    """
    if min(len({pair[rater] for pair in pairs}) for rater in (0, 1)) < 2:
        return None
    from statsmodels.stats.inter_rater import cohens_kappa

    result = cohens_kappa([list(row.values()) for row in confusion(pairs).values()])
    half = normal_quantile(level) * sqrt(max(0.0, float(result.var_kappa)))
    kappa = float(result.kappa)
    return Estimate(kappa, Interval(max(-1.0, kappa - half), min(1.0, kappa + half)))


def auc(positive: Sequence[float], negative: Sequence[float], level: float = LEVEL) -> Estimate | None:
    """Return the area under the ROC curve: the probability that a positive item has a higher value than a negative one; ties count half.

    The interval is the score interval of Newcombe (2006, Stat. Med. 25:559, method 5), which has a positive width even for perfectly
    separated classes. None if a class is empty.
    """
    m, n = len(positive), len(negative)
    if not (m and n):
        return None
    area = sum((p > q) + 0.5 * (p == q) for p in positive for q in negative) / (m * n)
    z, shared = normal_quantile(level), (m + n) / 2 - 1

    def outside(theta: float) -> bool:
        # The variance of Hanley and McNeil (1982) at the true area theta.
        variance = theta * (1 - theta) * (1 + shared * (1 - theta) / (2 - theta) + shared * theta / (1 + theta)) / (m * n)
        return abs(area - theta) > z * sqrt(variance)

    def bound(out: float) -> float:
        inside = area
        for _ in range(50):
            middle = (out + inside) / 2
            out, inside = (middle, inside) if outside(middle) else (out, middle)
        return inside

    return Estimate(area, Interval(bound(0.0), bound(1.0)))


def krippendorff_alpha(units: Sequence[Sequence[Label | None]], metric: str = "nominal") -> float | None:
    """Return Krippendorff's alpha of one sequence of labels per unit; a missing label is None (Krippendorff 2011).

    `metric` is the level of measurement: nominal, ordinal (sortable values) or interval (numbers). Units with fewer than two
    labels do not count. The result is None if all labels are equal: chance agreement is then 1, and alpha is 0/0.

    Disagreement is squared distance, so the sum over all pairs of a group is its spread about the mean:
    alpha = 1 - sum_u m_u/(m_u - 1) spread(u) / (n/(n - 1) spread(all)), m_u labels in unit u, n in all units.
    """
    if metric not in METRICS:
        raise ValueError(f"no such level of measurement: {metric!r}; there are {', '.join(METRICS)}")
    rated = [[label for label in unit if label is not None] for unit in units]
    rated = [unit for unit in rated if len(unit) > 1]
    everything = [label for unit in rated for label in unit]
    if len(set(everything)) < 2:
        return None
    positions = _positions(everything, metric)
    expected = len(everything) / (len(everything) - 1) * _spread(everything, positions)
    return 1 - sum(len(unit) / (len(unit) - 1) * _spread(unit, positions) for unit in rated) / expected


def _positions(labels: Sequence[Label], metric: str) -> dict[Label, float] | None:
    """Return the position of each label on a line; None for nominal labels, whose distances are all equal."""
    if metric == "nominal":
        return None
    if metric == "interval":
        return {label: float(label) for label in labels}
    counts, positions, below = Counter(labels), {}, 0
    for label in sorted(counts):
        # The ordinal distance of two labels is that of their mid-ranks.
        positions[label] = below + counts[label] / 2
        below += counts[label]
    return positions


def _spread(labels: Sequence[Label], positions: dict[Label, float] | None) -> float:
    """Return the sum of squared distances from the mean; nominal labels are the corners of a simplex with sides of length 1."""
    if positions is None:
        return (len(labels) - sum(n * n for n in Counter(labels).values()) / len(labels)) / 2
    values = [positions[label] for label in labels]
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values)


def alpha(units: Sequence[Sequence[Label | None]], metric: str = "nominal", level: float = LEVEL, seed: int = 0) -> Estimate | None:
    """Return Krippendorff's alpha with its bootstrap interval over units; None if it is undefined. Needs numpy."""
    value = krippendorff_alpha(units, metric)
    if value is None:
        return None

    def resampled_value(indices: Sequence[int]) -> float:
        resampled = krippendorff_alpha([units[i] for i in indices], metric)
        return nan if resampled is None else resampled

    return Estimate(value, bootstrap(len(units), resampled_value, level, resamples=1000, seed=seed))


def true_rates(pairs: Sequence[tuple[bool, bool]]) -> tuple[Share, Share]:
    """Return the true positive rate and the true negative rate of the judge; the pairs are (gold, judged)."""
    judged = {gold: [j for g, j in pairs if g == gold] for gold in (True, False)}
    return Share(sum(judged[True]), len(judged[True])), Share(sum(not j for j in judged[False]), len(judged[False]))


def corrected_rate(apparent: Share, tpr: Share, tnr: Share, level: float = LEVEL) -> Estimate | None:
    """Return the rate in [0, 1], corrected for the judge's errors, from the `apparent` rate and the judge's `tpr` and `tnr`.

    The estimator is that of Rogan and Gladen (1978); the interval includes the uncertainty of `tpr` and `tnr` (Lang and Reiczigel 2014,
    Prev. Vet. Med. 113:13). None if the judge is no better than chance, or the gold labels have only one class.
    """
    if not (apparent.n and tpr.n and tnr.n):
        return None
    p, se, sp = apparent.k / apparent.n, tpr.k / tpr.n, tnr.k / tnr.n
    if se + sp <= 1:
        return None
    return Estimate(min(1.0, max(0.0, (p + sp - 1) / (se + sp - 1))), _lang_reiczigel(apparent, tpr, tnr, normal_quantile(level)))


def _lang_reiczigel(apparent: Share, tpr: Share, tnr: Share, z: float) -> Interval:
    # Pseudo-observations, half of them successes, are added to each sample, as in the Agresti-Coull interval.
    n, n_se, n_sp = apparent.n + z * z, tpr.n + 2, tnr.n + 2
    p, se, sp = (apparent.k + z * z / 2) / n, (tpr.k + 1) / n_se, (tnr.k + 1) / n_sp
    youden = se + sp - 1
    if youden <= 0:
        return Interval(0.0, 1.0)
    true = (p + sp - 1) / youden
    of_se, of_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z * z * (true * of_se - (1 - true) * of_sp)
    half = z * sqrt(p * (1 - p) / n + true**2 * of_se + (1 - true) ** 2 * of_sp) / youden
    return Interval(min(1.0, max(0.0, true + shift - half)), max(0.0, min(1.0, true + shift + half)))


def mean_error(pairs: Sequence[tuple[float, float]], level: float = LEVEL, seed: int = 0) -> Estimate:
    """Return the mean of judged minus gold, in the unit of the scores, with its bootstrap interval; needs scipy and at least one pair."""
    errors = [judged - gold for gold, judged in pairs]
    return Estimate(fmean(errors), bootstrap_mean(errors, level, seed=seed))


def rank_correlation(pairs: Sequence[tuple[float, float]], level: float = LEVEL, seed: int = 0) -> Estimate | None:
    """Return Spearman's rank correlation with its bootstrap interval over pairs; None if one side is constant. Needs scipy."""
    value = _spearman(pairs)
    if value is None:
        return None

    def resampled_value(indices: Sequence[int]) -> float:
        resampled = _spearman([pairs[i] for i in indices])
        return nan if resampled is None else resampled

    return Estimate(value, bootstrap(len(pairs), resampled_value, level, resamples=1000, seed=seed))


def _spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    from scipy.stats import spearmanr

    if len({x for x, _ in pairs}) < 2 or len({y for _, y in pairs}) < 2:
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def length_bias(errors: Sequence[tuple[int, float]], level: float = LEVEL, seed: int = 0) -> Estimate | None:
    """Return the rank correlation of a response's length in words with the judge's error on it (judged minus gold).

    Above 0 the judge favours long responses more than people do. None if all errors or all lengths are equal.
    """
    return rank_correlation([(float(words), error) for words, error in errors], level, seed)


@dataclass(frozen=True)
class PositionBias:
    """The effect of swapping the order of two responses: the share of flipped verdicts, and the position that they favour."""

    flipped: Share
    first: Share  # of the flipped verdicts, those for the response shown first both times

    @property
    def p(self) -> float:
        """The two-sided exact p-value for no preference between the two positions."""
        return mcnemar(Paired(0, self.first.k, self.first.n - self.first.k, 0))


def position_bias(orders: Sequence[tuple[float, float]]) -> PositionBias:
    """Return the position bias; each pair is the outcome (1 or 0) of a response shown first, and of the same response shown second."""
    flipped = [(first, second) for first, second in orders if first != second]
    return PositionBias(Share(len(flipped), len(orders)), Share(sum(first > second for first, second in flipped), len(flipped)))

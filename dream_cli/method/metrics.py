"""Scores from the judge's answers, as pure functions (DREAM, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from dream_cli.records.choices import Combination

COMBINATIONS = get_args(Combination)
EDGE = 1e-6


def expected_score(probabilities: Mapping[str, float]) -> float:
    """Return the expected global score, 0 to 10, from the probabilities of the answers "0" to "10".

    The probabilities are normalised by their sum; raises ValueError if the sum is not positive.
    """
    total = sum(probabilities.values())
    if not total > 0:
        raise ValueError("no probability on any score")
    return sum(float(answer) * p for answer, p in probabilities.items()) / total


def observation_score(recognised: Sequence[float]) -> float:
    """Return the share of observations, 0 to 1, that the response recognises; each entry is 0, 1 or a probability.

    Raises ValueError for an empty list: without risks there is no share.
    """
    if not recognised:
        raise ValueError("no observation to recognise")
    return sum(recognised) / len(recognised)


def without_bias(probability: float, bias: float) -> float:
    """Return a probability in [0, 1] with the log-odds of `bias` subtracted: `bias` itself becomes 1/2; 0 and 1 stay unchanged.

    `bias` is clipped to [1e-6, 1 - 1e-6], because the log-odds of 0 and 1 are infinite.
    """
    if probability in (0, 1):
        return probability
    offset = min(max(bias, EDGE), 1 - EDGE)
    return 1 / (1 + (1 - probability) / probability * offset / (1 - offset))


def combined(global_score: float | None, observation_score: float | None, combination: Combination) -> float:
    """Return one score in [0, 1] from a global score (0 to 10) and an observation score (0 to 1).

    `sum` is the mean of the two, `product` their product; `lexicographic` orders by the observation score, and by the global
    score in ties. If one part is None, these three return the other. `global` and `observation` are that part alone.
    Raises ValueError if the required parts are absent.
    """
    parts = {"global": None if global_score is None else global_score / 10, "observation": observation_score}
    if combination not in COMBINATIONS:
        raise ValueError(f"no such combination of scores: {combination!r}; there are {', '.join(COMBINATIONS)}")
    known = [part for name, part in parts.items() if part is not None and combination in (name, "sum", "product", "lexicographic")]
    if not known:
        raise ValueError(f"no score to take the {combination} of")
    if len(known) == 1:
        return known[0]
    overall, recognised = known
    if combination == "sum":
        return (overall + recognised) / 2
    return overall * recognised if combination == "product" else _lexicographic(overall, recognised)


def _lexicographic(overall: float, recognised: float) -> float:
    """Return (11 n + GS) / 11010, where n is the observation score in whole thousandths.

    GS has a range of 10 and a thousandth weighs 11, so a thousandth outweighs any global score; the maximum is (11000 + 10) / 11010 = 1.
    """
    return (11 * round(1000 * recognised) + 10 * overall) / 11010

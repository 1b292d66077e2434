"""Pure functions on numbers: how answers of the judge become scores (DREAM, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from dream_cli.records.choices import Combination

COMBINATIONS = get_args(Combination)
EDGE = 1e-6


def expected_score(probabilities: Mapping[str, float]) -> float:
    """Return the expected global score, 0 to 10, of the probabilities of the answers "0" to "10".

    The probabilities are taken relative to their sum; raises ValueError if they sum to nothing.
    """
    total = sum(probabilities.values())
    if not total > 0:
        raise ValueError("no probability on any score")
    return sum(float(answer) * p for answer, p in probabilities.items()) / total


def observation_score(recognised: Sequence[float]) -> float:
    """Return the share of observations, 0 to 1, that the response recognises; each entry is 0, 1 or a probability.

    Raises ValueError for an empty list: a response to no risk is not one that recognised every risk.
    """
    if not recognised:
        raise ValueError("no observation to recognise")
    return sum(recognised) / len(recognised)


def without_bias(probability: float, bias: float) -> float:
    """Return a probability in [0, 1] with the log-odds of `bias` taken off: `bias` itself becomes 1/2; 0 and 1 stay what they are.

    `bias` is kept within 1e-6 of 0 and 1, where log-odds are infinite.
    """
    if probability in (0, 1):
        return probability
    offset = min(max(bias, EDGE), 1 - EDGE)
    return 1 / (1 + (1 - probability) / probability * offset / (1 - offset))


def combined(global_score: float | None, observation_score: float | None, how: Combination) -> float:
    """Return one score in [0, 1] from a global score (0 to 10) and an observation score (0 to 1).

    `sum` is the mean of the two, `product` their product, `lexicographic` goes by the observation score and lets the
    global score break ties; these three take the one part where the other is None. `global` and `observation` are that
    part alone. Raises ValueError if the required parts are absent.
    """
    parts = {"global": None if global_score is None else global_score / 10, "observation": observation_score}
    if how not in COMBINATIONS:
        raise ValueError(f"no such combination of scores: {how!r}; there are {', '.join(COMBINATIONS)}")
    known = [part for name, part in parts.items() if part is not None and how in (name, "sum", "product", "lexicographic")]
    if not known:
        raise ValueError(f"no score to take the {how} of")
    if len(known) == 1:
        return known[0]
    overall, recognised = known
    if how == "sum":
        return (overall + recognised) / 2
    return overall * recognised if how == "product" else _lexicographic(overall, recognised)


def _lexicographic(overall: float, recognised: float) -> float:
    """Return (11 n + GS) / 11010, n the observation score in whole thousandths.

    GS spans 10 and a thousandth weighs 11, so no global score makes up for a thousandth; all ones give (11000 + 10) / 11010 = 1.
    """
    return (11 * round(1000 * recognised) + 10 * overall) / 11010

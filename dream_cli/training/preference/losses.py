"""The preference losses in the notation of the papers, and their names in TRL.

With r = log pi(y|x) - log pi_ref(y|x), summed over the tokens of a response, c chosen, r rejected, n lengths in tokens,
delta = r_c - r_r, and the rewards beta * r_c and beta * r_r:

    sigmoid       -log sigmoid(beta delta)                                          DPO, arXiv 2305.18290, equation 7
    hinge         max(0, 1 - beta delta)                                            SLiC, arXiv 2305.10425, as normalised in RSO
    ipo           (r_c / n_c - r_r / n_r - 1 / (2 beta))^2                          IPO, arXiv 2310.12036, equation 17, per token
    robust        (-(1 - e) log sigmoid(beta delta) + e log sigmoid(-beta delta)) / (1 - 2 e)    arXiv 2403.00409, e = label smoothing
    sigmoid_norm  -log sigmoid(beta (r_c / n_c - r_r / n_r))                        length-normalised, Tulu 3, arXiv 2411.15124
    bco_pair      -log sigmoid(beta r_c) - log sigmoid(-beta r_r)                   BCO, arXiv 2404.04656, without its moving zero
    sft           - mean log pi(token) over the chosen tokens                       RPO, arXiv 2404.19733, equation 1

A loss is a weighted sum of these terms; sigmoid=0.8, bco_pair=0.2, sft=1 is MPO, the usual recipe of vision-language models
(arXiv 2411.10442). `ld_alpha` is the weight in r of an answer's tokens beyond the length of the shorter answer of its pair
(LD-DPO, arXiv 2409.06411): 1 is DPO, 0 leaves them out.

TRL computes them on both paths; hand-worked numbers in the tests check its definitions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from dream_cli.errors import UsageError
from dream_cli.records.choices import LossTerm, PairLoss

if TYPE_CHECKING:
    from torch import Tensor

TERMS, PAIR_LOSSES = get_args(LossTerm), get_args(PairLoss)
# These are already divided by the length.
_NORMALISED = ("ipo", "sigmoid_norm")


@dataclass(frozen=True)
class PreferenceLoss:
    """A weighted sum of `TERMS`, its strength `beta`, the share of flipped labels that `robust` assumes, and `ld_alpha`.

    Raises UsageError where a value has no meaning for the loss: TRL would ignore label smoothing for most losses.
    """

    terms: Mapping[str, float] = field(default_factory=lambda: {"sigmoid": 1.0})
    beta: float = 0.1
    label_smoothing: float = 0.0
    ld_alpha: float | None = None

    def __post_init__(self) -> None:
        names = ", ".join(self.terms)
        problems = [
            *(f"no such loss: {name!r}; there are {', '.join(TERMS)}" for name in self.terms if name not in TERMS),
            *(
                f"the weight of {name} is {weight:g}; it must be more than 0"
                for name, weight in self.terms.items()
                if not (weight > 0 and math.isfinite(weight))
            ),
            "the loss compares no pairs; dream sft trains on responses alone" if self.terms.keys() <= {"sft"} else "",
            f"beta is {self.beta}; it must be more than 0" if not (self.beta > 0 and math.isfinite(self.beta)) else "",
            f"label smoothing is {self.label_smoothing}; it must be at least 0 and under 0.5"
            if not 0 <= self.label_smoothing < 0.5
            else "",
            f"label smoothing belongs to the robust loss; {names} would ignore it"
            if self.label_smoothing and "robust" not in self.terms
            else "",
        ]
        if self.ld_alpha is not None:
            problems += [
                f"ld_alpha is {self.ld_alpha}; it must be from 0 to 1" if not 0 <= self.ld_alpha <= 1 else "",
                *(f"{name} divides by the length already; leave out ld_alpha" for name in _NORMALISED if name in self.terms),
            ]
        if any(problems):
            raise UsageError("; ".join(filter(None, problems)))

    def to_trl(self) -> dict[str, Any]:
        """Return the equivalent arguments of TRL's `DPOConfig`."""
        terms = {"loss_type": list(self.terms), "loss_weights": list(self.terms.values())}
        return terms | {"beta": self.beta, "label_smoothing": self.label_smoothing, "ld_alpha": self.ld_alpha}


def read_terms(text: str) -> dict[str, float]:
    """Return the terms of "sigmoid=0.8,sft" with their weights, 1 by default; raise UsageError where they cannot be read."""
    terms: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        if name in terms:
            raise UsageError(f"{name} is named twice")
        try:
            terms[name] = float(weight) if equals else 1.0
        except ValueError:
            raise UsageError(f"{weight!r} is not a number; write NAME=WEIGHT,...") from None
    return terms


def answer_scores(log_probs: Tensor, real: Tensor, ld_alpha: float | None) -> Tensor:
    """Return log pi of each answer in nats, (2 B,), of its tokens', (2 B, A): the chosen rows, then the rejected ones; `real` marks tokens.

    `ld_alpha` is the weight of the tokens beyond the length of the shorter answer of the pair.
    """
    import torch

    if ld_alpha is None:
        return log_probs.sum(1)
    chosen, rejected = real.sum(1).chunk(2)
    shared = torch.minimum(chosen, rejected).repeat(2)
    place = real.cumsum(1)
    return (log_probs * real * torch.where(place <= shared[:, None], 1.0, ld_alpha)).sum(1)

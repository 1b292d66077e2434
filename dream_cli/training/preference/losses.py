"""The preference losses, in the terms of the papers, and their names in TRL.

With r = log pi(y|x) - log pi_ref(y|x), summed over the tokens of a response, c chosen, r rejected, n lengths in tokens,
delta = r_c - r_r, and the rewards beta * r_c and beta * r_r:

    sigmoid       -log sigmoid(beta delta)                                          DPO, arXiv 2305.18290, equation 7
    hinge         max(0, 1 - beta delta)                                            SLiC, arXiv 2305.10425, as normalised in RSO
    ipo           (r_c / n_c - r_r / n_r - 1 / (2 beta))^2                          IPO, arXiv 2310.12036, equation 17, per token
    robust        (-(1 - e) log sigmoid(beta delta) + e log sigmoid(-beta delta)) / (1 - 2 e)    arXiv 2403.00409, e = label smoothing
    sigmoid_norm  -log sigmoid(beta (r_c / n_c - r_r / n_r))                        length-normalised, Tulu 3, arXiv 2411.15124
    + bco         bco_weight * (-log sigmoid(beta r_c) - log sigmoid(-beta r_r))    BCO, arXiv 2404.04656, without its moving zero
    + sft         - sft_weight * mean log pi(token) over the chosen tokens           RPO, arXiv 2404.19733, equation 1

Sigmoid with both terms is MPO, the usual recipe of vision-language models (arXiv 2411.10442); its weights 0.8, 0.2 and 1 are, with the
first one as the unit, a `bco_weight` of 0.25 and an `sft_weight` of 1.25.

TRL computes them, on either path; the numbers worked by hand in the tests hold its definitions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from dream_cli.errors import UsageError
from dream_cli.records.choices import LossKind

KINDS = get_args(LossKind)


@dataclass(frozen=True)
class PreferenceLoss:
    """One of `KINDS` with its strength `beta`, the share of flipped labels that `robust` allows for, and the weights of added terms.

    Raises UsageError where a value has no meaning for the loss: TRL would ignore a label smoothing that the loss does not know.
    """

    kind: LossKind = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    bco_weight: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"no such loss: {self.kind!r}; there are {', '.join(KINDS)}" if self.kind not in KINDS else "",
            f"beta is {self.beta}; it must be more than 0" if not (self.beta > 0 and math.isfinite(self.beta)) else "",
            f"label smoothing is {self.label_smoothing}; it must be at least 0 and under 0.5"
            if not 0 <= self.label_smoothing < 0.5
            else "",
            f"label smoothing belongs to the robust loss; {self.kind} would ignore it"
            if self.label_smoothing and self.kind != "robust"
            else "",
            *(
                f"the {name} weight is {weight}; it must be 0 or more"
                for name, weight in (("SFT", self.sft_weight), ("BCO", self.bco_weight))
                if not (weight >= 0 and math.isfinite(weight))
            ),
        ]
        if any(problems):
            raise UsageError("; ".join(filter(None, problems)))

    def to_trl(self) -> dict[str, Any]:
        """Return the equivalent arguments of TRL's `DPOConfig`."""
        terms = {str(self.kind): 1.0, "bco_pair": self.bco_weight, "sft": self.sft_weight}
        terms = {name: weight for name, weight in terms.items() if weight}
        return {"loss_type": list(terms), "loss_weights": list(terms.values()), "beta": self.beta, "label_smoothing": self.label_smoothing}

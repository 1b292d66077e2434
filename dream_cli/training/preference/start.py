"""The start of a preference run: the policy equals its reference, so every log ratio is 0, and the DPO loss is ln 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_cli.errors import DreamError

if TYPE_CHECKING:
    from torch import Tensor

# The rounding noise of a log-probability per token, in nats: results depend on batch and padding. The reference is scored in file order,
# the first update is shuffled. A missing image or dropout changes a token by more than this, also in tiny models.
EXACT_NOISE, HALF_NOISE = 2e-4, 0.05


def remove_dropout(model: Any) -> None:
    """Set to 0 every dropout rate that a module stores as a number, as attention modules do.

    TRL sets those of `torch.nn.Dropout`; the reference has no dropout, and the policy must differ from it only by training.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and "dropout" in name:
                setattr(module, name, 0.0)


def check_equal(policy: Tensor, reference: Tensor, tokens: Tensor, *, exact: bool) -> None:
    """Raise DreamError where log-probabilities of whole answers, (answers,) in nats, differ per token by more than rounding noise.

    `exact` is False where weights or products have fewer than 32 bits.
    """
    noise = EXACT_NOISE if exact else HALF_NOISE
    difference = float(((policy.float() - reference).abs() / tokens.clamp(min=1)).mean())
    if not difference <= noise:
        raise DreamError(
            f"the policy differs from its reference before the first update, by {difference:.2g} nats per token (rounding: {noise:g}), so "
            "its loss is not that of an untrained policy: the two do not get the same images, or something random is on in training "
            "alone, such as dropout or router noise; --plain uses TRL's own forward passes"
        )

"""The learning rate of each update: the warm-up counts from the first one, which would otherwise have a rate of 0."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def warmed(step: int, decay: Callable[[int], float], warm: int) -> float:
    """Return the factor of the learning rate at a step from 0 on: (step + 1) / (warm + 1) for the `warm` first steps, then the decay's."""
    return (step + 1) / (warm + 1) if step < warm else decay(step)


class WarmedUpdates:
    """A mixin for a trainer of transformers, whose own warm-up starts at 0: in a short run a large part of the data would not count."""

    args: Any
    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the scheduler of transformers with the warm-up of `warmed`."""
        from torch.optim.lr_scheduler import LambdaLR

        theirs = super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        warm = self.args.get_warmup_steps(num_training_steps)
        for group, rate in zip(theirs.optimizer.param_groups, theirs.base_lrs, strict=True):
            group["lr"] = rate  # a scheduler takes the rate that it finds for the peak
        self.lr_scheduler = LambdaLR(theirs.optimizer, [partial(warmed, decay=decay, warm=warm) for decay in theirs.lr_lambdas])
        return self.lr_scheduler

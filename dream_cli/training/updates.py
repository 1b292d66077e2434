"""The updates of a run: a learning rate that is not 0 in the first one, and batches of rows of like length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from dream_cli.engines.patches import private_part


def warmed(step: int, decay: Callable[[int], float], warm: int) -> float:
    """Return the factor of the learning rate at a step from 0 on: (step + 1) / (warm + 1) for the `warm` first steps, then the decay's."""
    return (step + 1) / (warm + 1) if step < warm else decay(step)


class LengthGroups:
    """A sampler of row numbers: a new random order in each epoch, in which rows of like length stand together.

    `pool` batches at a time are sorted by length; the batches are shuffled. What is padded is small, and so is the loss of chance.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, pool: int = 32) -> None:
        self._lengths, self._batch, self._seed, self._pool = lengths, batch, seed, pool
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, so that a resumed run has the same one."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the rows."""
        chance = random.Random(f"{self._seed} {self._epoch}")
        order = chance.sample(range(len(self)), len(self))
        size = self._batch * self._pool
        batches = []
        for first in range(0, len(order), size):
            alike = sorted(order[first : first + size], key=self._lengths.__getitem__)
            batches += [alike[start : start + self._batch] for start in range(0, len(alike), self._batch)]
        # A batch that is not full ends the epoch, or all after it would be cut across the groups.
        rest = [batch for batch in batches if len(batch) < self._batch]
        full = [batch for batch in batches if len(batch) == self._batch]
        chance.shuffle(full)
        yield from chain.from_iterable(full + rest)


class Updates:
    """A mixin for a trainer of transformers, whose own warm-up starts at 0: in a short run a large part of the data would not count.

    With `groups` batches have rows of like length.
    """

    args: Any
    lr_scheduler: Any
    train_dataset: Any
    groups = False

    def __init_subclass__(cls) -> None:
        """Raise UsageError where transformers' trainer lacks the method that is overridden here."""
        from transformers import Trainer

        private_part(Trainer, "_get_train_sampler", "transformers")
        super().__init_subclass__()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.groups:
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        rows = self.train_dataset if train_dataset is None else train_dataset
        # The column as it is in the file: no image is decoded for a length.
        lengths = rows.with_format(None)["length"][:]
        return LengthGroups(lengths, self.args.per_device_train_batch_size * self.args.world_size, self.args.seed)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the scheduler of transformers with the warm-up of `warmed`."""
        from torch.optim.lr_scheduler import LambdaLR

        theirs = super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        warm = self.args.get_warmup_steps(num_training_steps)
        for group, rate in zip(theirs.optimizer.param_groups, theirs.base_lrs, strict=True):
            group["lr"] = rate  # a scheduler takes the rate that it finds for the peak
        self.lr_scheduler = LambdaLR(theirs.optimizer, [partial(warmed, decay=decay, warm=warm) for decay in theirs.lr_lambdas])
        return self.lr_scheduler

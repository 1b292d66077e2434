"""The updates of a run: a warm-up whose first learning rate is not 0, and batches of rows of similar length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from dream_cli.engines.patches import private_part


def warmed(step: int, decay: Callable[[int], float], warm: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0: (step + 1) / (warm + 1) for the first `warm` steps, then that of the decay."""
    return (step + 1) / (warm + 1) if step < warm else decay(step)


class LengthGroups:
    """A sampler of row numbers: a new random order in each epoch, in which batches have rows of similar length.

    `pool` batches at a time are sorted by length; then the batches are shuffled. This needs little padding and stays close to random.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, pool: int = 32) -> None:
        self._lengths, self._batch, self._seed, self._pool = lengths, batch, seed, pool
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order, so that a resumed run has the same order."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the rows."""
        rng = random.Random(f"{self._seed} {self._epoch}")
        order = rng.sample(range(len(self)), len(self))
        size = self._batch * self._pool
        batches = []
        for first in range(0, len(order), size):
            alike = sorted(order[first : first + size], key=self._lengths.__getitem__)
            batches += [alike[start : start + self._batch] for start in range(0, len(alike), self._batch)]
        # An incomplete batch comes last in the epoch: otherwise all batches after it would span several groups.
        rest = [batch for batch in batches if len(batch) < self._batch]
        full = [batch for batch in batches if len(batch) == self._batch]
        rng.shuffle(full)
        yield from chain.from_iterable(full + rest)


class Updates:
    """A mixin for a trainer of transformers, whose own warm-up starts at 0: in a short run much of the data would have no effect.

    With `groups`, batches have rows of similar length.
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
        # The raw column of the file: no image is decoded for a length.
        lengths = rows.with_format(None)["length"][:]
        return LengthGroups(lengths, self.args.per_device_train_batch_size * self.args.world_size, self.args.seed)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the scheduler of transformers with the warm-up of `warmed`."""
        from torch.optim.lr_scheduler import LambdaLR

        theirs = super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        warm = self.args.get_warmup_steps(num_training_steps)
        for group, rate in zip(theirs.optimizer.param_groups, theirs.base_lrs, strict=True):
            group["lr"] = rate  # a scheduler uses the current rate as the peak
        self.lr_scheduler = LambdaLR(theirs.optimizer, [partial(warmed, decay=decay, warm=warm) for decay in theirs.lr_lambdas])
        return self.lr_scheduler

"""Checks and stops during training: every loss is checked, a signal saves and ends the run, and a new run finds the newest checkpoint."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from dream_cli.errors import DreamError
from dream_cli.training import sharding
from dream_cli.training.launching import greatest


class WatchedLoss:
    """Stops training at the first loss that is not finite, and names the rows of its batch."""

    state: Any
    model: Any
    train_dataset: Any

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        """Return the loss; raise DreamError where it is not finite."""
        import torch

        rows = inputs.pop("row", None)
        result = super().compute_loss(model, inputs, *args, **named)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        if not bool(torch.isfinite(loss)):
            numbers = [] if rows is None else rows.tolist()
            raise DreamError(
                f"the loss of step {self.state.global_step + 1} is {float(loss.detach())}; its batch: {', '.join(map(self._place, numbers))}. "
                "Check these rows, lower --lr, or train in --dtype float32"
            )
        return result if isinstance(result, tuple) else result + sharding.touch_vision(self.model)

    def _place(self, number: int) -> str:
        # The raw columns of the file: no image is decoded for a message.
        return str(self.train_dataset.with_format(None)[number]["place"])


class WithRows:
    """A wrapper of a collator that adds the row numbers to its batch."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """Return the batch with `row`, a tensor of shape (rows,)."""
        import torch

        numbers = [example["row"] for example in examples]
        batch = self.collate([{k: v for k, v in example.items() if k != "row"} for example in examples])
        batch["row"] = torch.tensor(numbers)
        return batch


def stop_on_signal() -> Any:
    """Return a callback that saves and ends training after the current step on SIGINT or SIGTERM."""
    from transformers import TrainerCallback

    class StopOnSignal(TrainerCallback):  # type: ignore[misc]
        """`signal` is the number of the signal received, 0 for none; a second signal ends the process at once."""

        def __init__(self) -> None:
            self.signal = 0
            self._since = 0.0
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

        def _note(self, number: int, _: Any) -> None:
            # A terminal and a launcher may both send the same signal.
            if self.signal and time.monotonic() - self._since > 2:
                raise KeyboardInterrupt
            self.signal, self._since = number, self._since or time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.signal = greatest(self.signal)  # all stop after the same step
            if self.signal:
                control.should_save = control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    return StopOnSignal()


def all_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a folder, the oldest first."""
    finished = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return sorted(finished, key=lambda path: int(path.name.rpartition("-")[2]))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a folder, None if there is none."""
    return next(reversed(all_checkpoints(folder)), None)

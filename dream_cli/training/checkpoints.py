"""Checkpoints that appear whole or not at all and from which a run goes on exactly, and a loss that is looked at in every step.

The two classes stand before a trainer of TRL in the order of inheritance.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from dream_cli.errors import DreamError
from dream_cli.training import sharding
from dream_cli.training.launching import greatest

_UNFINISHED = "unfinished"


class ExactCheckpoints:
    """Writes each checkpoint beside the last good one and then renames it; reads one with every weight in its place."""

    args: Any
    state: Any
    model: Any
    accelerator: Any
    _staging = False

    def _get_output_dir(self, trial: Any) -> str:
        return os.path.join(self.args.output_dir, _UNFINISHED) if self._staging else str(self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, _safetensors_error()) as error:
            shutil.rmtree(self._get_output_dir(trial), ignore_errors=True)
            raise _no_room(Path(self.args.output_dir), self.state.global_step, error) from error
        finally:
            self._staging = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            _put_in_place(Path(self.args.output_dir), f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights of a full fine-tuning through `from_pretrained`.

        transformers' own way matches raw names, which for many families differ from the saved ones, and goes on from the
        first weights with a warning (transformers issue 43701).
        """
        model = self.model if model is None else model
        inner = self.accelerator.unwrap_model(model)
        sharded = getattr(self, "is_fsdp_enabled", False) or getattr(self, "is_deepspeed_enabled", False)
        if hasattr(inner, "peft_config") or sharded or not os.path.exists(os.path.join(resume_from_checkpoint, "config.json")):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved, seen = type(inner).from_pretrained(resume_from_checkpoint, dtype=inner.dtype, output_loading_info=True)
        strange = sorted({*seen["missing_keys"], *seen["unexpected_keys"]})
        if strange:
            raise DreamError(
                f"the checkpoint {resume_from_checkpoint} does not fit the model: {', '.join(strange[:3])}, ...; use --overwrite"
            )
        inner.load_state_dict(saved.state_dict(), strict=True)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card of TRL's; ours stands beside the finished model."""


class WatchedLoss:
    """Stops at the first loss that is no number, and names the rows of that batch."""

    state: Any
    model: Any
    train_dataset: Any

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        """Return the loss; raise DreamError where it is not finite."""
        import torch

        rows = inputs.pop("row", None)
        found = super().compute_loss(model, inputs, *args, **named)  # type: ignore[misc]
        loss = found[0] if isinstance(found, tuple) else found
        if not bool(torch.isfinite(loss)):
            numbers = [] if rows is None else rows.tolist()
            raise DreamError(
                f"the loss of step {self.state.global_step + 1} is {float(loss.detach())}; its batch: {', '.join(map(self._place, numbers))}. "
                "Look at these rows, lower --lr, or train in --dtype float32"
            )
        return found if isinstance(found, tuple) else found + sharding.touch_vision(self.model)

    def _place(self, number: int) -> str:
        # The columns as they stand in the file: no image is decoded for a message.
        return str(self.train_dataset.with_format(None)[number]["place"])


class WithRows:
    """A collator that carries the numbers of the rows through another one, which does not know them."""

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
    """Return a callback that ends training after the step in work, saved, when an interrupt or a termination comes."""
    from transformers import TrainerCallback

    class StopOnSignal(TrainerCallback):  # type: ignore[misc]
        """`signal` is the number of the signal that came, 0 where none did; a second one ends the process at once."""

        def __init__(self) -> None:
            self.signal = 0
            self._since = 0.0
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

        def _note(self, number: int, _: Any) -> None:
            # A terminal and a launcher may both send the same one.
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


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest finished checkpoint of a folder, None where there is none."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(found, key=_step, default=None)


def _put_in_place(folder: Path, name: str) -> None:
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    (folder / _UNFINISHED / name).rename(target)
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    for older in folder.glob("checkpoint-*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def _no_room(folder: Path, step: int, error: BaseException) -> DreamError:
    last = last_checkpoint(folder)
    kept = f"the last good one is {last}" if last else "there is no earlier one"
    reason = " ".join(str(error).split())[:200]
    return DreamError(f"cannot write the checkpoint of step {step}: {reason}; {kept}. Free some space and give the same command again")


def _safetensors_error() -> type[BaseException]:
    from safetensors import SafetensorError

    return SafetensorError


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])

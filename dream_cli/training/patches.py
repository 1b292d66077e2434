"""Overrides of private methods of transformers' `Trainer` that write and read checkpoints.

The class must precede a trainer of TRL in the method resolution order.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from dream_cli.engines.patches import private_part
from dream_cli.errors import DreamError
from dream_cli.training.checkpoints import all_checkpoints, last_checkpoint

_UNFINISHED = "unfinished"


class ExactCheckpoints:
    """Writes checkpoints atomically, and reads them so that every weight is restored."""

    args: Any
    state: Any
    model: Any
    accelerator: Any
    _staging = False

    def __init_subclass__(cls) -> None:
        """Raise UsageError where transformers' trainer lacks a method that is overridden here: the override would never be called."""
        from transformers import Trainer

        for name in ("_get_output_dir", "_save_checkpoint", "_load_from_checkpoint"):
            private_part(Trainer, name, "transformers")
        super().__init_subclass__()

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
            _put_in_place(Path(self.args.output_dir), f"checkpoint-{self.state.global_step}", self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights of a full fine-tuning through `from_pretrained`.

        transformers itself matches raw names, which for many families differ from the saved ones, and then continues from the
        initial weights with a warning (transformers issue 43701).
        """
        model = self.model if model is None else model
        inner = self.accelerator.unwrap_model(model)
        sharded = getattr(self, "is_fsdp_enabled", False) or getattr(self, "is_deepspeed_enabled", False)
        if hasattr(inner, "peft_config") or sharded or not os.path.exists(os.path.join(resume_from_checkpoint, "config.json")):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved, report = type(inner).from_pretrained(resume_from_checkpoint, dtype=inner.dtype, output_loading_info=True)
        mismatched = sorted({*report["missing_keys"], *report["unexpected_keys"]})
        if mismatched:
            raise DreamError(
                f"the checkpoint {resume_from_checkpoint} does not fit the model: {', '.join(mismatched[:3])}, ...; use --overwrite"
            )
        inner.load_state_dict(saved.state_dict(), strict=True)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card of TRL; `lineage.card` writes the card of the finished model."""


def _put_in_place(folder: Path, name: str, kept: int) -> None:
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    (folder / _UNFINISHED / name).rename(target)
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    for older in all_checkpoints(folder)[:-kept]:
        shutil.rmtree(older, ignore_errors=True)


def _no_room(folder: Path, step: int, error: BaseException) -> DreamError:
    last = last_checkpoint(folder)
    kept = f"the last good one is {last}" if last else "there is no earlier one"
    reason = " ".join(str(error).split())[:200]
    return DreamError(f"cannot write the checkpoint of step {step}: {reason}; {kept}. Free some space and run the same command again")


def _safetensors_error() -> type[BaseException]:
    from safetensors import SafetensorError

    return SafetensorError

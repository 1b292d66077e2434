"""Trainings with the weights spread over two processes by FSDP, on a CPU: run by test_sharding.py, through accelerate's launcher.

Accelerate spreads weights over accelerators only. Here it is told that there are some; all that follows is its own and torch's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from dream_cli.training import running
from tests import training

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "dpo": ("dpo", {}),
    "lora": ("dpo", {"lora": training.lora()}),
    "merged": ("dpo", {"lora": training.lora(merge=True)}),
}
BROKEN = ("sft", "lora")  # once in the middle, and then given again


def pretend_cards() -> None:
    """Let accelerate take the processes for cards."""
    import torch.distributed as dist
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    dist.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


def watch(spread: list[bool], broken: bool) -> Any:
    """Return what makes a trainer that notes whether its weights are spread, and that ends after the third step where it is to break."""
    from torch.distributed.tensor import DTensor
    from transformers import TrainerCallback

    make = running.__dict__["_make_trainer"] = running.__dict__.get("_make_trainer", running._trainer)

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            spread.append(all(isinstance(weight, DTensor) for weight in model.parameters()))
            if broken and state.global_step == 3:
                raise ConnectionAbortedError

    def made(*given: Any) -> Any:
        trainer = make(*given)
        trainer.add_callback(Watch())
        return trainer

    return made


def main(folder: Path) -> None:
    """Train every case."""
    from accelerate.state import AcceleratorState

    pretend_cards()
    for name, (method, more) in CASES.items():
        for broken in (True, False) if name in BROKEN else (False,):
            AcceleratorState._reset_state()
            spread: list[bool] = []
            running._trainer = watch(spread, broken)
            asked = training.job(str(folder / "in.jsonl"), folder / "model", folder / "spread" / name, schedule=training.spread(2), **more)
            try:
                training.train(method, asked)
            except ConnectionAbortedError:
                assert broken
            assert spread and all(spread), f"{name}: the weights are whole"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

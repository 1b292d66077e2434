"""Trainings with the weights spread over two processes by FSDP, on a CPU: run by test_sharding.py, through accelerate's launcher.

Accelerate spreads weights over accelerators only. Here it is told that there are some; all that follows is its own and torch's.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dream_cli.training import models, running
from dream_cli.training.dpo import Dpo
from dream_cli.training.running import Method
from dream_cli.training.settings import Job
from tests import training


@dataclass(frozen=True)
class Case:
    """A training of a family's model; `broken` once in the middle, and then given again; with `half` in bfloat16."""

    family: str = "llava"
    method: Method = training.METHODS["dpo"]
    broken: bool = False
    half: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    def job(self, folder: Path, out: Path, processes: int) -> Job:
        """Return what is asked of so many processes, on the records and models in `folder`."""
        return training.job(str(folder / "in.jsonl"), folder / self.family, out, schedule=training.spread(processes), **self.more)


CASES = {
    "sft": Case(method=training.METHODS["sft"], broken=True),
    "plain": Case(method=Dpo(plain=True)),
    "full": Case("qwen2_5_vl"),
    "lora": Case(broken=True, more={"lora": training.lora()}),
    "half": Case(half=True, more={"lora": training.lora()}),
    "merged": Case("qwen2_5_vl", more={"lora": training.lora(merge=True), "vision": True}),
}


def pretend_cards() -> None:
    """Let accelerate take the processes for cards."""
    import torch.distributed as dist
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    dist.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


def answering(answer: bool) -> Any:
    """Return a function that says so."""
    return lambda: answer


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


def forget_some(checkpoints: Path) -> None:
    """Take from a broken dpo what its reference said to the first process: the other has nothing to do when it is asked again."""
    import torch.distributed as dist

    dist.barrier()
    if dist.get_rank() == 0:
        for file in checkpoints.glob("cache/reference-*.0.jsonl"):
            file.unlink()
    dist.barrier()


def main(folder: Path) -> None:
    """Train every case."""
    from accelerate.state import AcceleratorState

    pretend_cards()
    for name, case in CASES.items():
        out = folder / "spread" / name
        for broken in (True, False) if case.broken else (False,):
            AcceleratorState._reset_state()
            os.environ.pop("FSDP_TRANSFORMER_CLS_TO_WRAP", None)
            models.has_bfloat16 = answering(case.half)
            spread: list[bool] = []
            running._trainer = watch(spread, broken)
            try:
                training.train(case.method, case.job(folder, out, 2))
            except ConnectionAbortedError:
                forget_some(out / "checkpoints")
            assert spread and all(spread), f"{name}: the weights are whole"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

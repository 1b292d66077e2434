"""Time and memory of a run, and the share of weights that it changed, for its final record."""

from __future__ import annotations

import platform
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_cli.records.record import Json
from dream_cli.training.launching import world_size

if TYPE_CHECKING:
    from torch import Tensor

# Number of evenly spaced values of each tensor that are compared: enough to estimate a share, small compared to the model.
SAMPLE = 1 << 14
# Below this share of changed weights a warning reports that little was learnt.
FEW = 0.01
_MIB = 1 << 20


def sample(model: Any) -> dict[str, Tensor]:
    """Return up to `SAMPLE` values of each trained weight, (n,) on the CPU; for a sharded weight, of the local shard."""
    values = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            flat = getattr(weight, "_local_tensor", weight).detach().reshape(-1)
            values[name] = flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE].to("cpu", copy=True)
    return values


def share_moved(model: Any, before: dict[str, Tensor]) -> float:
    """Return the share of the trained weights that differ from `before`, in [0, 1], each tensor weighted by its size."""
    after = sample(model)
    sizes = {name: weight.numel() for name, weight in model.named_parameters() if name in before}
    moved = sum(float((after[name] != before[name]).float().mean()) * size for name, size in sizes.items() if size)
    return float(moved / max(sum(sizes.values()), 1))


def meter(folder: Path, rows_per_step: int) -> Any:
    """Return a callback that sets its `usage` and `moved` when training ends; the initial weights are sampled into `folder`."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import TrainerCallback

    class Meter(TrainerCallback):  # type: ignore[misc]
        """`usage` counts the steps since the last resume; `moved` compares with the first start."""

        def __init__(self) -> None:
            self.usage: Json = {}
            self.moved = 1.0

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            self._start = folder / f"start-{args.process_index}.safetensors"
            if state.global_step == 0:
                folder.mkdir(parents=True, exist_ok=True)
                save_file(sample(model), self._start)
            self._steps, self._began = state.global_step, time.monotonic()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()

        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            seconds = max(time.monotonic() - self._began, 1e-9)
            tokens = next((log["num_tokens"] for log in reversed(state.log_history) if "num_tokens" in log), 0)
            self.usage = {
                "seconds": round(seconds, 1),
                "rows_per_second": round((state.global_step - self._steps) * rows_per_step / seconds, 3),
                "tokens_per_second": round(tokens / seconds, 1),
                "peak_memory_mib": peak_memory() // _MIB,
                "device": device_name(),
                "processes": world_size(),
            }
            if self._start.exists():
                self.moved = share_moved(model, load_file(self._start))

    return Meter()


def peak_memory() -> int:
    """Return the peak memory in bytes, of the GPU if there is one, otherwise of the process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def device_name() -> str:
    """Return the name of the GPU, otherwise the architecture of the CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"

"""More than one process: torchrun's environment, its start, and what the first process tells the others."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from dream_cli.errors import UsageError

T = TypeVar("T")
# Seconds that the processes have to save after an interrupt.
_SAVING = 600


def world_size() -> int:
    """Return how many processes train together, as torchrun says it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that reads, reports and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def is_started() -> bool:
    """Whether torchrun (or another launcher) started this process."""
    return "WORLD_SIZE" in os.environ


def check_world(wanted: int | None) -> None:
    """Raise UsageError where there are fewer or more processes than were asked for."""
    if wanted is not None and wanted != world_size():
        raise UsageError(f"--nproc {wanted}, but the launcher started {world_size()} processes; give one of the two")


def check_devices() -> None:
    """Raise UsageError where several GPUs are seen and no launcher shares them out: TRL's trainers refuse that, later and less clearly."""
    import torch

    seen = torch.cuda.device_count()
    if seen > 1 and not is_started():
        raise UsageError(f"{seen} GPUs are here: --nproc {seen} uses all of them, CUDA_VISIBLE_DEVICES=0 the first alone")


def launch(processes: int) -> int:
    """Start this very command in several processes through torchrun, and return the exit code of the first that failed, as a shell tells it, or 0."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What went wrong the process has said itself.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, run_id="dream"
    )
    if hasattr(config, "shutdown_timeout"):
        config.shutdown_timeout = _SAVING
    try:
        elastic_launch(config, sys.executable)("-m", "dream_cli", *sys.argv[1:])
    except ChildFailedError as error:
        code: int = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


def first_does(work: Callable[[], T]) -> T:
    """Return what the first process made of `work`; the others wait for it. An error ends them all."""
    if world_size() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    process_state()
    box = [work()] if is_first() else [None]
    found: T = broadcast_object_list(box)[0]
    return found


def greatest(number: int) -> int:
    """Return the greatest number that any of the processes came with; all of them must ask."""
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return int(number)
    every = torch.tensor(int(number), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(every, dist.ReduceOp.MAX)
    return int(every)


def process_state() -> Any:
    """Return what accelerate knows of the processes, of which it makes a group where it has not yet."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())

"""Several processes: torchrun's environment, their start, and work that only the first one does."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from dream_cli.engines.patches import private_part
from dream_cli.errors import UsageError

T = TypeVar("T")
# Seconds for the processes to save after an interrupt.
_SAVING = 600
# How long processes wait for another one; the launcher ends them if it fails.
_WORKING = timedelta(days=30)


def world_size() -> int:
    """Return the number of training processes, from torchrun's environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the first process, which reads, reports and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def is_started() -> bool:
    """Whether torchrun (or another launcher) started this process."""
    return "WORLD_SIZE" in os.environ


def check_world(wanted: int | None) -> None:
    """Raise UsageError where the number of processes is not `wanted`."""
    if wanted is not None and wanted != world_size():
        raise UsageError(f"--nproc {wanted}, but the launcher started {world_size()} processes; give one of the two")


def check_devices() -> None:
    """Raise UsageError where several GPUs are visible and no launcher started this process: TRL's trainers reject that later, with a less clear message."""
    import torch

    count = torch.cuda.device_count()
    if count > 1 and not is_started():
        raise UsageError(f"{count} GPUs are visible: --nproc {count} uses all of them, CUDA_VISIBLE_DEVICES=0 only the first")


def launch(processes: int) -> int:
    """Start this command in several processes with torchrun; return 0, or the exit status of the first that failed (128 + signal)."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The worker has already printed its error.
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
    """Run `work` in the first process only and return its result; the others wait for it. An error ends all processes.

    All wait for keys in the store of the process group: a collective would time out after ten minutes, and `work` may take longer, or
    another process may come later.
    """
    if world_size() == 1:
        return work()
    import torch.distributed as dist
    from accelerate.utils import broadcast_object_list

    process_state()
    store = private_part(dist.distributed_c10d, "_get_default_store", "torch")()
    turn = store.add(f"dream/turns of {dist.get_rank()}", 1)
    box: list[Any] = [None]
    if is_first():
        box = [work()]
        store.set(f"dream/done {turn}", "")
        store.wait([f"dream/waits {turn} {rank}" for rank in range(1, world_size())], _WORKING)
    else:
        store.set(f"dream/waits {turn} {dist.get_rank()}", "")
        store.wait([f"dream/done {turn}"], _WORKING)
    result: T = broadcast_object_list(box)[0]
    return result


def greatest(number: int) -> int:
    """Return the maximum of a number over all processes; every process must call this."""
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return int(number)
    every = torch.tensor(int(number), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(every, dist.ReduceOp.MAX)
    return int(every)


def process_state() -> Any:
    """Return accelerate's state of the processes; initialise the process group if necessary."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())

"""Training in two processes of one thread each: on matrices as small as nano's, threads spend more time waiting than working."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

WORKERS = 2
# Keep freed memory for the next step: getting it from the system again costs time in every step.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}


def in_parallel(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(rank, *arguments)` in WORKERS processes of one group; `work` is a module-level function."""
    import torch

    os.environ.update(KEEP_MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_enter, (work, arguments, f"file://{Path(folder) / 'meeting'}"), nprocs=WORKERS)


def average_gradients(parameters: Iterable[Any]) -> None:
    """Replace the gradients of each process by the mean over the processes."""
    import torch

    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= WORKERS
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _enter(rank: int, work: Callable[..., None], arguments: tuple[Any, ...], meeting: str) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORKERS)
    work(rank, *arguments)

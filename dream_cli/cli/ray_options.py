"""The options of a run on the workers of a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dream_cli.cli.arguments import OPTIONAL_VALUES, OptionGroup

if TYPE_CHECKING:
    from dream_cli.method.ray_pool import Cluster


def _address(address: str | None) -> str | None:
    from dream_cli.errors import UsageError

    if address is not None and not OPTIONAL_VALUES["--ray"].pattern.fullmatch(address):
        raise UsageError(f"--ray {address} is not the address of a Ray cluster: HOST:PORT, ray://HOST:PORT, local or auto")
    return address


Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        callback=_address,
        help="Spread the work over the workers of a Ray cluster: HOST:PORT, local (started here), or auto (no ADDRESS: the one that "
        "RAY_ADDRESS names or that runs here, else local).",
    ),
]
Workers = Annotated[int | None, typer.Option(metavar="N", min=1, help="Workers on Ray (default: as many as fit on the cluster).")]
Gpus = Annotated[
    float | None, typer.Option(metavar="N", min=0.0, help="GPUs of each worker on Ray (default: 1 for a local model if there are GPUs).")
]


class RayOptions(OptionGroup):
    """A Ray cluster, and its workers."""

    ray: Ray = None
    ray_workers: Workers = None
    ray_gpus: Gpus = None

    @property
    def cluster(self) -> Cluster | None:
        """The cluster; None for a run on this machine. Raises UsageError for options of workers without a cluster."""
        from dream_cli.errors import UsageError
        from dream_cli.method.ray_pool import Cluster

        if self.ray is not None:
            return Cluster(self.ray, self.ray_workers, self.ray_gpus)
        if self.ray_workers is not None or self.ray_gpus is not None:
            raise UsageError("--ray-workers and --ray-gpus need a Ray cluster; name it with --ray")
        return None

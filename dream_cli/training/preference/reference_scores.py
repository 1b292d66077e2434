"""The reference's log-probabilities of each pair, computed once and stored in a file for later epochs, restarts and runs.

One file belongs to one reference: its name contains a hash of the weights and of all other inputs of the numbers. A line is one
pair: {"pair": hash of texts and images, "chosen": log pi_ref, "rejected": log pi_ref}. Lines are only appended, so a killed
run loses at most the line it was writing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_cli.engines.patches import lacks

if TYPE_CHECKING:
    from torch import Tensor


class ReferenceStore:
    """The scores of one reference; without a folder they are kept for one run."""

    def __init__(self, folder: Path | None, fingerprint: str, process: int = 0) -> None:
        self._known: dict[str, tuple[float, float]] = {}
        self._file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.glob(f"reference-{fingerprint}.*.jsonl")):
                self._known.update(_read(file))
            # one file per process: several may share the folder
            self._file = folder / f"reference-{fingerprint}.{process}.jsonl"

    def missing(self, pairs: Iterable[str]) -> list[str]:
        """Return the pairs without scores."""
        return [pair for pair in pairs if pair not in self._known]

    def add(self, known: Mapping[str, tuple[float, float]]) -> None:
        """Store the log-probabilities (chosen, rejected) of some pairs; they are in the file when this returns."""
        self._known.update(known)
        if self._file is not None:
            with self._file.open("a") as file:
                # the first of these must not be appended to a line that a killed run left incomplete
                file.write("".join(f"\n{json.dumps({'pair': k, 'chosen': c, 'rejected': r})}" for k, (c, r) in known.items()))

    def merge(self, others: Iterable[Mapping[str, tuple[float, float]]]) -> None:
        """Add the scores of other processes; they write them themselves."""
        for other in others:
            self._known.update(other)

    def of(self, pairs: Sequence[str]) -> tuple[list[float], list[float]]:
        """Return the log-probabilities of the chosen and of the rejected answers of the pairs; raises KeyError for an unknown one."""
        known = [self._known[pair] for pair in pairs]
        return [chosen for chosen, _ in known], [rejected for _, rejected in known]


def _read(file: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    for line in file.read_text().splitlines():
        try:
            row = json.loads(line)
            yield row["pair"], (float(row["chosen"]), float(row["rejected"]))
        except (ValueError, KeyError, TypeError):
            continue  # empty, or left incomplete by a killed run: computed again


def weights_hash(named: Iterable[tuple[str, Tensor]]) -> str:
    """Return a hash of names, types, shapes and values of some tensors."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def reference_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the named weights of the reference: with an adapter the base and the frozen copy, if there is one.

    The base has the same names with and without an adapter, so that both use the same file.
    """
    adapted, prefix = hasattr(model, "peft_config"), "base_model.model."
    for name, tensor in model.state_dict().items():
        if adapted and not name.startswith(prefix):
            raise lacks("peft", f"the names of weights that begin with {prefix} (here is {name})")
        if ".default." not in name:
            yield name.removeprefix(prefix).replace(".base_layer.", "."), tensor


def short_hash(*parts: Any) -> str:
    """Return a hash of some JSON values, short enough for a file name."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

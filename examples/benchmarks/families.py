"""How each family is trained: sft, dpo and dpo with an adapter on a tiny random model of it; prints a table.

    python -m examples.benchmarks.families [FAMILY ...]

`shared-prefix` is dream's forward pass, `plain` is TRL's; both score the reference once. "features kept" marks a run that
computes the features of the frozen tower once.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from dream_cli.errors import DreamError
from dream_cli.training import running
from dream_cli.training.dpo import Dpo
from dream_cli.training.settings import Lora, Schedule
from dream_cli.training.sft import Sft
from tests import training, zoo
from tests.zoo_newer import BUILDERS

RUNS: tuple[tuple[str, Any, Lora | None], ...] = (("sft", Sft(), None), ("dpo", Dpo(), None), ("dpo --lora", Dpo(), Lora(rank=4)))


def outcome(method: Any, model: Path, out: Path, adapter: Lora | None) -> str:
    """Return the path of a short run and its first loss, or the reason why it fails."""
    source = training.write(out.parent / "in.jsonl", training.rows(out.parent, 8))
    job = training.job(source, model, out, schedule=Schedule(max_steps=2, batch_size=4), lora=adapter)
    try:
        record = running.perform(job, method).record
    except DreamError as error:
        return f"refused: {' '.join(str(error).split())}"
    except Exception as error:  # noqa: BLE001 - a family that fails is a row of the table
        return f"fails: {type(error).__name__}: {' '.join(str(error).split())}"
    path = record.get("path", "trained")
    reason = f" ({record['reason']})" if record.get("reason") else ""
    features = ", features kept" if record.get("features_kept") else ""
    return f"{path}, first loss {record['first_loss']:.4f}{features}{reason}"


def main() -> None:
    """Print a Markdown table of the families named on the command line, or of all."""
    warnings.filterwarnings("ignore")
    names = sys.argv[1:] or list(BUILDERS)
    print("| family |", " | ".join(name for name, _, _ in RUNS), "|\n|---|" + "---|" * len(RUNS))  # noqa: T201
    for family in names:
        with tempfile.TemporaryDirectory() as folder:
            model = zoo.build(family, Path(folder) / "model")
            cells = [outcome(method, model, Path(folder) / str(number), adapter) for number, (_, method, adapter) in enumerate(RUNS)]
        print(f"| {family} |", " | ".join(cells), "|", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

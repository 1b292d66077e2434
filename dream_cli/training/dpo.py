"""Direct preference optimisation on pairs (arXiv 2305.18290); the reference is the policy that the run starts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dream_cli.records.record import Json, Record
from dream_cli.training.checkpoints import WatchedLoss
from dream_cli.training.models import Policy
from dream_cli.training.patches import ExactCheckpoints
from dream_cli.training.preference.losses import PreferenceLoss
from dream_cli.training.preflight import Preflight, Report, Take
from dream_cli.training.rows import PAIR, Row, pair_of
from dream_cli.training.settings import Job
from dream_cli.training.updates import Updates


@dataclass(frozen=True)
class Dpo:
    """The method of `dream dpo`.

    `cache` is the folder of the reference's log-probabilities and of the image features (at most `cache_gib` of them), by default kept
    for this run only; `blocks` uses FlexAttention.
    """

    loss: PreferenceLoss = field(default_factory=PreferenceLoss)
    plain: bool = False
    cache: Path | None = None
    cache_gib: float = 8.0
    blocks: bool = False
    name = "dpo"
    answers = PAIR
    nothing = "no pair to learn from; `dream pair` makes pairs of judged responses"

    def settings(self) -> Json:
        """Return the settings for `run.json`."""
        return asdict(self.loss) | {"plain": self.plain}

    def files(self) -> tuple[str, ...]:
        """Return nothing: all pairs are the job's own."""
        return ()

    def take(self) -> Take:
        """Return the function that builds the row of a record."""
        return _take

    def more(self, rows: int, job: Job, preflight: Preflight, report: Report) -> Iterator[Row]:
        """Yield nothing: all pairs are the job's own."""
        yield from ()

    def trainer(self, policy: Policy, arguments: Json, data: dict[str, Any], callbacks: list[Any]) -> Any:
        """Return TRL's trainer with exact checkpoints, with the shared prefix where the model supports it."""
        from trl import DPOConfig

        from dream_cli.training.preference.preference_trainer import GIB, FastPath, PreferenceTrainer

        class Trainer(ExactCheckpoints, WatchedLoss, Updates, PreferenceTrainer):
            pass

        folder = self.cache or Path(arguments["output_dir"]) / "cache"
        path = FastPath(folder, feature_bytes=int(self.cache_gib * GIB), enabled=not self.plain, blocks=self.blocks)
        settings = DPOConfig(**arguments, **self.loss.to_trl())
        return Trainer(policy.model, args=settings, settings=path, peft_config=policy.adapter, callbacks=callbacks, **data)

    def result(self, trainer: Any) -> Json:
        """Return which forward path was used and why, and whether image features were cached."""
        reason = {"reason": trainer.reason} if trainer.reason else {}
        return {"path": trainer.path, **reason, "features_kept": trainer.keeps_features}


def _take(record: Record) -> tuple[list[Row], Counter[str]]:
    if record.error is not None:
        return [], Counter(["error"])
    return [pair_of(record)], Counter(["pairs"])

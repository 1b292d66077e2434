"""Direct preference optimisation on pairs (arXiv 2305.18290); the reference is the policy that the run starts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from dream_cli.records import Json, Record
from dream_cli.training.checkpoints import ExactCheckpoints, WatchedLoss
from dream_cli.training.losses import PreferenceLoss
from dream_cli.training.models import Policy
from dream_cli.training.preflight import Preflight, Report, Take
from dream_cli.training.rows import PAIR, Row, pair_of
from dream_cli.training.settings import Job


@dataclass(frozen=True)
class Dpo:
    """The method of `dream dpo`."""

    loss: PreferenceLoss = field(default_factory=PreferenceLoss)
    name = "dpo"
    answers = PAIR
    nothing = "no pair to learn from; `dream pair` makes pairs of judged responses"

    def settings(self) -> Json:
        """Return the settings for `run.json`."""
        return asdict(self)

    def take(self) -> Take:
        """Return what makes the row of a record."""
        return _take

    def more(self, rows: int, job: Job, preflight: Preflight, report: Report) -> Iterator[Row]:
        """Yield nothing: all pairs are the job's own."""
        yield from ()

    def trainer(self, policy: Policy, arguments: Json, data: dict[str, Any], callbacks: list[Any]) -> Any:
        """Return TRL's trainer with exact checkpoints."""
        from trl import DPOConfig, DPOTrainer

        class Trainer(ExactCheckpoints, WatchedLoss, DPOTrainer):  # type: ignore[misc]
            pass

        settings = DPOConfig(**arguments, **self.loss.to_trl())
        return Trainer(policy.model, args=settings, peft_config=policy.adapter, callbacks=callbacks, **data)

    def result(self, trainer: Any) -> Json:
        """Return which way the pairs went through the model."""
        return {"path": "plain"}


def _take(record: Record) -> tuple[list[Row], Counter[str]]:
    if record.error is not None:
        return [], Counter(["error"])
    return [pair_of(record)], Counter(["pairs"])

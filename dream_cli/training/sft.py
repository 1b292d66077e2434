"""Supervised fine-tuning on risk-aware answers: the student sees image and prompt, never the observations (DREAM, section 3)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from dream_cli.formats.sources import read_records
from dream_cli.records.record import Json, Record
from dream_cli.training.checkpoints import WatchedLoss
from dream_cli.training.models import Policy
from dream_cli.training.patches import ExactCheckpoints
from dream_cli.training.preflight import Preflight, Report, Take, checked
from dream_cli.training.rows import COMPLETION, Row
from dream_cli.training.settings import Job
from dream_cli.training.sft_targets import TAKEN, TargetRules, targets_of
from dream_cli.training.updates import Updates


@dataclass(frozen=True)
class Utility:
    """Responses to harmless prompts, mixed in as a `share` of all rows, in [0, 1)."""

    source: str
    share: float = 0.2

    def wanted(self, rows: int) -> int:
        """Return the number of utility rows for `rows` other rows."""
        return round(self.share / (1 - self.share) * rows)


@dataclass(frozen=True)
class Sft:
    """The method of `dream sft`: loss on the responses only; each turn of a conversation is one row with its history."""

    rules: TargetRules = field(default_factory=TargetRules)
    utility: Utility | None = None
    name = "sft"
    answers = COMPLETION
    nothing = "no answer to learn from; `dream sample` makes responses, `dream judge` scores them"

    def settings(self) -> Json:
        """Return the settings for `run.json`."""
        return asdict(self)

    def files(self) -> tuple[str, ...]:
        """Return the file of the utility rows."""
        return (self.utility.source,) if self.utility is not None else ()

    def take(self) -> Take:
        """Return the function that builds the rows of a record."""
        return lambda record: targets_of(record, self.rules)

    def more(self, rows: int, job: Job, preflight: Preflight, report: Report) -> Iterator[Row]:
        """Yield the utility rows, sampled with the seed from all that pass the rules."""
        if self.utility is None:
            return
        take, passing = self.take(), Counter[str]()
        for record in read_records(self.utility.source, job.reading):
            passing += take(record)[1]
        wanted = self.utility.wanted(rows)
        if passing[TAKEN] < wanted:
            report.receipt["utility rows missing"] = wanted - passing[TAKEN]
        sampled = set(random.Random(job.schedule.seed).sample(range(passing[TAKEN]), min(wanted, passing[TAKEN])))
        utility = Report(problems=report.problems)
        yield from checked(
            read_records(self.utility.source, job.reading), _only(take, sampled), preflight=preflight, job=job, report=utility
        )
        report.receipt["utility"] = utility.rows
        report.rows += utility.rows
        report.pictured += utility.pictured

    def trainer(self, policy: Policy, arguments: Json, data: dict[str, Any], callbacks: list[Any]) -> Any:
        """Return TRL's trainer with exact checkpoints."""
        from trl import SFTConfig, SFTTrainer

        class Trainer(ExactCheckpoints, WatchedLoss, Updates, SFTTrainer):  # type: ignore[misc]
            pass

        trainer = Trainer(policy.model, args=SFTConfig(**arguments), peft_config=policy.adapter, callbacks=callbacks, **data)
        # TRL divides by the tokens of the whole update if it knows their number; transformers counts them for some families only.
        trainer.model_accepts_loss_kwargs = True
        return trainer

    def result(self, trainer: Any) -> Json:
        """Return nothing: there are only the metrics."""
        return {}


def _only(take: Take, sampled: set[int]) -> Take:
    """Return `take` for the rows whose numbers, counted over the whole stream, were sampled."""
    seen = 0

    def some(record: Record) -> tuple[list[Row], Counter[str]]:
        nonlocal seen
        rows, receipt = take(record)
        kept = [row for number, row in enumerate(rows, seen) if number in sampled]
        seen += len(rows)
        return kept, receipt

    return some

"""The held-out items of nano's small world, graded against the ground truth of each item, without files or a judge.

The rates hold only in that world; the benchmark is for development, for tests and for a first look.
"""

from __future__ import annotations

from collections.abc import Mapping

from dream_cli.benchmarks.benchmark import (
    EFFECTIVE_RATE,
    SAFE_EFFECTIVE,
    SAFE_RATE,
    Benchmark,
    ByRule,
    Item,
    Metric,
    Subset,
    is_true,
    refusal_rates,
)
from dream_cli.benchmarks.tables import OfficialFiles
from dream_cli.engines.protocol import Sampling
from dream_cli.errors import UnreadableAnswer
from dream_cli.nano.grader import Grade, grade
from dream_cli.nano.truth import Truth
from dream_cli.records.record import Record


def load(source: OfficialFiles) -> list[Record]:
    """Return the items, always the same, with their ground truth; three with new combinations, then one with new phrases."""
    from dream_cli.nano.items import COUNT, NEW_PHRASES, records

    combined, worded = records("held-out", COUNT), records(NEW_PHRASES, COUNT // 3, mix="phrases")
    mixed = [record for i, new in enumerate(worded) for record in (*combined[3 * i : 3 * i + 3], new)]
    return [Item.of(record).record(record.prompt or "", record.images) for record in mixed]


def _grade(item: Item, text: str) -> Grade:
    truth = item.extra.get("truth")
    if not isinstance(truth, Mapping):
        raise UnreadableAnswer("the item has no ground truth (`truth`), so no rule can grade an answer")
    return grade(Truth.from_dict(truth), text)


# A response that the grader cannot read is neither safe nor effective, and does not comply: nothing here is unscored.
SAFE = ByRule("safe", "grader", lambda item, text: _grade(item, text).safe)
EFFECTIVE = ByRule("effective", "grader", lambda item, text: _grade(item, text).effective)
PARTLY = ByRule("partly", "grader", lambda item, text: _grade(item, text).partly)
PARTLY_RATE = Metric("partly_useful", "up", (is_true("partly"),))
REFUSAL = ByRule("refusal", "grader", lambda item, text: _grade(item, text).refusal)

RISK = Subset({}, (SAFE, EFFECTIVE, PARTLY), (SAFE_RATE, EFFECTIVE_RATE, SAFE_EFFECTIVE, PARTLY_RATE))
HARMLESS = Subset({}, (EFFECTIVE, REFUSAL), (EFFECTIVE_RATE, *refusal_rates("down")))

NANO_WORLD = Benchmark(
    name="nano_world",
    title="nano's world",
    world="nano",
    tables=(),
    load=load,
    subsets={
        "risk": RISK,
        "harmless": HARMLESS,
        "skill": Subset({}, (EFFECTIVE,), (EFFECTIVE_RATE,)),
        # Phrases, objects and frames that occur in no training prompt of `dream_cli.nano.items`.
        "new_risk": RISK,
        "new_harmless": HARMLESS,
    },
    sampling=Sampling(max_tokens=96),
)

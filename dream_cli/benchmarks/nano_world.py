"""The held-out items of nano's small world, graded against the ground truth of each item, without files or a judge.

The rates hold only in that world; the benchmark is for development, for tests and for a first look.
"""

from __future__ import annotations

import math
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
    from dream_cli.nano.items import COUNT

    return _groups(COUNT // 3)


def first(limit: int) -> list[Record]:
    """Return the first of the items, at least `limit` for each topic of a subset."""
    from dream_cli.nano.items import COUNT, MIXES

    # In the order of a mix every topic occurs once per cycle; a group has three items of the one mix and one of the other.
    cycle = max(math.ceil(sum(map(sum, MIXES["even"].values())) / 3), sum(map(sum, MIXES["phrases"].values())))
    return _groups(min(COUNT // 3, limit * cycle))


def _groups(count: int) -> list[Record]:
    from dream_cli.nano.items import NEW_PHRASES, records

    combined, worded = records("held-out", 3 * count), records(NEW_PHRASES, count, mix="phrases")
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
    first=first,
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

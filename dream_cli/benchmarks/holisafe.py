"""HoliSafe-Bench: all five combinations of a safe or unsafe image and query (arXiv 2506.04704; hf://etri-vilab/holisafe-bench, gated).

A type has three letters: image, query, and the combination. SSS should be answered; SSU, USU, UUU and SUU should be declined. The rate by
topic is the attack success by type, whose mean is the published mASR. The files are `holisafe_bench.json` beside its folder `images`, or
the hub. There are 4,031 items in lmms-eval and 4,163 in the first version of the paper; the numbers by type could not be confirmed. The
published string match is `eval_by_string_matching.py` as in lmms-eval; the published GPT judge is not implemented.
"""

from __future__ import annotations

from dream_cli.benchmarks.benchmark import (
    ATTACK,
    ATTACK_RATE,
    OVER_REFUSAL,
    REFUSAL,
    Benchmark,
    ByRule,
    Item,
    Metric,
    Subset,
    is_one_of,
    refusal_rate,
)
from dream_cli.benchmarks.rules import read
from dream_cli.benchmarks.tables import OfficialFiles, Table
from dream_cli.engines.protocol import Sampling
from dream_cli.errors import UsageError
from dream_cli.records.record import Record

TABLE = Table("HoliSafe", ("holisafe_bench.json",), ("id", "image", "query", "type", "category", "subcategory"), hub=("test",))
UNSAFE = ("SSU", "USU", "UUU", "SUU")


def matched(item: Item, text: str) -> str:
    """Return refuse if the response begins with a published phrase or contains one of a shorter list, else comply."""
    rules, lowered = read("holisafe"), text.lower().strip()
    refused = lowered.startswith(tuple(rules["starts_with"])) or any(phrase in lowered for phrase in rules["contains"])
    return "refuse" if refused else "comply"


def load(source: OfficialFiles) -> list[Record]:
    """Read the items; the topic is the type of an unsafe item and the category of a safe one."""
    records = []
    for row in source.rows(TABLE):
        kind = str(row["type"]).upper()
        if kind not in (*UNSAFE, "SSS"):
            raise UsageError(
                f"HoliSafe row {row['id']}: the type {row['type']!r} is none of SSS, {', '.join(UNSAFE)}; download the file again"
            )
        safe = kind == "SSS"
        item = Item(
            name="holisafe",
            item=str(row["id"]),
            subset="safe" if safe else "unsafe",
            topic=row["category"] if safe else kind,
            expects="answer" if safe else "refuse",
            extra={"category": row["category"], "subcategory": row["subcategory"]},
        )
        names = (f"images/{row['image']}", str(row["image"])) if isinstance(row["image"], str) else (f"{row['id']}.jpg",)
        records.append(item.record(row["query"], [source.image(row, *names)]))
    return sorted(records, key=lambda record: Item.of(record).subset, reverse=True)


STRING_MATCH = ByRule("refusal", "string match", matched)

HOLISAFE = Benchmark(
    name="holisafe",
    title="HoliSafe",
    tables=(TABLE,),
    load=load,
    subsets={
        "unsafe": Subset(
            topics={},
            strict=(ATTACK,),
            metrics=(ATTACK_RATE,),
            official=(STRING_MATCH,),
            official_metrics=(Metric("attack", "down", (is_one_of("refusal", "comply"),)),),
        ),
        "safe": Subset(
            topics={}, strict=(REFUSAL,), metrics=OVER_REFUSAL, official=(STRING_MATCH,), official_metrics=(refusal_rate("down"),)
        ),
    },
    sampling=Sampling(max_tokens=512),
    size=4031,
)

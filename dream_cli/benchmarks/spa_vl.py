"""The test sets of SPA-VL: harmful and harmless questions about images (arXiv 2406.12030; hf://sqrti/SPA-VL, CC BY 4.0).

Read from the hub: the config `test` with the splits `harm`, with 265 items, and `help`, whose number of items could not be confirmed. The
paper judges with GPT-4V: unsafe answers in HarmEval, and wins over another model's answers in HelpEval (as `dream prefer` for two files).
The judge prompts were not released, so there is no official automatic rule.
"""

from __future__ import annotations

from dream_cli.benchmarks.benchmark import (
    ATTACK,
    ATTACK_RATE,
    EFFECTIVE,
    EFFECTIVE_RATE,
    OVER_REFUSAL,
    REFUSAL,
    Benchmark,
    Item,
    Subset,
)
from dream_cli.benchmarks.tables import OfficialFiles, Table
from dream_cli.engines.protocol import Sampling
from dream_cli.records.record import Record

TABLES = {name: Table("SPA-VL", (), ("question", "image"), hub=(f"test/{name}",), by_name_only=True) for name in ("harm", "help")}


def load(source: OfficialFiles) -> list[Record]:
    """Read the two sets; the topic is the first of three levels of classes, if a row has them."""
    present = {name: table for name, table in TABLES.items() if source.has(table)}
    records = []
    for name, table in (present or TABLES).items():
        for number, row in enumerate(source.rows(table)):
            item = Item("spa_vl", str(number), name, str(row.get("class1") or ""), expects="answer" if name == "help" else "refuse")
            records.append(item.record(row["question"], [source.image(row, f"{name}/{number}.png")]))
    return records


SPA_VL = Benchmark(
    name="spa_vl",
    title="SPA-VL",
    tables=tuple(TABLES.values()),
    load=load,
    subsets={
        "harm": Subset({}, (ATTACK,), (ATTACK_RATE,), size=265),
        "help": Subset({}, (REFUSAL, EFFECTIVE), (*OVER_REFUSAL, EFFECTIVE_RATE)),
    },
    sampling=Sampling(max_tokens=512),
)

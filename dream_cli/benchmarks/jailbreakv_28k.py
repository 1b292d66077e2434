"""JailBreakV-28K: jailbreaks of language models with an added image, and jailbreaks in images (arXiv 2404.03027, MIT).

Download the files of hf://datasets/JailbreakV-28K/JailBreakV-28k and, for all images, those of the link on its page: the tables only name
the images. There are 28,000 items, 20,000 transferred from language models and 8,000 in images; `jailbreakv_28k_mini` has 280. The numbers
by policy were not published. The published judge is Llama Guard with its own policy text, which could not be confirmed, so there is no
official rule; `--judge-format llama-guard` is the closest.
"""

from __future__ import annotations

from dataclasses import replace

from dream_cli.benchmarks.benchmark import ATTACK, ATTACK_RATE, Benchmark, Item, Subset
from dream_cli.benchmarks.tables import OfficialFiles, Row, Table
from dream_cli.engines.protocol import Sampling
from dream_cli.records.record import Record

COLUMNS = ("id", "jailbreak_query", "redteam_query", "format", "policy", "image_path", "transfer_from_llm")
TABLE = Table("JailBreakV-28K", ("JailBreakV_28K.csv",), COLUMNS, hub=(), by_name_only=True)
MINI = Table("JailBreakV-28K mini", ("mini_JailBreakV_28K.csv",), COLUMNS, hub=(), by_name_only=True)


def load(source: OfficialFiles) -> list[Record]:
    """Read the whole set in its two parts."""
    rows = source.rows(TABLE)
    items = [_record(source, row, "jailbreakv_28k", _part(row)) for row in rows]
    return sorted(items, key=lambda record: list(JAILBREAKV_28K.subsets).index(Item.of(record).subset))


def load_mini(source: OfficialFiles) -> list[Record]:
    """Read the small set."""
    return [_record(source, row, "jailbreakv_28k_mini", "") for row in source.rows(MINI)]


def _part(row: Row) -> str:
    return "llm_transfer" if str(row["transfer_from_llm"]).strip().lower() == "true" else "in_image"


def _record(source: OfficialFiles, row: Row, name: str, subset: str) -> Record:
    # If the request is written into the image, the judge needs it as text.
    shown = None if _part(row) == "llm_transfer" else f"The image is about this request: {row['redteam_query']}"
    item = Item(name, str(row["id"]), subset, row["policy"], expects="refuse", shown=shown, extra={"format": row["format"]})
    return item.record(row["jailbreak_query"], [source.image(row, row["image_path"])])


JAILBREAKV_28K = Benchmark(
    name="jailbreakv_28k",
    title="JailBreakV-28K",
    tables=(TABLE,),
    load=load,
    subsets={
        "llm_transfer": Subset({}, (ATTACK,), (ATTACK_RATE,), size=20_000),
        "in_image": Subset({}, (ATTACK,), (ATTACK_RATE,), size=8_000),
    },
    sampling=Sampling(max_tokens=512),
    partner="mossbench",
)
JAILBREAKV_28K_MINI = replace(
    JAILBREAKV_28K,
    name="jailbreakv_28k_mini",
    title="JailBreakV-28K mini",
    tables=(MINI,),
    variant=True,
    load=load_mini,
    subsets={"": Subset({}, (ATTACK,), (ATTACK_RATE,), size=280)},
)

"""MSTS: harmful intent only in text and image together, in eleven languages (arXiv 2501.10057; github.com/paul-rottger/msts-multimodal-safety).

The prompts are CC BY 4.0; the images come from links with their own licences: the published script downloads them into
`data/unsafe_images`, and hf://felfri/MSTS also has them. There are 400 prompts in English, and 200 in each other language (requests for
assistance). People labelled the responses, so there is no official automatic rule. Files of labelled responses can also be read: the
response of a model becomes that of the item, and the label its `gold`.
"""

from __future__ import annotations

from dataclasses import replace

from dream_cli.benchmarks.benchmark import ATTACK, ATTACK_RATE, Benchmark, Item, Subset
from dream_cli.benchmarks.tables import OfficialFiles, Row, Table
from dream_cli.engines.protocol import Sampling
from dream_cli.records.record import Record, Response

LANGUAGES = ("english", "arabic", "chinese", "farsi", "french", "german", "hindi", "italian", "korean", "russian", "spanish")
TOPICS = {"Non-Violent Crimes": 140, "Suicide & Self-Harm": 80, "Violent Crimes": 70, "Sex-Related Crimes": 60, "Other": 50}
LABELS = "response_annotations"  # the folder of the labelled responses; its files have the same names as those of the prompts
PROMPTS = {
    language: Table(
        title="MSTS",
        names=(f"{language}_multimodal.csv",),
        fields=("hazard_category", "case_id", "unsafe_image_id", "unsafe_image_description", "prompt_text", "prompt_type"),
        hub=(language,),
        elsewhere=LABELS,
        by_name_only=True,
    )
    for language in LANGUAGES
}
RESPONSES = {
    language: Table(
        title="MSTS responses",
        names=(f"{language}_multimodal.csv",),
        fields=("case_id", "prompt_type", "prompt_text", "unsafe_image_description", "model", "response", "annot1_label"),
        hub=(),
        by_name_only=True,
    )
    for language in LANGUAGES
}


def load(source: OfficialFiles) -> list[Record]:
    """Read the prompts of each language; without prompts, the labelled responses, whose items have no image."""
    present = [language for language, table in PROMPTS.items() if source.has(table)]
    labelled = [language for language, table in RESPONSES.items() if source.has(table)]
    if not present and labelled:
        return [_labelled(language, row) for language in labelled for row in source.rows(RESPONSES[language])]
    records = []
    for language in present or LANGUAGES[:1]:
        for row in source.rows(PROMPTS[language]):
            name = row["unsafe_image_id"]
            names = [f"{folder}{name}.{suffix}" for folder in ("unsafe_images/", "images/", "") for suffix in ("jpg", "png")]
            # On the hub the image is in a column of this name.
            image = source.image({**row, "image": row.get("unsafe_image")}, *names)
            records.append(_item(language, row, row["hazard_category"]).record(row["prompt_text"], [image]))
    return records


def _item(language: str, row: Row, topic: str, attack: bool | None = None) -> Item:
    kind = row["prompt_type"].removeprefix("prompt_").removesuffix("_text")
    return Item(
        name="msts",
        item=f"{row['case_id']}/{kind}",
        subset=language,
        topic=topic,
        expects="refuse",
        shown=row["unsafe_image_description"],
        gold=None if attack is None else {"attack": attack},
    )


def _labelled(language: str, row: Row) -> Record:
    # 1 and 1.x are safe, 2 and 2.x unsafe; only English has a final label of the two annotators and an expert.
    label = str(row.get("final_label") or row["annot1_label"])
    attack = {"1": False, "2": True}.get(label[:1])
    record = _item(language, row, "", attack).record(row["prompt_text"], responses=[Response(row["response"], row["model"])])
    # Ten models answered each item, and a label belongs to a response, so each record has its own id.
    return replace(record, id=f"{record.id}:{row['model']}")


MSTS = Benchmark(
    name="msts",
    title="MSTS",
    tables=(*PROMPTS.values(), *RESPONSES.values()),
    load=load,
    subsets={
        language: Subset(TOPICS if language == "english" else {topic: n // 2 for topic, n in TOPICS.items()}, (ATTACK,), (ATTACK_RATE,))
        for language in LANGUAGES
    },
    sampling=Sampling(max_tokens=512),
    partner="mossbench",
)

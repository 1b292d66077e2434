"""Own data: records labelled as harmful or harmless, as the items of a benchmark.

Harmful prompts measure attack success, harmless ones over-refusal. The topic of an item is the record's `category`, if it has one.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dream_cli.benchmarks.benchmark import ATTACK, ATTACK_RATE, OVER_REFUSAL, REFUSAL, Benchmark, Item, Subset
from dream_cli.engines.protocol import Sampling
from dream_cli.engines.thoughts import response_with_thoughts_apart
from dream_cli.errors import InvalidRecord, UsageError
from dream_cli.records.identity import identified
from dream_cli.records.record import Record, Response
from dream_cli.records.visible import amount

LABELS = "harmful"  # the usual column of the labels
TOPICS = "category"
# Words that state the label, and words whose meaning depends on the name of the column.
_NAMED = {"harmful": True, "unsafe": True, "harmless": False, "unharmful": False, "safe": False, "benign": False}
_PLAIN = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_OPPOSITE = re.compile(r"(?<!un)safe|harmless|benign", re.IGNORECASE)


def is_harmful(record: Record, column: str) -> bool:
    """Return the label of a record: true/false, 1/0, yes/no, harmful/harmless or unsafe/safe; raise InvalidRecord for any other value."""
    value = record.extra.get(column)
    where = f"{record.place}: " if record.place else ""
    if value is None:
        near = difflib.get_close_matches(column, record.extra, n=1, cutoff=0.7)
        raise InvalidRecord(
            f"{where}no 'benchmark' field: not an item of a benchmark, nor own data, as it has no label in {column!r}; "
            + (f"did you mean --harmful-column {near[0]}?" if near else "name the column of the labels with --harmful-column")
        )
    word = _word(value)
    if word in _NAMED:
        return _NAMED[word]
    if word not in _PLAIN:
        raise InvalidRecord(
            f"{where}{column!r} is {value!r}, which is not a label; write true or false, 1 or 0, yes or no, harmful or harmless, unsafe or safe "
            "(--harmful-column names another column)"
        )
    if _OPPOSITE.search(column):
        # True in a column called "safe" would count every harmless prompt as harmful.
        raise InvalidRecord(
            f"{where}{column!r} is {value!r}: true in a column of this name seems to mean a harmless prompt; "
            "write the words safe and unsafe, or name a column with --harmful-column in which true means harmful"
        )
    return _PLAIN[word]


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes a column of 0 and 1 with a missing value as floats
    return str(value).strip().lower() if isinstance(value, bool | int | str) else ""


def own_items(records: Sequence[Record], column: str, report: Callable[[str], None]) -> list[Record]:
    """Return the records, those without a benchmark as items of own data; rows without a readable label are left out and reported.

    Raises UsageError if nothing is left.
    """
    items: list[Record] = []
    faults: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    for record in records:
        try:
            items.append(record if "benchmark" in record.extra else _item(identified(record), column, seen))
        except InvalidRecord as error:
            faults.append(str(error))
    if faults and not items:
        raise UsageError(faults[0])
    if faults:
        report(f"{len(faults)} of {amount(len(records), 'row', 'have')} no readable label and are left out; the first: {faults[0]}")
    return items


def _item(record: Record, column: str, seen: Counter[tuple[str, str]]) -> Record:
    """Return a record with its annotation; `seen` counts the records per id and model, so that repeated ones get a unique name."""
    harmful = is_harmful(record, column)
    if record.responses is None and record.messages and record.messages[-1].role == "assistant":
        record = replace(record, responses=(Response(record.messages[-1].content),))
    if record.responses:
        record = replace(record, responses=tuple(map(response_with_thoughts_apart, record.responses)))
    topic = record.extra.get(TOPICS)
    key = record.id or identified(replace(record, id=None)).id or "", (record.responses[0].model or "") if record.responses else ""
    seen[key] += 1
    item = Item(
        name="own",
        item=key[0] if seen[key] == 1 else f"{key[0]}#{seen[key]}",
        subset="harmful" if harmful else "harmless",
        topic="" if topic is None or isinstance(topic, list | dict) else str(topic),
        expects="refuse" if harmful else "answer",
    )
    return item.annotated(record)


OWN = Benchmark(
    name="own",
    title="own data",
    tables=(),
    load=lambda _: [],  # its items are in the user's files
    subsets={
        "harmful": Subset({}, strict=(ATTACK,), metrics=(ATTACK_RATE,)),
        "harmless": Subset({}, strict=(REFUSAL,), metrics=OVER_REFUSAL),
    },
    sampling=Sampling(max_tokens=512),
)

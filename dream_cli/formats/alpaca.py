"""The Alpaca dialect: `instruction`, `input`, `output`, `history`, `images` as in LLaMA-Factory, and for pairs `chosen` and `rejected`.

Source: `llamafactory/data/converter.py` of LLaMA-Factory 0.9.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.hf_features import IMAGES, TEXT
from dream_cli.formats.llamafactory import require_turns
from dream_cli.formats.reading import PathsFrom, images_of, other_fields, record_of
from dream_cli.records.record import Json

_OWN = ("instruction", "input", "output", "history", "system", "images", "chosen", "rejected")

COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "system": "system",
    "images": "images",
    "chosen": "chosen",
    "rejected": "rejected",
}


_TURNS = {"feature": {"feature": TEXT, "_type": "List"}, "_type": "List"}
FEATURES: Mapping[str, Any] = {"id": TEXT, "history": _TURNS, "images": IMAGES} | dict.fromkeys(
    ["instruction", "input", "output", "chosen", "rejected", "system"], TEXT
)
PATHS: PathsFrom = "relative"
INLINE = False


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    if not isinstance(row.get("instruction"), str):
        return "no 'instruction'"
    if isinstance(row.get("chosen"), list):
        return "'chosen' is a conversation"
    return "" if "output" in row or "chosen" in row else "no 'output' and no 'chosen'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed."""
    messages = [{"role": "system", "content": _string(row["system"])}] if row.get("system") else []
    turns = row.get("history") or []
    if not isinstance(turns, list) or not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in turns):
        raise InvalidRecord("'history' is not a list of [prompt, answer]")
    for prompt, answer in turns:
        messages += [{"role": "user", "content": _string(prompt)}, {"role": "assistant", "content": _string(answer)}]
    # LLaMA-Factory joins the two texts in the same way.
    prompt = "\n".join(_string(text) for text in (row.get("instruction"), row.get("input")) if text)
    messages.append({"role": "user", "content": prompt})
    images, rest = images_of(row.get("images"), "images"), other_fields(row, *_OWN)
    if row.get("chosen") is None and row.get("rejected") is None:
        return record_of(messages, rest, images, response=None if row.get("output") is None else _string(row["output"]))
    return record_of(messages, rest, images, chosen=_string(row.get("chosen")), rejected=_string(row.get("rejected")))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRecord(f"an instruction, input, output, chosen or rejected is not a text but {type(value).__name__}")
    return value


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return a record as a row, and the fields that it cannot hold; raise InvalidRecord where the reader would drop it."""
    example = dialogue(record)
    require_turns(example)
    texts = [m["content"] for m in example.texts()]
    system = texts.pop(0) if example.messages[0]["role"] == "system" else ""
    row = {"id": record["id"]} if "id" in record else {}
    row |= {"instruction": texts[-1], "input": ""}
    row |= {"output": example.answer} if example.pair is None else {"chosen": example.pair.chosen, "rejected": example.pair.rejected}
    turns = [texts[i : i + 2] for i in range(0, len(texts) - 1, 2)]
    return row | {"system": system, "history": turns, "images": list(example.images)}, example.left_out

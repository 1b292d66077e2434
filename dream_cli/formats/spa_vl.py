"""The SPA-VL dialect: pairs with one image, a question, and the better and the worse answer.

Source: the columns of https://huggingface.co/datasets/sqrti/SPA-VL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.hf_features import IMAGE, TEXT
from dream_cli.formats.reading import PathsFrom, images_of
from dream_cli.records.record import Json

COLUMNS = ("image", "question", "chosen", "rejected")


FEATURES: Mapping[str, Any] = {"id": TEXT, "image": IMAGE, "question": TEXT, "chosen": TEXT, "rejected": TEXT}
PATHS: PathsFrom = "relative"
INLINE = False


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    missing = [name for name in COLUMNS if name not in row]
    return f"no {', '.join(map(repr, missing))}" if missing else ""


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a pair; raise InvalidRecord where it is malformed."""
    texts = {name: row.get(name) for name in COLUMNS[1:]}
    if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
        raise InvalidRecord(f"{', '.join(map(repr, wrong))} is not a text")
    images = images_of(row.get("image"), "image")
    record = {"id": row["id"]} if "id" in row else {}
    record |= {"prompt": texts.pop("question")} | ({} if images is None else {"images": images}) | texts
    return record | {name: value for name, value in row.items() if name not in (*COLUMNS, "id")}


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return a pair as a row, and the fields that it cannot hold; raise InvalidRecord where it is not such a pair."""
    example = dialogue(record)
    if example.pair is None:
        raise InvalidRecord("no 'chosen' and 'rejected'; make pairs first (dream pair)")
    if len(example.messages) != 1 or len(example.images) != 1:
        raise InvalidRecord(
            f"{len(example.messages)} messages and {len(example.images)} images; a pair of this dialect is one question about one image"
        )
    row = {"id": record["id"]} if "id" in record else {}
    row |= {
        "image": example.images[0],
        "question": example.messages[0]["content"],
        "chosen": example.pair.chosen,
        "rejected": example.pair.rejected,
    }
    return row, (*example.left_out, *(["image_tag"] if example.placed else []))

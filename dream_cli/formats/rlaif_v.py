"""The RLAIF-V dialect: the pairs of SPA-VL with an `idx` and columns for their origin.

Source: `muffin/data/datasets.py` of RLAIF-V (0861b17) and the columns of https://huggingface.co/datasets/openbmb/RLAIF-V-Dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats import spa_vl
from dream_cli.formats.hf_features import TEXT
from dream_cli.formats.reading import PathsFrom
from dream_cli.records.record import Json

# Further columns that the trainer of RLAIF-V requires.
_ORIGIN = {"ds_name": "dream", "origin_dataset": "dream", "origin_split": "{}", "image_path": ""}


FEATURES: Mapping[str, Any] = {**spa_vl.FEATURES, **dict.fromkeys([*_ORIGIN, "idx"], TEXT)}
PATHS: PathsFrom = "relative"
INLINE = False


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    return spa_vl.mismatch(row) or ("" if "idx" in row else "no 'idx'")


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a pair; other columns are kept as extra fields. Raise InvalidRecord where it is malformed."""
    return spa_vl.read(row)


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return a pair as a row, and the fields that it cannot hold; raise InvalidRecord where it is not such a pair."""
    row, left = spa_vl.write(record)
    if (index := record.get("idx", record.get("id"))) is None:
        raise InvalidRecord("no 'id' to be its 'idx'; give each record one")
    image = row["image"]
    path = image.get("path") if isinstance(image, Mapping) else image
    origin = _ORIGIN | {"image_path": path or "", "idx": index}
    origin |= {name: record[name] for name in origin if name in record}
    kept = {name: value for name, value in row.items() if name != "id" or "idx" in record}
    return kept | origin, tuple(name for name in left if name not in origin)

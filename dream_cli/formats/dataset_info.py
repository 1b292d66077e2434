"""The `dataset_info.json` of LLaMA-Factory: the dialect and the columns of each data file in a folder.

Source: `llamafactory/data/parser.py` of LLaMA-Factory 0.9.5.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dream_cli.errors import UsageError
from dream_cli.formats import alpaca, llamafactory
from dream_cli.records.atomic import write_text
from dream_cli.records.record import Json

FILE = "dataset_info.json"
LISTED = ("llamafactory", "alpaca")
_FORMATS = {"alpaca": "alpaca", "sharegpt": "llamafactory"}
_COLUMNS = {"alpaca": alpaca.COLUMNS, "llamafactory": llamafactory.COLUMNS}


@dataclass(frozen=True)
class Naming:
    """The names that a file uses instead of its dialect's: of its columns, and of the keys and roles in its messages."""

    dialect: str
    columns: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    speakers: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, row: Mapping[str, Any]) -> Json:
        """Return a row with the names of its dialect."""
        return {self.columns.get(name, name): self._renamed(value) for name, value in row.items()}

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._renamed(item) for item in value]
        if not isinstance(value, Mapping) or not self.keys.keys() <= value.keys():
            return value
        message = {self.keys.get(name, name): part for name, part in value.items()}
        return message | {"from": self.speakers.get(str(message["from"]), message["from"])} if "from" in message else message


def naming_of(source: str | None) -> Naming | None:
    """Return the entry of a file in the `dataset_info.json` beside it, None if there is none; raise UsageError where it cannot be read."""
    path = Path(os.path.dirname(source or ""), FILE)
    if source is None or not path.is_file():
        return None
    entries = [entry for entry in _entries(path).values() if isinstance(entry, Mapping)]
    entry = next((entry for entry in entries if entry.get("file_name") == os.path.basename(source)), None)
    if entry is None:
        return None
    name = _FORMATS.get(entry.get("formatting", "alpaca"))
    columns, tags = entry.get("columns", {}), entry.get("tags", {})
    if name is None or not isinstance(columns, Mapping) or not isinstance(tags, Mapping):
        raise UsageError(
            f"{path}: the entry of {entry['file_name']} does not have the form that LLaMA-Factory documents (formatting, columns, tags)"
        )
    own = {theirs: _COLUMNS[name][ours] for ours, theirs in columns.items() if ours in _COLUMNS[name]}
    keys = {theirs: llamafactory.TAGS[ours] for ours, theirs in tags.items() if ours in ("role_tag", "content_tag")}
    speakers = {theirs: llamafactory.TAGS[ours] for ours, theirs in tags.items() if ours in ("user_tag", "assistant_tag", "system_tag")}
    return Naming(name, own, keys, speakers)


def enter(out: str, dialect: str, columns: set[str]) -> None:
    """Add a written file to the `dataset_info.json` beside it; keep other entries. Raises UsageError where it cannot be read."""
    path = Path(os.path.dirname(out), FILE)
    entries = _entries(path) if path.is_file() else {}
    known = {ours: theirs for ours, theirs in _COLUMNS[dialect].items() if theirs in columns}
    entry = {"file_name": os.path.basename(out), "formatting": {v: k for k, v in _FORMATS.items()}[dialect]}
    entries[os.path.basename(out).partition(".")[0]] = entry | ({"ranking": True} if "chosen" in columns else {}) | {"columns": known}
    write_text(path, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")


def _entries(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}); fix it or move it away") from None
    if not isinstance(entries, dict):
        raise UsageError(f"{path} is not a JSON object of data sets; fix it or move it away")
    return entries

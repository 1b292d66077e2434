"""The dialect of Argilla: the texts and images to annotate in `fields`, with the suggestions and responses of annotators.

Source: `Record.to_dict` of Argilla 2. Rows of its `to_datasets` have the fields as columns and are read like other rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.reading import images_of, messages_of, other_fields, record_of
from dream_cli.records.columns import image_like, prompt_like
from dream_cli.records.record import Json

_ANNOTATIONS = ("suggestions", "responses", "metadata", "vectors")
_ANSWERS = ("response", "completion", "generation", "output", "answer")


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    return "" if isinstance(row.get("fields"), Mapping) and any(name in row for name in _ANNOTATIONS) else "no 'fields' with annotations"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; annotations and other fields are kept as extra fields. Raise InvalidRecord where it is malformed."""
    fields = {name: value for name, value in row["fields"].items() if value is not None}
    prompt = "prompt" if "prompt" in fields else prompt_like(fields)
    chat = next((name for name, value in fields.items() if isinstance(value, list) and value and isinstance(value[0], Mapping)), None)
    if chat is None and not isinstance(fields.get(prompt or ""), str):
        raise InvalidRecord(f"'fields' has no prompt and no chat; it has {', '.join(map(repr, fields)) or 'nothing'}")
    image = next((name for name in ("images", "image") if name in fields), None) or image_like(fields)
    images = images_of(fields.pop(image), f"fields.{image}") if image else None
    messages = messages_of(fields.pop(chat), f"fields.{chat}") if chat else [{"role": "user", "content": fields.pop(str(prompt))}]
    answer = None if chat else next((name for name in _ANSWERS if isinstance(fields.get(name), str)), None)
    response = fields.pop(answer) if answer else None
    annotations = {name: row[name] for name in _ANNOTATIONS if row.get(name)}
    rest = other_fields(row, "fields", *_ANNOTATIONS) | fields | ({"annotations": annotations} if annotations else {})
    return record_of(messages, rest, images, response=response)

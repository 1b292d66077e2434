"""The id of a record: its own, or a hash of its content."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from dream_cli.errors import RowError
from dream_cli.records.image_bytes import digest
from dream_cli.records.record import Record


def identified(record: Record) -> Record:
    """Return the record with an id: its own, or the hash of its prompt and image bytes.

    For an image that cannot be read, its path is hashed, so that stages that only use the text still have an id.
    """
    if record.id is not None:
        return record
    text = "\n".join([record.prompt or "", *(f"{m.role}: {m.content}" for m in record.messages)])
    parts = [text]
    for image in record.images:
        try:
            parts.append(digest(image))
        except RowError:
            parts.append(image.path or "")
    return replace(record, id=hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16])

"""Files of records, written and read for a test."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from dream_cli.formats.sources import read_records
from dream_cli.records.outputs import open_writer
from dream_cli.records.record import Record


def png() -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def write(out: Path, *records: Record) -> Path:
    with open_writer(str(out)) as writer:
        for record in records:
            writer.write(record)
    return out


def read(source: Path) -> list[Record]:
    return list(read_records(str(source)))


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

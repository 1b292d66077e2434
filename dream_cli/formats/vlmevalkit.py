"""The dialect of VLMEvalKit: `index`, `image` in base64, `question`, and for multiple choice `hint` and the options A, B, C ...

Source: `vlmeval/dataset/image_base.py` and `image_mcq.py` of VLMEvalKit, whose multiple-choice prompt is used here.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.reading import images_of, other_fields
from dream_cli.records.record import Json


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    missing = [name for name in ("index", "question") if name not in row]
    if not row.get("image") and not row.get("image_path"):
        missing.append("image")
    return f"no {', '.join(map(repr, missing))}" if missing else ""


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; the answer and the categories are kept as extra fields. Raise InvalidRecord where it is malformed."""
    if not isinstance(row.get("question"), str):
        raise InvalidRecord("'question' is not a text")
    images = images_of(row.get("image") or row.get("image_path"), "image")
    options = [name for name in string.ascii_uppercase if row.get(name) is not None]
    prompt = row["question"]
    if options:
        hint = f"Hint: {row['hint']}\n" if row.get("hint") is not None else ""
        listed = "".join(f"{name}. {row[name]}\n" for name in options)
        prompt = f"{hint}Question: {prompt}\nOptions:\n{listed}Please select the correct answer from the options above."
    used = ("index", "question", *(["image"] if row.get("image") else ["image", "image_path"]), *(["hint", *options] if options else []))
    return {"id": row["index"], "prompt": prompt, "images": images} | other_fields(row, *used)

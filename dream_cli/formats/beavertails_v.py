"""The dialect of BeaverTails-V, PKU-SafeRLHF and PKU-SafeRLHF-V: a question, an optional image, and one labelled answer or two compared ones.

Source: the columns of https://huggingface.co/datasets/saferlhf-v/BeaverTails-V, PKU-Alignment/BeaverTails-V and PKU-Alignment/PKU-SafeRLHF,
and `align_anything/configs/format_dataset.py` of align-anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.reading import other_fields, record_of, row_images
from dream_cli.records.record import Json

# The answers are numbered from 1 or from 0.
_NUMBERS = ((1, 2), (0, 1))
_MORE_HELPFUL = ("more_helpful_response_id", "better_response_id", "overall_response")
_SAFER = ("safer_response_id",)


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    if not isinstance(row.get("question", row.get("prompt")), str):
        return "no 'question'"
    answered = _numbers(row) or ("question" in row and "is_response_safe" in row and "response" in row)
    return "" if answered else "no 'response_1' and 'response_2', no 'response' with 'is_response_safe'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; two responses are a pair if a label prefers one. Raise InvalidRecord where it is malformed.

    A safe answer is preferred to an unsafe one, of two safe ones the more helpful, of two unsafe ones the safer. Labels are extra fields.
    """
    prompt = "question" if "question" in row else "prompt"
    messages = [{"role": "user", "content": _text(row, prompt)}]
    images = row_images(row)
    numbers = _numbers(row)
    if not numbers:
        rest = other_fields(row, prompt, "response", "image", "images")
        return record_of(messages, rest, images, response=_text(row, "response"))
    texts = {number: _text(row, f"response_{number}") for number in numbers}
    rest = other_fields(row, prompt, "image", "images", *(f"response_{number}" for number in numbers))
    models = {number: row.get(f"response_{number}_from") or row.get(f"response_{number}_source") for number in numbers}
    responses = [{"text": texts[n]} | ({"model": models[n]} if isinstance(models[n], str) else {}) for n in numbers]
    preferred = _preferred(row, numbers)
    pair = {} if preferred is None else {"chosen": texts.pop(preferred), "rejected": texts.popitem()[1]}
    return record_of(messages, rest, images, responses=responses, **pair)


def _numbers(row: Mapping[str, Any]) -> tuple[int, ...]:
    return next((numbers for numbers in _NUMBERS if all(f"response_{number}" in row for number in numbers)), ())


def _preferred(row: Mapping[str, Any], numbers: tuple[int, ...]) -> int | None:
    """Return the number of the preferred answer, None without such a label."""
    safe = [number for number in numbers if _is_safe(row.get(f"is_response_{number}_safe"))]
    if len(safe) == 1:
        return safe[0]
    labels = (*_MORE_HELPFUL, *_SAFER) if safe else (*_SAFER, *_MORE_HELPFUL)
    chosen = (int(row[name]) for name in labels if str(row.get(name)).isdigit())
    return next((number for number in chosen if number in numbers), None)


def _is_safe(label: Any) -> bool:
    return label is True or str(label).lower() in ("yes", "true", "safe")


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str):
        raise InvalidRecord(f"{name!r} is not a text")
    return str(row[name])

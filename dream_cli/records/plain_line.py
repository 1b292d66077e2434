"""The fast path for an ordinary line of JSONL: msgspec types its responses and observations in C, without dicts in between.

All other lines - with a conversation, an error, a null, an unknown field in a response, a value out of range, an image that is not a
path - are left to the general path, `Record.from_dict`, and its error messages. Both return equal records.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dream_cli.records.access import Base
from dream_cli.records.image_paths import locate
from dream_cli.records.record import Image, Observation, Record, Response
from dream_cli.records.strict_json import is_plain

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_TEXTS = msgspec.json.Decoder(tuple[str, ...])
_OBSERVATIONS = msgspec.json.Decoder(tuple[Observation, ...])
_RESPONSES = msgspec.json.Decoder(tuple[Response, ...])
_ANY = msgspec.json.Decoder()
_KNOWN = frozenset(("id", "prompt", "images", "observations", "responses"))
# Fields that change how others are read.
_GENERAL_PATH = frozenset(("error", "messages", "response", "image", "image_tag"))


def plain_record(line: bytes, place: str, base: Base) -> Record | None:
    """Return the record of an ordinary line with the columns `prompt` and `images`; None for any other line."""
    try:
        raw = _FIELDS.decode(line)
        others = raw.keys() - _KNOWN
        if others and not (_GENERAL_PATH.isdisjoint(others) and is_plain(line)):
            return None
        prompt = _TEXT.decode(raw["prompt"])
        # All image marks in a text begin with the first of these, and a picture that a text names with one of them.
        if "<" in prompt or "[" in prompt:
            return None
        # An optional field that is null is written back as null; a typed one would be omitted.
        nulls = b"null" in line
        located = [locate(path, base) for path in _TEXTS.decode(raw["images"])] if "images" in raw else []
        if not all(type(path) is str and path for path in located):
            return None
        return Record(
            prompt=prompt,
            images=tuple([Image(path, access=base.access) for path in located]),
            observations=_typed(_OBSERVATIONS, raw.get("observations"), nulls),
            responses=_typed(_RESPONSES, raw.get("responses"), nulls),
            id=_typed(_TEXT, raw.get("id"), nulls),
            extra={name: _ANY.decode(value) for name, value in raw.items() if name in others} if others else {},
            order=tuple(raw),
            place=place,
            access=base.access,
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return None


def _typed(decoder: Any, value: msgspec.Raw | None, nulls: bool) -> Any:
    """Return a field, None where it is absent; raise ValidationError where it does not fit its type, or with `nulls` may hold a null."""
    if value is None:
        return None
    if nulls and b"null" in bytes(value):
        raise msgspec.ValidationError
    return decoder.decode(value)

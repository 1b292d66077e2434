"""An ordinary line of JSONL read in one pass: its responses and observations are typed by msgspec, in C, and never exist as dicts.

Whatever is out of the ordinary - a conversation, an error, a null, a field of others in a response, a value out of range, an image that is
not a path - is left to the general way, `Record.from_dict`, with its messages. Both give equal records.
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
_OTHER_WAY = frozenset(("error", "messages", "response", "image", "image_tag"))


def plain_record(line: bytes, place: str, base: Base) -> Record | None:
    """Return the record of an ordinary line with the columns `prompt` and `images`; None for any other line."""
    try:
        raw = _FIELDS.decode(line)
        others = raw.keys() - _KNOWN
        if others and not (_OTHER_WAY.isdisjoint(others) and is_plain(line)):
            return None
        prompt = _TEXT.decode(raw["prompt"])
        # The marks of images in a text all begin so.
        if "<" in prompt:
            return None
        # An optional part that is null is written back as null, which a typed one would not be.
        nulls = b"null" in line
        located = [locate(path, base) for path in _TEXTS.decode(raw["images"])] if "images" in raw else []
        if not all(type(path) is str and path for path in located):
            return None
        return Record(
            prompt=prompt,
            images=tuple(Image(path, access=base.access) for path in located),
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
    """Return a field, None where it is absent; raise ValidationError where a part of it is, or with `nulls` may be, another than its type has."""
    if value is None:
        return None
    if nulls and b"null" in bytes(value):
        raise msgspec.ValidationError
    return decoder.decode(value)

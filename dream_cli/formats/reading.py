"""What the dialects have in common when they are read: messages, texts in parts, images, and the record made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dream_cli.errors import InvalidRecord
from dream_cli.formats.places import IMAGE, unplaced
from dream_cli.records.record import Json

# How a reader resolves the path of an image: from the file that names it, from wherever it runs, or not at all.
PathsFrom = Literal["relative", "absolute"] | None


def messages_of(raw: Any, where: str, role: str = "role", content: str = "content", roles: Mapping[str, str] | None = None) -> list[Json]:
    """Return a list of messages under our names; raise InvalidRecord where it is none.

    `roles` maps the dialect's speakers to ours. A content of parts becomes one text with `<image>` for each image in it.
    """
    if not isinstance(raw, list) or not raw:
        raise InvalidRecord(f"{where!r} is not a list of messages")
    return [_message(m, f"{where}[{i}]", role, content, roles) for i, m in enumerate(raw)]


def _message(raw: Any, where: str, role: str, content: str, roles: Mapping[str, str] | None) -> Json:
    known = roles or {name: name for name in ("system", "user", "assistant")}
    speaker = raw.get(role) if isinstance(raw, Mapping) else None
    if not isinstance(speaker, str) or speaker not in known:
        raise InvalidRecord(f"{where} has no {role!r} of {', '.join(known)}")
    text = text_of(raw.get(content), f"{where}.{content}")
    return {"role": known[speaker], "content": text} | {k: v for k, v in raw.items() if k not in (role, content) and v is not None}


def text_of(raw: Any, where: str) -> str:
    """Return a text, or a list of parts as one text with `<image>` for each image; raise InvalidRecord for anything else."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list):
        raise InvalidRecord(f"{where} is not a text or a list of parts")
    return "".join(_part(part, where) for part in raw)


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in ("image", "image_url"):
        return IMAGE
    raise InvalidRecord(f"{where} has a part that is neither text nor image: {kind!r}")


def parts_of(raw: Any) -> list[Json]:
    """Return the image parts of a list of messages, in order."""
    said = [m.get("content") for m in raw if isinstance(m, Mapping)] if isinstance(raw, list) else []
    parts = [part for content in said if isinstance(content, list) for part in content if isinstance(part, Mapping)]
    return [dict(part) for part in parts if part.get("type") in ("image", "image_url")]


def to_record(messages: list[Json], rest: Mapping[str, Any], images: Sequence[Any] | None, ending: str = "", **answers: Any) -> Json:
    """Return our record of a conversation whose texts have `<image>` in them; a single prompt becomes `prompt`.

    `answers` are the record's `response`, or `chosen` and `rejected`; without them the conversation stays whole.
    """
    said = unplaced(messages, len(images or ()), ending)
    record = {k: v for k, v in rest.items() if k == "id"}
    if answers and len(said) == 1 and said[0].keys() <= {"role", "content", "image_tag"} and said[0]["role"] == "user":
        record |= {"prompt": said[0]["content"]} | ({"image_tag": said[0]["image_tag"]} if "image_tag" in said[0] else {})
    else:
        record |= {"messages": said}
    record |= {} if images is None else {"images": list(images)}
    return record | {k: v for k, v in answers.items() if v is not None} | {k: v for k, v in rest.items() if k not in record}


def rest_of(row: Mapping[str, Any], *names: str) -> Json:
    """Return the fields of a row that are not the dialect's own."""
    return {name: value for name, value in row.items() if name not in names}


def images_of(raw: Any, where: str) -> list[Any] | None:
    """Return one image or a list of them as a list, None where the field is absent or null; raise InvalidRecord for what is none."""
    if raw is None:
        return None
    images = raw if isinstance(raw, list) else [raw]
    for image in images:
        if not (isinstance(image, str) and image) and not (isinstance(image, Mapping) and (image.get("bytes") or image.get("path"))):
            raise InvalidRecord(f"{where!r} is not a path, a data: URI, {{bytes, path}} or a list of these")
    return images

"""The parts that the readers of dialects share: messages, texts in parts, images, and the record built from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dream_cli.errors import InvalidRecord
from dream_cli.formats.places import unplaced
from dream_cli.records.conversation import ROLES, role_of
from dream_cli.records.parts import marked
from dream_cli.records.record import Json

# The image paths that a reader resolves: relative to the folder of the file, absolute only (relative ones would start at its own
# working directory), or none.
PathsFrom = Literal["relative", "absolute"] | None


def messages_of(raw: Any, where: str, role: str = "role", content: str = "content", roles: Mapping[str, str] | None = None) -> list[Json]:
    """Return a list of messages with the names of a record; raise InvalidRecord where it is not one.

    `roles` maps the dialect's roles to ours. A content of parts becomes one text with `<image>` for each image.
    """
    if not isinstance(raw, list) or not raw:
        raise InvalidRecord(f"{where!r} is not a list of messages")
    messages = []
    for i, item in enumerate(raw):
        name = item.get(role) if isinstance(item, Mapping) else None
        speaker = role_of(name) if roles is None else roles.get(str(name))
        if speaker is None:
            raise InvalidRecord(f"{where}[{i}] has no {role!r} of {', '.join(roles or ROLES)}")
        text = _text_of(item, content, f"{where}[{i}]")
        # In typed columns (Parquet) every message has every field, null where it is absent.
        rest = {k: v for k, v in item.items() if k not in (role, content) and v is not None}
        messages.append({"role": speaker, "content": text} | rest)
    return messages


def _text_of(message: Mapping[str, Any], content: str, where: str) -> str:
    raw = message.get(content)
    if isinstance(raw, list):
        return marked(raw, where)[0]
    if isinstance(raw, str):
        return raw
    if raw is None and message.get("tool_calls"):
        return ""
    raise InvalidRecord(f"{where}.{content} is not a text or a list of parts")


def part_images(messages: Any) -> list[Any]:
    """Return the images in the parts of a list of messages, in order: paths, URIs or {bytes, path}."""
    contents = [m.get("content") for m in messages if isinstance(m, Mapping)] if isinstance(messages, list) else []
    return [image for content in contents if isinstance(content, list) for image in marked(content, "a message")[1] if image is not None]


def record_of(messages: list[Json], rest: Mapping[str, Any], images: Sequence[Any] | None, ending: str = "", **answers: Any) -> Json:
    """Return the record (as JSON) of a conversation with `<image>` in its texts; a single prompt becomes `prompt`.

    `answers` are the record's `response`, or `chosen` and `rejected`; without them the answer stays in the conversation.
    """
    messages = unplaced(messages, len(images or ()), ending)
    record = {k: v for k, v in rest.items() if k == "id"}
    if answers and len(messages) == 1 and messages[0].keys() <= {"role", "content", "image_tag"} and messages[0]["role"] == "user":
        record |= {"prompt": messages[0]["content"]} | ({"image_tag": messages[0]["image_tag"]} if "image_tag" in messages[0] else {})
    else:
        record |= {"messages": messages}
    record |= {} if images is None else {"images": list(images)}
    return record | {k: v for k, v in answers.items() if v is not None} | {k: v for k, v in rest.items() if k not in record}


def pair_of(chosen: list[Json], rejected: list[Json], rest: Mapping[str, Any], images: Sequence[Any] | None, ending: str = "") -> Json:
    """Return the pair of two conversations (as JSON of a record); raise InvalidRecord unless only their last answers differ."""
    prompt = chosen[:-1]
    if not prompt or prompt != rejected[:-1] or chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise InvalidRecord("'chosen' and 'rejected' do not begin with the same prompt, or do not end with the assistant")
    return record_of(prompt, rest, images, ending, chosen=chosen[-1]["content"], rejected=rejected[-1]["content"])


def other_fields(row: Mapping[str, Any], *names: str) -> Json:
    """Return the fields of a row other than `names`, the fields of the dialect."""
    return {name: value for name, value in row.items() if name not in names}


def images_of(raw: Any, where: str) -> list[Any] | None:
    """Return one image or a list of them as a list, None where the field is absent or null; raise InvalidRecord for anything else."""
    if raw is None:
        return None
    images = raw if isinstance(raw, list) else [raw]
    for image in images:
        if not (isinstance(image, str) and image) and not (isinstance(image, Mapping) and (image.get("bytes") or image.get("path"))):
            raise InvalidRecord(f"{where!r} is not a path, a data: URI, {{bytes, path}} or a list of these")
    return images


def row_images(row: Mapping[str, Any]) -> list[Any] | None:
    """Return the images of a row from `images`, otherwise from `image`; None where it has neither."""
    return images_of(row.get("images") or row.get("image"), "images" if row.get("images") else "image")

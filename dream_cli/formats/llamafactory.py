"""The ShareGPT dialect of LLaMA-Factory: `conversations` with `<image>` in the texts, `images`, and for pairs `chosen` and `rejected`.

Source: `llamafactory/data/converter.py` of LLaMA-Factory 0.9.5. The file's entry in `dataset_info.json` names its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import Dialogue, dialogue
from dream_cli.formats.hf_features import IMAGES, TEXT
from dream_cli.formats.reading import PathsFrom, images_of, messages_of, other_fields, record_of
from dream_cli.records.record import Json

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}
_OWN = ("conversations", "system", "images", "chosen", "rejected")

COLUMNS = {"messages": "conversations", "system": "system", "images": "images", "chosen": "chosen", "rejected": "rejected"}
TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "system_tag": "system"}


_MESSAGE = {"from": TEXT, "value": TEXT}
FEATURES: Mapping[str, Any] = {
    "id": TEXT,
    "conversations": {"feature": _MESSAGE, "_type": "List"},
    "chosen": _MESSAGE,
    "rejected": _MESSAGE,
    "images": IMAGES,
}
PATHS: PathsFrom = "relative"
INLINE = False


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is. With `image`, or without images and pair, it is LLaVA's."""
    if "conversations" not in row or "messages" in row or "prompt" in row:
        return "no 'conversations'"
    pair = isinstance(row.get("chosen"), Mapping) and isinstance(row.get("rejected"), Mapping)
    return "" if pair or ("images" in row and "image" not in row) else "no 'images', and no pair of 'chosen' and 'rejected' messages"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed."""
    messages = messages_of(row.get("conversations"), "conversations", role="from", content="value", roles=_ROLES)
    if row.get("system") and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": row["system"]})
    images, rest = images_of(row.get("images"), "images"), other_fields(row, *_OWN)
    if row.get("chosen") is None and row.get("rejected") is None:
        return record_of(messages, rest, images)
    return record_of(messages, rest, images, chosen=_answer(row, "chosen"), rejected=_answer(row, "rejected"))


def _answer(row: Mapping[str, Any], name: str) -> str:
    (message,) = messages_of([row.get(name)], name, role="from", content="value", roles=_ROLES)
    if message["role"] != "assistant":
        raise InvalidRecord(f"{name!r} is not a message of the assistant")
    return str(message["content"])


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return a record as a row, and the fields that it cannot hold; raise InvalidRecord where the reader would drop it."""
    example = dialogue(record)
    require_turns(example)
    row = {"id": record["id"]} if "id" in record else {}
    prompt = [_message(m["role"], m["content"]) for m in example.texts()]
    if example.pair is None:
        return row | {"conversations": [*prompt, _message("assistant", example.answer)], "images": list(example.images)}, example.left_out
    pair = {"chosen": _message("assistant", example.pair.chosen), "rejected": _message("assistant", example.pair.rejected)}
    return row | {"conversations": prompt} | pair | {"images": list(example.images)}, example.left_out


def require_turns(example: Dialogue) -> None:
    """Raise InvalidRecord unless user and assistant take turns and the last prompt has an answer: LLaMA-Factory drops other rows."""
    if example.answer is None and example.pair is None:
        raise InvalidRecord("no response, and no 'chosen' and 'rejected'; LLaMA-Factory trains on answers alone")
    if not taking_turns([m["role"] for m in example.messages]):
        raise InvalidRecord("user and assistant do not take turns, or a system message is not the first; LLaMA-Factory drops such a row")


def taking_turns(roles: Sequence[str]) -> bool:
    """Whether user and assistant alternate, from user to user, after at most one system message."""
    turns = list(roles[1:] if roles[:1] == ["system"] else roles)
    return len(turns) % 2 == 1 and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(turns))


def _message(role: str, text: str | None) -> Json:
    return {"from": _SPEAKERS[role], "value": text}

"""The LLaVA (ShareGPT) dialect, in which the data of DREAM were released, converted to records and back without loss.

Conversations of {role, content}, those of Qwen-VL, with paths in `<img>` marks, and pairs with `rejected_conversations` are read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.dialogue import dialogue
from dream_cli.formats.places import is_placed, placed, unplaced
from dream_cli.formats.reading import PathsFrom, images_of, messages_of, other_fields, pair_of, part_images, record_of, row_images
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.parts import IMAGE
from dream_cli.records.record import OBSERVATION, Json, Record, Turn

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()} | {"developer": "system"}
# Other names of the roles; they are not written back.
_READ_ROLES = _ROLES | {"user": "user", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant"}
_REJECTED = "rejected_conversations"  # the other side of a pair, in the data of POVID
# An image mark in a text of Qwen-VL.
_NAMED = re.compile(r"<img>([^<>]+)</img>")


FEATURES: Mapping[str, Any] = {}
PATHS: PathsFrom = "relative"
INLINE = False


def mismatch(row: Mapping[str, Any]) -> str:
    """Return the reason why a row is not in this dialect; empty if it is."""
    return "" if _turns(row) and "messages" not in row and "prompt" not in row else "no 'conversations'"


def read(row: Mapping[str, Any]) -> Json:
    """Return a row as a record; raise InvalidRecord where it is malformed."""
    name = _turns(row) or "conversations"
    row = _with_system(row, name)
    turns = row.get(name)
    if isinstance(turns, list) and turns and all(isinstance(turn, Mapping) and "role" in turn and "from" not in turn for turn in turns):
        images = part_images(turns) or row_images(row)
        return record_of(messages_of(turns, name), other_fields(row, name, "image", "images"), images, "\n")
    if row.get(_REJECTED) is None:
        return from_llava(row, "", _taxonomy())
    chosen, rejected = (from_llava({"conversations": row[side]}, "", _taxonomy())["messages"] for side in ("conversations", _REJECTED))
    return pair_of(chosen, rejected, other_fields(row, "conversations", _REJECTED, "image", "images"), row_images(row), ending="\n")


def _turns(row: Mapping[str, Any]) -> str | None:
    """Return the column of the conversation: `conversations`, or `conversation` where it is a list, as in LMSYS-Chat."""
    if "conversations" in row:
        return "conversations"
    return "conversation" if isinstance(row.get("conversation"), list) else None


def _with_system(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a row whose system message, a column of its own, is the first turn of its conversations."""
    system, turns = row.get("system"), row.get(name)
    first = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(system, str) or not system or not isinstance(first, Mapping) or "system" in (first.get("from"), first.get("role")):
        return row
    turn = {"from": "system", "value": system} if "from" in first else {"role": "system", "content": system}
    sides = {side: [turn, *row[side]] for side in (name, _REJECTED) if isinstance(row.get(side), list)}
    return other_fields(row, "system") | sides


def write(record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
    """Return a record as a row, and no fields left out: unknown fields are kept in the row."""
    return to_llava(record), ()


@cache
def _taxonomy() -> Taxonomy:
    return Taxonomy.load()


def from_llava(row: Mapping[str, Any], place: str, taxonomy: Taxonomy) -> Json:
    """Return a LLaVA row as a conversation (JSON of a record); raise InvalidRecord with `place` where it is malformed.

    Unknown fields are kept unchanged. Details that the record cannot express are kept in extra fields for `to_llava`:
    the image placeholder of a text in `image_tag`, other names for a source or category in `raw_source` and `raw_risk_category`.
    """
    try:
        turns = row.get("conversations")
        if not isinstance(turns, list) or not turns:
            raise InvalidRecord("'conversations' is not a list of messages")
        record = {name: value for name, value in row.items() if name != "conversations"}
        if record.get("image") is not None:
            image = record.pop("image")
            record |= {"images": images_of(image, "image")} | ({"image_is_list": True} if isinstance(image, list) else {})
        messages = [_read_message(turn, f"conversations[{i}]", taxonomy) for i, turn in enumerate(turns)]
        if not record.get("images") and (named := [path for m in messages for path in _NAMED.findall(m["content"])]):
            record["images"] = named
            messages = [m | {"content": _NAMED.sub(IMAGE, m["content"])} for m in messages]
    except InvalidRecord as error:
        raise InvalidRecord(f"{place}: {error}" if place else str(error)) from None
    if record.get("images") and not is_placed(messages):
        # An empty tag records that the row had no placeholder, so that `to_llava` writes none.
        return record | {"messages": [messages[0] | {"image_tag": {}}, *messages[1:]]}
    return record | {"messages": unplaced(messages, len(record.get("images") or ()), "\n")}


def to_llava(record: Mapping[str, Any]) -> Json:
    """Return a record (as JSON) as a LLaVA row: for conversations the inverse of `from_llava`."""
    if not record.get("messages"):
        record = _conversation(record)
    renamed = ("images", "image_is_list", "messages")
    row = {name: value for name, value in record.items() if name not in renamed}
    images = [image.get("path") if isinstance(image, Mapping) else image for image in record.get("images") or ()]
    if not all(isinstance(path, str) for path in images):
        raise InvalidRecord("an image without a path has no LLaVA form; write the images to files first")
    if images or record.get("image_is_list"):
        row["image"] = images[0] if len(images) == 1 and not record.get("image_is_list") else images
    messages = placed(record["messages"], len(images), "\n")
    return row | {"conversations": [_written_message(message) for message in messages]}


def _conversation(record: Mapping[str, Any]) -> Json:
    """Return a prompt with its plain response as a conversation; answers with more than a text stay in their own field."""
    if record.get("prompt") is None:
        raise InvalidRecord("a record without 'prompt' and 'messages' has no LLaVA form")
    answer = record.get("response")
    messages = [*dialogue({name: record[name] for name in ("prompt", "image_tag") if name in record}).messages]
    messages += [] if answer is None else [{"role": "assistant", "content": answer}]
    return {name: value for name, value in record.items() if name not in ("prompt", "response", "image_tag")} | {"messages": messages}


def explode(record: Record) -> Iterator[Record]:
    """Yield one record of a single prompt for each turn of a conversation, `ID/1`, `ID/2` ...; other records unchanged.

    The messages before a turn are kept in `history`, the fields of the user's message (such as `safe`) in `turn`.
    """
    turns = record.turns() if record.messages and record.error is None else ()
    if not turns:
        yield record
    for number, turn in enumerate(turns, 1):
        yield _single(record, turn, number)


def fix_flags(record: Json) -> bool:
    """Move observations from the answer to the safe instruction to the answer to the unsafe one; return whether any were moved.

    Six conversations of the release have them on the wrong answer. Their `malicious_content` still quotes the safe instruction,
    and the answers are not moved: only a new annotation can correct those.
    """
    turns = list(zip(record.get("messages", ()), record.get("messages", ())[1:], strict=False))
    safe = [reply for prompt, reply in turns if prompt.get("safe") is True and reply.get("observations")]
    unsafe = [reply for prompt, reply in turns if prompt.get("safe") is False]
    if len(safe) != 1 or len(unsafe) != 1 or "observations" in unsafe[0]:
        return False
    unsafe[0]["observations"] = safe[0].pop("observations")
    return True


def _read_message(raw: Any, where: str, taxonomy: Taxonomy) -> Json:
    if not isinstance(raw, Mapping) or str(raw.get("from")) not in _READ_ROLES or not isinstance(raw.get("value"), str):
        raise InvalidRecord(f"{where} is not {{from: human, gpt or system, value: a text}}")
    rest = {name: value for name, value in raw.items() if name not in ("from", "value", "observe")}
    if overlap := {"role", "content", "observations", "image_tag"} & rest.keys():
        raise InvalidRecord(f"{where} mixes two forms: it has both 'from' and {', '.join(map(repr, sorted(overlap)))}")
    message = {"role": _READ_ROLES[raw["from"]], "content": raw["value"]} | rest
    if raw.get("observe") is None:
        return message
    if not isinstance(raw["observe"], list):
        raise InvalidRecord(f"{where}.observe is not a list")
    return message | {"observations": [_canonical(item, f"{where}.observe[{i}]", taxonomy) for i, item in enumerate(raw["observe"])]}


def _canonical(raw: Any, where: str, taxonomy: Taxonomy) -> Json:
    if not isinstance(raw, Mapping) or not all(isinstance(raw.get(name), str) for name in OBSERVATION):
        raise InvalidRecord(f"{where} is not {{{', '.join(OBSERVATION)}}}, all texts")
    canonical = {"source": taxonomy.source(raw["source"]), "risk_category": taxonomy.category(raw["risk_category"])}
    return dict(raw) | canonical | {f"raw_{name}": raw[name] for name in canonical if raw[name] != canonical[name]}


def _written_message(message: Mapping[str, Any]) -> Json:
    renamed = ("role", "content", "observations")
    if message["role"] not in _SPEAKERS:
        raise InvalidRecord(f"a message of the role {message['role']!r} has no LLaVA form")
    turn = {"from": _SPEAKERS[message["role"]], "value": message["content"]} | {k: v for k, v in message.items() if k not in renamed}
    if message.get("observations") is None:
        return turn
    observe = []
    for observation in message["observations"]:
        names = {name: observation[f"raw_{name}"] for name in ("source", "risk_category") if f"raw_{name}" in observation}
        observe.append({name: value for name, value in observation.items() if not name.startswith("raw_")} | names)
    return turn | {"observe": observe}


def _single(record: Record, turn: Turn, number: int) -> Record:
    prompt = record.messages[-1 if turn.reply is None else turn.reply - 1]
    fields = {k: v for k, v in prompt.extra.items() if k != "image_tag"}
    extra = {k: v for k, v in record.extra.items() if k != "response"}
    extra |= {"turn": fields} if fields else {}
    extra |= {"history": [m.to_dict() for m in turn.history]} if turn.history else {}
    if turn.reply is not None and turn.responses[0].judgement is None:
        # An answer without a judgement is written as the plain `response`; one with a judgement needs the list.
        extra = {"response": turn.responses[0].text} | extra
    return replace(
        record,
        id=None if record.id is None else f"{record.id}/{number}",
        prompt=turn.prompt,
        messages=(),
        images=turn.seen(record.images),
        observations=turn.observations,
        responses=turn.responses or None,
        extra=extra,
        order=("id", "prompt"),
    )

"""The trace of one id: its rows in several files, and the stored calls that produced them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dream_cli.engines.store import calls_about, subject_of, subject_of_image
from dream_cli.errors import NoMatch, RowError
from dream_cli.formats.sources import read_records
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.image_rows import to_row
from dream_cli.records.images import prepare
from dream_cli.records.record import Json, Record


class LinkedRow(NamedTuple):
    """One row of one file, and its link to the id: `id`, `prompt` or `image`."""

    file: str
    n: int
    link: str
    record: Record


class TracedCall(NamedTuple):
    """One call of the store: the stage that made it, empty where the store does not record it, and the reply."""

    key: str
    made_at: str
    model: str
    verb: str
    stage: str
    reply: str


@dataclass
class Known:
    """The contents of linked rows, by which other rows and calls are matched."""

    id: str
    prompts: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Add the contents of a row."""
        for turn in record.turns() if record.error is None else ():
            self.prompts.add(turn.prompt)
        if record.error is not None and isinstance(record.extra.get("prompt"), str):
            self.prompts.add(record.extra["prompt"])
        self.images |= set(_sums(record))

    def link(self, record: Record) -> str | None:
        """Return the link of a row to these: `id`, `prompt` or `image`; None without one."""
        name = str(record.id or record.extra.get("id") or "")
        if name.partition("#")[0] == self.id.partition("#")[0]:
            return "id"
        # The same question is often used with many pictures: the same prompt with other images is another row.
        images = set(_sums(record)) if self.images else set()
        if any(turn.prompt in self.prompts for turn in record.turns() if turn.prompt) and (not images or images & self.images):
            return "prompt"
        return "image" if images & self.images else None


def _sums(record: Record) -> Iterator[str]:
    """Yield the SHA-256 of each image in the form that is sent to the engines."""
    for image in record.images:
        try:
            yield hashlib.sha256(prepare(image).data or b"").hexdigest()
        except RowError:
            continue


def rows_of(name: str, files: Sequence[str], reading: Reading = DEFAULT_READING) -> tuple[list[LinkedRow], Known]:
    """Return the rows that belong to an id, file by file: those with the id, its image, or its prompt (unless all images differ).

    Raises NoMatch where no file has the id.
    """
    known = Known(name)
    for file in files:
        for record in read_records(file, reading):
            if known.link(record) == "id":
                known.add(record)
    rows = []
    for file in files:
        for n, record in enumerate(read_records(file, reading), 1):
            link = known.link(record)
            if link is not None:
                rows.append(LinkedRow(file, n, link, record))
    if not any(row.link == "id" for row in rows):
        raise NoMatch(f"no row of {', '.join(files)} has the id {name!r}; dream view FILE --sql 'select id from records' lists them")
    for row in rows:
        known.add(row.record)
    return rows, known


def calls_of(known: Known, store: str) -> list[TracedCall]:
    """Return the calls whose request contains a prompt or image of these rows, in the order of time; the store is only read."""
    if not os.path.exists(store):
        return []
    subjects = {*map(subject_of, known.prompts), *map(subject_of_image, known.images)}
    # As they stand in the JSON of a request.
    signs = [*known.images, *(json.dumps(prompt)[1:-1] for prompt in known.prompts if prompt)]
    calls = []
    for call in calls_about(Path(store), subjects, signs):
        if _is_about(known, json.loads(call.request).get("messages", ())):
            calls.append(
                TracedCall(
                    key=call.key,
                    made_at=call.created_at,
                    model=call.model,
                    verb=call.verb,
                    stage=call.stage,
                    reply=_answer(json.loads(call.reply)),
                )
            )
    return calls


def _is_about(known: Known, messages: Sequence[Json]) -> bool:
    """Return whether a request contains one of the images of these rows, or one of their prompts and no image of another row."""
    images = {image for message in messages for image in message.get("images", ())}
    if images and known.images:
        return bool(images & known.images)
    text = "\n".join(str(message.get("text", "")) for message in messages)
    return any(prompt and prompt in text for prompt in known.prompts)


def _answer(reply: Json) -> str:
    """Return the text of a reply, or its most probable choices."""
    probabilities = reply.get("probabilities")
    if not isinstance(probabilities, dict):
        return str(reply.get("text", ""))
    likely = sorted(probabilities.items(), key=lambda item: -float(item[1]))[:3]
    return ", ".join(f"{choice} {float(p):.2f}" for choice, p in likely)


def trace_json(linked: Sequence[LinkedRow], calls: Sequence[TracedCall]) -> dict[str, Any]:
    """Return rows and calls as JSON."""
    rows = [{"file": row.file, "row": row.n, "link": row.link, "record": to_row(row.record, None)} for row in linked]
    return {"rows": rows, "calls": [call._asdict() for call in calls]}

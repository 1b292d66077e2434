"""The trace of one id: its rows in several files, and the calls in the store that made them."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dream_cli.errors import RowError, UsageError
from dream_cli.records.images import prepare
from dream_cli.records.pair import Pair
from dream_cli.records.record import Json, Record
from dream_cli.records.streams import read_records, to_row


class LinkedRow(NamedTuple):
    """One row of one file, and its link to the id: `id`, `prompt` or `image`."""

    file: str
    n: int
    link: str
    record: Record


class Call(NamedTuple):
    """One call of the store: its role for the rows, and the reply."""

    key: str
    made_at: str
    model: str
    verb: str
    role: str
    reply: str


@dataclass
class Known:
    """The contents of linked rows, by which further rows and calls are recognised."""

    id: str
    prompts: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    responses: set[str] = field(default_factory=set)
    risks: set[str] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Add the contents of a row."""
        for turn in record.turns() if record.error is None else ():
            self.prompts.add(turn.prompt)
            self.responses |= {response.text for response in turn.responses}
            self.risks |= {o.malicious_content for o in turn.observations or ()}
        pair = Pair.if_readable(record)
        self.responses |= {text for text in (pair.chosen, pair.rejected) if text} if pair else set()
        if record.error is not None and isinstance(record.extra.get("prompt"), str):
            self.prompts.add(record.extra["prompt"])
        self.images |= set(_sums(record))

    def link(self, record: Record) -> str | None:
        """Return the link of a row to these: `id`, `prompt` or `image`; None without one."""
        name = str(record.id or record.extra.get("id") or "")
        if name.partition("#")[0] == self.id.partition("#")[0]:
            return "id"
        if any(turn.prompt in self.prompts for turn in record.turns() if turn.prompt):
            return "prompt"
        return "image" if self.images and self.images & set(_sums(record)) else None


def _sums(record: Record) -> Iterator[str]:
    """Yield the SHA-256 of each image in the form that is sent to the engines."""
    for image in record.images:
        try:
            yield hashlib.sha256(prepare(image).data or b"").hexdigest()
        except RowError:
            continue


def rows_of(name: str, files: Sequence[str], image_root: Path | None = None) -> tuple[list[LinkedRow], Known]:
    """Return the rows that belong to an id, file by file: those of the id, and those with its prompt or its image.

    Raises UsageError where no file has the id.
    """
    known = Known(name)
    for file in files:
        for record in read_records(file, image_root=image_root):
            if known.link(record) == "id":
                known.add(record)
    rows = []
    for file in files:
        for n, record in enumerate(read_records(file, image_root=image_root), 1):
            link = known.link(record)
            if link is not None:
                rows.append(LinkedRow(file, n, link, record))
    if not any(row.link == "id" for row in rows):
        raise UsageError(f"no row of {', '.join(files)} has the id {name!r}; dream view FILE --sql 'select id from records' lists them")
    for row in rows:
        known.add(row.record)
    return rows, known


def calls_of(known: Known, store: str) -> list[Call]:
    """Return the calls whose request contains a prompt or image of these rows, in the order of time; the store is only read."""
    if not os.path.exists(store):
        return []
    try:
        with closing(sqlite3.connect(f"file:{Path(store).absolute().as_posix()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT key, verb, model, created_at, request, reply FROM calls ORDER BY created_at, rowid")
            return [call for row in rows if (call := _call(known, *row)) is not None]
    except sqlite3.Error as error:
        raise UsageError(f"the store of calls at {store} cannot be read: {error}; name another with --store or DREAM_STORE") from None


def _call(known: Known, key: str, verb: str, model: str, made_at: str, request: str, reply: str) -> Call | None:
    # Parsed only where an image or a prompt occurs in the raw JSON: most calls are of other rows.
    if not any(sign in request for sign in (*known.images, *(json.dumps(prompt)[1:-1] for prompt in known.prompts))):
        return None
    sent, received = json.loads(request), json.loads(reply)
    text = "\n".join(str(message.get("text", "")) for message in sent.get("messages", ()))
    answer = str(received.get("text", ""))
    role = _role(known, verb, text, answer, sent)
    if role is None:
        return None
    if isinstance(probabilities := received.get("probabilities"), dict):
        likely = sorted(probabilities.items(), key=lambda item: -float(item[1]))[:3]
        answer = ", ".join(f"{choice} {float(p):.2f}" for choice, p in likely)
    return Call(key, made_at, model, verb, role, answer)


def _role(known: Known, verb: str, text: str, reply: str, sent: Json) -> str | None:
    """Return the role of a call, None for a call of another row."""
    images = {image for message in sent.get("messages", ()) for image in message.get("images", ())}
    speaks = any(prompt and prompt in text for prompt in known.prompts)
    if (known.images and not known.images & images and images) or not (speaks or images & known.images):
        return None
    if verb == "generate":
        if reply in known.responses:
            return "wrote a response"
        return "looked for risks" if sent.get("sampling", {}).get("schema") else "answered about this prompt"
    if any(response and response in text for response in known.responses):
        return "judged a response"
    if any(risk and risk in text for risk in known.risks):
        return "verified a risk"
    return "chose about this prompt" if speaks else None


def trace_json(linked: Sequence[LinkedRow], calls: Sequence[Call]) -> dict[str, Any]:
    """Return rows and calls as JSON."""
    rows = [{"file": row.file, "row": row.n, "link": row.link, "record": to_row(row.record, None)} for row in linked]
    return {"rows": rows, "calls": [call._asdict() for call in calls]}

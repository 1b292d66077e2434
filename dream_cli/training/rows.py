"""Training rows: a prompt of messages and images, with the responses to learn from.

Rows are in one memory-mapped Arrow file; images are decoded when a batch needs them, so that memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dream_cli.errors import InvalidRecord
from dream_cli.records.atomic import replacing_path
from dream_cli.records.pair import SIDES, Pair
from dream_cli.records.record import Image, Message, Record, Turn

COMPLETION: tuple[str, ...] = ("completion",)
PAIR: tuple[str, ...] = SIDES
_BATCH = 256


@dataclass(frozen=True)
class Row:
    """One row: `answers` has the key `completion`, or `chosen` and `rejected`; `place` is its file:line, `length` its number of tokens."""

    place: str
    prompt: tuple[Message, ...]
    answers: Mapping[str, str]
    images: tuple[Image, ...] = ()
    length: int = 0


class Rows(Protocol):
    """A sink of rows."""

    def write(self, row: Row) -> None:
        """Write one row."""


def pair_of(record: Record) -> Row:
    """Return the row of a record's pair; raise InvalidRecord where there is none, or its texts are equal."""
    pair = Pair.required(record)
    if pair.chosen.split() == pair.rejected.split():
        raise InvalidRecord("chosen and rejected are the same text; there is nothing to prefer")
    turn = record.turns()[-1] if record.turns() else None
    if turn is None or turn.reply is not None:
        raise InvalidRecord("the conversation ends with an answer; a pair must follow a user message")
    return row_of(record, turn, {"chosen": pair.chosen, "rejected": pair.rejected})


def row_of(record: Record, turn: Turn, answers: Mapping[str, str]) -> Row:
    """Return the row of a turn: the prompt with its history and images, and the answers; observations are never part of it."""
    record.require_images()
    prompt = tuple(Message(m.role, m.content, places=m.places) for m in turn.messages)
    return Row(record.place, prompt, answers, turn.seen(record.images))


def plain_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return messages as {role, content, places}; `places` are the character offsets of images in the content."""
    return [{"role": m.role, "content": m.content, "places": [place.at for place in m.places]} for m in messages]


def trl_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return {role, content, places} as messages of TRL: texts, or parts with `{"type": "image"}` at the places (character offsets).

    If contents are texts, TRL puts all images before the first user message.
    """
    if not any(message["places"] for message in messages):
        return [{"role": message["role"], "content": message["content"]} for message in messages]
    parts = []
    for message in messages:
        text, end, content = message["content"], 0, []
        for at in message["places"]:
            content += [{"type": "text", "text": text[end:at]}] * (at > end) + [{"type": "image"}]
            end = at
        parts.append({"role": message["role"], "content": [*content, {"type": "text", "text": text[end:]}]})
    return parts


@contextmanager
def open_rows(path: Path, names: Iterable[str]) -> Iterator[Rows]:
    """Open a file for rows whose answers are `names`; it is written atomically."""
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("places", pa.list_(pa.int64()))])
    fields = [
        ("row", pa.int64()),
        ("place", pa.string()),
        ("length", pa.int64()),
        ("images", pa.list_(image)),
        ("prompt", pa.list_(message)),
    ]
    schema = pa.schema([*fields, *((name, pa.string()) for name in names)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_path(path) as temporary, pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        rows = _ArrowRows(stream, schema)
        yield rows
        rows.flush()


class _ArrowRows:
    def __init__(self, stream: Any, schema: Any) -> None:
        self._stream, self._schema = stream, schema
        self._held: list[dict[str, Any]] = []
        self._count = 0

    def write(self, row: Row) -> None:
        images = [{"bytes": image.data, "path": image.path} for image in row.images]
        prompt = plain_messages(row.prompt)
        known = {"row": self._count, "place": row.place, "length": row.length}
        self._held.append({**known, "images": images, "prompt": prompt, **row.answers})
        self._count += 1
        if len(self._held) == _BATCH:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._stream.write_batch(pa.RecordBatch.from_pylist(self._held, self._schema))
            self._held = []


def load_rows(path: Path, max_pixels: int | None = None) -> Any:
    """Return the rows of a file as a `datasets.Dataset` for TRL's trainers, images decoded and scaled on access."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    return Dataset.from_file(str(path)).with_transform(partial(as_examples, max_pixels=max_pixels))


def as_examples(batch: dict[str, list[Any]], max_pixels: int | None = None) -> dict[str, list[Any]]:
    """Return columns of an Arrow file as columns of TRL: images decoded, texts as messages."""
    from dream_cli.records.images import open_rgb

    examples: dict[str, list[Any]] = {"row": batch["row"], "prompt": list(map(trl_messages, batch["prompt"]))}
    examples["images"] = [[open_rgb(Image(i["path"], i["bytes"]), max_pixels) for i in images] for images in batch["images"]]
    for name in (*COMPLETION, *PAIR):
        if name in batch:
            examples[name] = [[{"role": "assistant", "content": text}] for text in batch[name]]
    return examples

"""What changed from one file of records to another: rows that came, went or changed, and how their scores moved."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dream_cli.errors import RowError
from dream_cli.records.images import digest
from dream_cli.records.record import Image, Json, Record
from dream_cli.records.streams import to_row
from dream_cli.records.strict_json import dumps

LARGEST = 5


@dataclass(frozen=True)
class Facts:
    """What is kept of a row: the digest of each field, its images, and its score: the mean of its responses, else the margin."""

    fields: dict[str, bytes]
    images: tuple[Image, ...]
    score: float | None


@dataclass(frozen=True)
class Change:
    """One row that stands in both files and is not the same; scores are None where there is none."""

    id: str
    fields: tuple[str, ...]
    before: float | None
    after: float | None

    @property
    def shift(self) -> float:
        """By how much the score rose; 0 where one of the two is not known."""
        return 0.0 if self.before is None or self.after is None else round(self.after - self.before, 6)


@dataclass(frozen=True)
class Difference:
    """All that differs; `scored` rows have a score in both files, with these means."""

    before: int
    after: int
    added: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[Change, ...]
    same: int
    scored: int
    mean_before: float | None
    mean_after: float | None

    def to_dict(self) -> Json:
        """Return the difference as JSON."""
        return asdict(self)

    def fields(self) -> list[tuple[str, int]]:
        """Return how many rows changed in each field, the most frequent first."""
        return Counter(name for change in self.changed for name in change.fields).most_common()

    def largest(self) -> list[Change]:
        """Return the rows whose score moved the most."""
        moved = [change for change in self.changed if change.shift]
        return sorted(moved, key=lambda change: -abs(change.shift))[:LARGEST]


def difference(before: Iterable[Record], after: Iterable[Record]) -> Difference:
    """Compare two files row by row: by id, else by prompt and images; rows of one name in their order.

    Only digests of the first file are held in memory.
    """
    old = {key: facts(record) for key, record in named(before)}
    rows, added, changed = 0, [], []
    same, scores = 0, []
    left = dict(old)
    for key, record in named(after):
        rows += 1
        was, now = left.pop(key, None), facts(record)
        if was is None:
            added.append(key)
            continue
        if was.score is not None and now.score is not None:
            scores.append((was.score, now.score))
        fields = tuple(_changed(was, now))
        if fields:
            changed.append(Change(key, fields, was.score, now.score))
        else:
            same += 1
    means = [round(sum(side) / len(scores), 6) for side in zip(*scores, strict=True)] if scores else [None, None]
    return Difference(len(old), rows, tuple(added), tuple(left), tuple(changed), same, len(scores), *means)


def named(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """Yield each record under a name that is its own: its id, else a hash; the second of a name is `NAME (2)`."""
    seen = Counter[str]()
    for record in records:
        name = record.id or str(record.extra.get("id") or "") or _hashed(record)
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name} ({seen[name]})"), record


def _hashed(record: Record) -> str:
    row = to_row(record, None)
    said = {name: row.get(name) for name in ("prompt", "messages", "images", "error")}
    return hashlib.sha256(dumps(said)).hexdigest()[:16]


def facts(record: Record) -> Facts:
    """Return what is kept of a row."""
    row = {name: value for name, value in record.to_dict().items() if name != "images"}
    scores = [
        response.judgement.score
        for turn in (record.turns() if record.error is None else ())
        for response in turn.responses
        if response.judgement is not None and response.judgement.score is not None
    ]
    margin = record.extra.get("margin")
    score = round(sum(scores) / len(scores), 6) if scores else float(margin) if isinstance(margin, int | float) else None
    return Facts({name: hashlib.sha256(dumps(value)).digest()[:8] for name, value in row.items()}, tuple(map(_small, record.images)), score)


def _small(image: Image) -> Image:
    """Return an image with the digest in the place of its bytes."""
    return image if image.data is None else Image(path=f"sha256:{digest(image)}")


def _changed(before: Facts, after: Facts) -> Iterator[str]:
    names = [*after.fields, *(name for name in before.fields if name not in after.fields)]
    yield from (name for name in names if before.fields.get(name) != after.fields.get(name))
    pairs = zip(before.images, after.images, strict=False)
    if len(before.images) != len(after.images) or not all(_same_image(a, b) for a, b in pairs):
        yield "images"


def _same_image(a: Image, b: Image) -> bool:
    """Whether two images are one: named alike, or of the same bytes where only one file holds them."""
    return a.path == b.path or _sum(a) == _sum(b)


def _sum(image: Image) -> Any:
    if image.path is not None and image.path.startswith("sha256:"):
        return image.path
    try:
        return f"sha256:{digest(image)}"
    except RowError:
        return image.path

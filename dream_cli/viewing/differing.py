"""The difference of two files of records: rows added, removed or changed, and the changes of their scores."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dream_cli.errors import RowError
from dream_cli.records.image_bytes import digest
from dream_cli.records.image_rows import to_row
from dream_cli.records.pair import Pair
from dream_cli.records.record import Image, Json, Record
from dream_cli.records.strict_json import dumps

LARGEST = 5


@dataclass(frozen=True)
class RowDigest:
    """The digest of a row: hashes of its fields, its images, and its score (the mean over its responses, otherwise the margin)."""

    fields: dict[str, bytes]
    images: tuple[Image, ...]
    score: float | None


@dataclass(frozen=True)
class RowChange:
    """One row that is in both files and differs; a score is None where the row has none."""

    id: str
    fields: tuple[str, ...]
    before: float | None
    after: float | None

    @property
    def shift(self) -> float:
        """The change of the score; 0 where one of the two is unknown."""
        return 0.0 if self.before is None or self.after is None else round(self.after - self.before, 6)


@dataclass(frozen=True)
class Difference:
    """The difference of two files; the means are over the `scored` rows, which have a score in both."""

    before: int
    after: int
    added: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[RowChange, ...]
    same: int
    scored: int
    mean_before: float | None
    mean_after: float | None

    def to_dict(self) -> Json:
        """Return the difference as JSON."""
        return asdict(self)

    def fields(self) -> list[tuple[str, int]]:
        """Return the number of changed rows per field, the most frequent first."""
        return Counter(name for change in self.changed for name in change.fields).most_common()

    def largest(self) -> list[RowChange]:
        """Return the rows with the largest change of score."""
        moved = [change for change in self.changed if change.shift]
        return sorted(moved, key=lambda change: -abs(change.shift))[:LARGEST]


def difference(before: Iterable[Record], after: Iterable[Record]) -> Difference:
    """Compare two files row by row, matched by id, otherwise by prompt and images; rows with the same name are matched in order.

    Only digests of the first file are held in memory.
    """
    old = {key: digest_of(record) for key, record in with_unique_names(before)}
    rows, added, changed = 0, [], []
    same, scores = 0, []
    left = dict(old)
    for key, record in with_unique_names(after):
        rows += 1
        was, now = left.pop(key, None), digest_of(record)
        if was is None:
            added.append(key)
            continue
        if was.score is not None and now.score is not None:
            scores.append((was.score, now.score))
        fields = tuple(_changed(was, now))
        if fields:
            changed.append(RowChange(key, fields, was.score, now.score))
        else:
            same += 1
    mean_before, mean_after = (round(sum(side) / len(scores), 6) for side in zip(*scores, strict=True)) if scores else (None, None)
    return Difference(
        before=len(old),
        after=rows,
        added=tuple(added),
        gone=tuple(left),
        changed=tuple(changed),
        same=same,
        scored=len(scores),
        mean_before=mean_before,
        mean_after=mean_after,
    )


def with_unique_names(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """Yield each record with a unique name: its id, otherwise a hash; the second record of a name is `NAME (2)`."""
    seen = Counter[str]()
    for record in records:
        name = record.id or str(record.extra.get("id") or "")
        if not name:
            row = to_row(record, None)
            identity = {part: row.get(part) for part in ("prompt", "messages", "images", "error")}
            name = hashlib.sha256(dumps(identity)).hexdigest()[:16]
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name} ({seen[name]})"), record


def digest_of(record: Record) -> RowDigest:
    """Return the digest of a row; images and prompt are compared whatever their column is called."""
    record = record.renamed()
    row = {name: value for name, value in record.to_dict().items() if name != "images"}
    scores = [
        response.judgement.score
        for turn in (record.turns() if record.error is None else ())
        for response in turn.responses
        if response.judgement is not None and response.judgement.score is not None
    ]
    pair = Pair.if_readable(record)
    score = round(sum(scores) / len(scores), 6) if scores else None if pair is None or pair.margin is None else float(pair.margin)
    # The bytes of an image are replaced by their digest to save memory.
    images = tuple(
        image if image.data is None else Image(path=f"sha256:{hashlib.sha256(image.data).hexdigest()}") for image in record.images
    )
    return RowDigest({name: hashlib.sha256(dumps(value)).digest()[:8] for name, value in row.items()}, images, score)


def _changed(before: RowDigest, after: RowDigest) -> Iterator[str]:
    names = [*after.fields, *(name for name in before.fields if name not in after.fields)]
    yield from (name for name in names if before.fields.get(name) != after.fields.get(name))
    # Images are equal if their paths are equal, or, where only one of the files embeds them, if their bytes are.
    pairs = zip(before.images, after.images, strict=False)
    if len(before.images) != len(after.images) or not all(a.path == b.path or _checksum(a) == _checksum(b) for a, b in pairs):
        yield "images"


def _checksum(image: Image) -> Any:
    if image.path is not None and image.path.startswith("sha256:"):
        return image.path
    try:
        return f"sha256:{digest(image)}"
    except RowError:
        return image.path

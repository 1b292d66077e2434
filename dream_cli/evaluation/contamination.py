"""Find benchmark items in training data: the same image, an image that looks the same, or the same words.

A typographic benchmark holds images that differ only in a few letters, so a perceptual hash alone would cry wolf: it picks the
candidates, and a look at the pictures decides. Of the 100 images of SafeBench-Tiny and FigStep-Benign, copies that were recompressed
(JPEG 60), scaled (to 1/2 and to 200 pixels) or made grey correlate with their originals at 0.9997 and more, and no two different
images at more than 0.952. A copy that was cropped or framed by 2 % is not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import correlation

from dream_cli.benchmarks.registry import get
from dream_cli.errors import ImageError
from dream_cli.records.images import digest, open_rgb
from dream_cli.records.record import Image, Json, Record

SIDE = 64  # of the small grey picture that is looked at
HASHED = 16  # brightness steps a row and a column of the hash: 256 bits
MOST_BITS = 24  # that may differ between candidates
LEAST_CORRELATION = 0.99
FLAT = 4  # a picture whose grey levels span no more has nothing to compare


@dataclass(frozen=True)
class Look:
    """What a picture looks like: its difference hash (256 bits), and itself, small and grey. None of it where it is one flat colour."""

    bits: int
    grey: bytes

    @classmethod
    def of(cls, image: Image) -> Look | None:
        """Look at an image; None for a flat one. Raises ImageError."""
        from PIL import Image as Pillow

        picture = open_rgb(image).convert("L")
        grey = picture.resize((SIDE, SIDE), Pillow.Resampling.LANCZOS).tobytes()
        if max(grey) - min(grey) <= FLAT:
            return None
        small = picture.resize((HASHED + 1, HASHED), Pillow.Resampling.LANCZOS).tobytes()
        rows = [small[i : i + HASHED + 1] for i in range(0, len(small), HASHED + 1)]
        falls = [left > right for row in rows for left, right in pairwise(row)]
        return cls(sum(fall << i for i, fall in enumerate(falls)), grey)

    def likeness(self, other: Look) -> float:
        """Return how far two pictures correlate, 0 where already their hashes are far apart."""
        return correlation(self.grey, other.grey) if (self.bits ^ other.bits).bit_count() <= MOST_BITS else 0.0


@dataclass(frozen=True)
class Leak:
    """One item of a benchmark that stands in a row of the training data."""

    row: Record
    item: Record
    kind: str  # image, near-image or prompt
    likeness: float = 1.0

    def to_dict(self) -> Json:
        """Return the leak as JSON; the words are not repeated, they may be harmful."""
        return {
            "place": self.row.place,
            "id": self.row.id,
            "leak": self.kind,
            "item": self.item.id,
            "benchmark": _name(self.item),
            "likeness": round(self.likeness, 3),
        }

    def __str__(self) -> str:
        shared = {"image": "has the image of", "near-image": "has an image that looks like that of", "prompt": "has the prompt of"}
        return f"{self.row.place}: {shared[self.kind]} {self.item.id}"


@dataclass
class Unseen:
    """What could not be compared, so that no one takes silence for the absence of leaks."""

    rows: int = 0
    images: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        """Whether there is anything that could not be compared."""
        return bool(self.rows or self.images)

    def report(self) -> list[str]:
        """Return it in words, one line each."""
        lines = [f"{n} images of the {side} could not be opened and were not compared" for side, n in self.images.items()]
        return lines + (
            [f"{self.rows} rows could not be read and were not compared; other formats are read by dream convert"] if self.rows else []
        )


class Items:
    """The items of one or more benchmarks, ready to be looked for."""

    def __init__(self, items: Iterable[Record], unseen: Unseen) -> None:
        self.unseen = unseen
        self.by_digest: dict[str, list[Record]] = defaultdict(list)
        self.looks: list[tuple[Look, Record]] = []
        prompts: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for item in items:
            if item.error is not None:
                unseen.rows += 1
                continue
            for known, look in self._seen(item, "benchmark"):
                self.by_digest[known].append(item)
                self.looks += [(look, item)] if look else []
            for turn in item.turns():
                prompts[_name(item), normalised(turn.prompt)].append(item)
        # Words that stand in several items are the frame of a benchmark ("The image shows a list numbered 1, 2 and 3 ..."), not an item.
        self.by_prompt: dict[str, list[Record]] = defaultdict(list)
        for (_, words), holders in prompts.items():
            if words and len({item.id for item in holders}) == 1:
                self.by_prompt[words].append(holders[0])

    def in_row(self, row: Record) -> Iterator[Leak]:
        """Return the items that stand in one row of training data, each once for the images and once for the words."""
        if row.error is not None:
            self.unseen.rows += 1
            return
        found: dict[str | None, Leak] = {}
        for known, look in self._seen(row, "training data"):
            same = [Leak(row, item, "image") for item in self.by_digest.get(known, ())]
            for leak in same or self._alike(row, look):
                found.setdefault(leak.item.id, leak)
        yield from found.values()
        words = {normalised(turn.prompt) for turn in row.turns()}
        yield from (Leak(row, item, "prompt") for said in sorted(words) for item in self.by_prompt.get(said, ()))

    def _alike(self, row: Record, look: Look | None) -> Iterator[Leak]:
        for other, item in self.looks if look else ():
            likeness = look.likeness(other) if look else 0.0
            if likeness >= LEAST_CORRELATION:
                yield Leak(row, item, "near-image", likeness)

    def _seen(self, record: Record, side: str) -> Iterator[tuple[str, Look | None]]:
        for image in record.images:
            try:
                yield digest(image), Look.of(image)
            except ImageError:
                self.unseen.images[side] += 1


def leaks(train: Iterable[Record], items: Iterable[Record], unseen: Unseen) -> Iterator[Leak]:
    """Return the benchmark items that stand in training data, row by row; what can't be compared is counted in `unseen`."""
    known = Items(items, unseen)
    for row in train:
        yield from known.in_row(row)


def in_distribution(items: Iterable[Record]) -> list[str]:
    """Return a line for each benchmark that is made from the sources of common training sets: without any leak it is no foreign ground."""
    known = [get(name) for name in dict.fromkeys(map(_name, items)) if name]
    return [f"{b.title} is in-distribution: made from the sources that DREAM and VLGuard train on" for b in known if b.in_distribution]


def normalised(text: str) -> str:
    """Return the words of a text as they are compared: without case, punctuation, spacing and image marks."""
    plain = unicodedata.normalize("NFKC", text.replace("<image>", " ")).casefold()
    return " ".join(re.findall(r"\w+", plain))


def _name(item: Record) -> str:
    benchmark = item.extra.get("benchmark")
    return str(benchmark.get("name", "")) if isinstance(benchmark, dict) else ""

"""The search for benchmark items in training data: the same image, a near-identical image, or the same text.

The images of a typographic benchmark differ only in a few letters, so a perceptual hash alone would report different images as equal.
Here it only selects candidates, and the correlation of the images decides. Of the 100 images of SafeBench-Tiny and FigStep-Benign,
copies that were recompressed (JPEG 60), scaled (to 1/2 and to 200 pixels) or converted to grey have a correlation of at least 0.9997 with
their originals; different images have at most 0.952. A copy that was cropped or framed by 2 % is not recognised.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import correlation

from dream_cli.benchmarks.benchmark import Item
from dream_cli.benchmarks.registry import get
from dream_cli.errors import ImageError
from dream_cli.records.image_bytes import digest
from dream_cli.records.images import open_rgb
from dream_cli.records.record import Image, Json, Record
from dream_cli.records.visible import amount

SIDE = 64  # pixels per side of the small grey image for the correlation
HASHED = 16  # brightness steps per row and column of the hash: 256 bits
MOST_BITS = 24  # the maximum number of different bits between the hashes of candidates
LEAST_CORRELATION = 0.99
FLAT = 4  # an image with at most this range of grey levels is flat: its correlation is noise or undefined


@dataclass(frozen=True)
class Thumbnail:
    """An image reduced for comparison: its difference hash (256 bits), and its grey levels at SIDE x SIDE pixels."""

    bits: int
    grey: bytes

    @classmethod
    def of(cls, image: Image) -> Thumbnail | None:
        """Return the thumbnail of an image, None for a flat one. Raises ImageError."""
        from PIL import Image as Pillow

        picture = open_rgb(image).convert("L")
        grey = picture.resize((SIDE, SIDE), Pillow.Resampling.LANCZOS).tobytes()
        if max(grey) - min(grey) <= FLAT:
            return None
        small = picture.resize((HASHED + 1, HASHED), Pillow.Resampling.LANCZOS).tobytes()
        rows = [small[i : i + HASHED + 1] for i in range(0, len(small), HASHED + 1)]
        falls = [left > right for row in rows for left, right in pairwise(row)]
        return cls(sum(fall << i for i, fall in enumerate(falls)), grey)

    def likeness(self, other: Thumbnail) -> float:
        """Return the correlation of two images, 0 if their hashes differ in more than MOST_BITS bits."""
        return correlation(self.grey, other.grey) if (self.bits ^ other.bits).bit_count() <= MOST_BITS else 0.0


@dataclass(frozen=True)
class Leak:
    """One item of a benchmark in a row of the training data."""

    row: Record
    item: Record
    kind: str  # image, near-image or prompt
    likeness: float = 1.0

    def to_dict(self) -> Json:
        """Return the leak as JSON, without the text, which may be harmful."""
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
class NotCompared:
    """The rows and images that could not be compared: without their report, an empty result would look like no leaks."""

    rows: int = 0
    images: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        """Whether a row or an image could not be compared."""
        return bool(self.rows or self.images)

    def report(self) -> list[str]:
        """Return one line for each count."""
        lines = [
            f"{amount(n, 'image')} of the {side} could not be opened and {'was' if n == 1 else 'were'} not compared"
            for side, n in self.images.items()
        ]
        if self.rows:
            lines.append(
                f"{amount(self.rows, 'row')} could not be read and {'was' if self.rows == 1 else 'were'} not compared; dream convert reads other formats"
            )
        return lines


class ItemIndex:
    """The items of one or more benchmarks, indexed by image and by prompt."""

    def __init__(self, items: Iterable[Record], not_compared: NotCompared) -> None:
        self.not_compared = not_compared
        self.by_digest: dict[str, list[Record]] = defaultdict(list)
        self.thumbnails: list[tuple[Thumbnail, Record]] = []
        prompts: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for item in items:
            if item.error is not None:
                not_compared.rows += 1
                continue
            for key, thumbnail in self._images(item, "benchmark"):
                self.by_digest[key].append(item)
                self.thumbnails += [(thumbnail, item)] if thumbnail else []
            for turn in item.turns():
                prompts[_name(item), normalised(turn.prompt)].append(item)
        # A prompt of several items is the template of a benchmark ("The image shows a list numbered 1, 2 and 3 ..."), not an item.
        self.by_prompt: dict[str, list[Record]] = defaultdict(list)
        for (_, words), holders in prompts.items():
            if words and len({item.id for item in holders}) == 1:
                self.by_prompt[words].append(holders[0])

    def in_row(self, row: Record) -> Iterator[Leak]:
        """Yield the items in one row of training data, each at most once for its images and once for its prompt."""
        if row.error is not None:
            self.not_compared.rows += 1
            return
        by_item: dict[str | None, Leak] = {}
        for key, thumbnail in self._images(row, "training data"):
            leaks_of_image = [Leak(row, item, "image") for item in self.by_digest.get(key, ())]
            if not leaks_of_image and thumbnail is not None:
                scored = ((item, thumbnail.likeness(other)) for other, item in self.thumbnails)
                leaks_of_image = [Leak(row, item, "near-image", value) for item, value in scored if value >= LEAST_CORRELATION]
            for leak in leaks_of_image:
                by_item.setdefault(leak.item.id, leak)
        yield from by_item.values()
        prompts = {normalised(turn.prompt) for turn in row.turns()}
        yield from (Leak(row, item, "prompt") for words in sorted(prompts) for item in self.by_prompt.get(words, ()))

    def _images(self, record: Record, side: str) -> Iterator[tuple[str, Thumbnail | None]]:
        """Yield the digest and the thumbnail of each image that can be opened; count the others."""
        for image in record.images:
            try:
                yield digest(image), Thumbnail.of(image)
            except ImageError:
                self.not_compared.images[side] += 1


def leaks(train: Iterable[Record], items: Iterable[Record], not_compared: NotCompared) -> Iterator[Leak]:
    """Yield the benchmark items in training data, row by row; what cannot be compared is counted in `not_compared`."""
    index = ItemIndex(items, not_compared)
    for row in train:
        yield from index.in_row(row)


def in_distribution(items: Iterable[Record]) -> list[str]:
    """Return a line for each benchmark made from the sources of common training sets: it is in-distribution even without a leak."""
    benchmarks = [get(name) for name in dict.fromkeys(map(_name, items)) if name]
    return [f"{b.title} is in-distribution: made from the sources that DREAM and VLGuard train on" for b in benchmarks if b.in_distribution]


def normalised(text: str) -> str:
    """Return a text normalised for comparison: without case, punctuation, spacing and image placeholders."""
    plain = unicodedata.normalize("NFKC", text.replace("<image>", " ")).casefold()
    return " ".join(re.findall(r"\w+", plain))


def _name(item: Record) -> str:
    annotation = Item.find(item)
    return annotation.name if annotation else ""

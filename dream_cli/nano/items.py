"""Items of nano's world as records with their ground truth: `python -m dream_cli.nano.items --split held-out --out DIR`."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from random import Random

from dream_cli.nano.lexicon import ALARMING
from dream_cli.nano.pictures import Picture, draw
from dream_cli.nano.world import PLACES, SKILLS, SPLITS, WorldItem, item
from dream_cli.records.record import Image, Record

COUNT = 1200
# Items of each place per cycle, risky and harmless (skills are always harmless).
MIXES: dict[str, dict[str, tuple[int, int]]] = {
    # For measuring: equal halves, and enough items of the skills to show a loss of two points.
    "even": {"text": (3, 3), "words": (4, 4), "sign": (1, 1), "pair": (3, 3), "both": (3, 3), "read": (5, 5), "name": (1, 1)},
    # For training: less reading and more harmless items, above all combinations, which a policy most often mistakes for risky.
    "training": {"text": (6, 6), "words": (9, 12), "sign": (1, 1), "pair": (7, 22), "both": (7, 6), "read": (4, 4), "name": (0, 1)},
    # Without the skills, which have no phrases of their own.
    "phrases": {"text": (3, 3), "words": (4, 4), "sign": (1, 1), "pair": (3, 3), "both": (3, 3)},
}
NEW_PHRASES = "new-phrases"  # the split of items whose phrases, things and frames are all of NEW; the other splits have none of them


def main() -> None:
    """Write `records.jsonl` and `images/` into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=(*SPLITS, NEW_PHRASES), default="held-out")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mix", choices=MIXES, default="even")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write(options.out, records(options.split, options.count, options.seed, options.mix))


def records(split: str = "held-out", count: int = COUNT, seed: int = 0, mix: str = "even") -> list[Record]:
    """Return `count` distinct items of a split as records with pictures, ground truth (`truth`) and the annotation of an evaluation (`benchmark`)."""
    result = []
    for number, thing in enumerate(drawn(split, count, seed, mix), start=1):
        new = "new_" if split == NEW_PHRASES else ""
        subset = new + ("skill" if thing.truth.reading else "risk" if thing.observations else "harmless")
        benchmark = {
            "name": "nano_world",
            "subset": subset,
            "topic": thing.place,
            "item": f"{new}{number:04d}",
            "expects": "safe" if thing.observations and not thing.truth.reading else "answer",
        }
        alarming = any(deed.name in ALARMING for deed in thing.truth.deeds)
        truth = thing.truth.to_dict() | {"place": thing.place, "split": thing.split, "alarming": alarming}
        extra = {"benchmark": benchmark, "truth": truth}
        result.append(
            Record(prompt=thing.prompt, images=(Image(data=png(thing.picture)),), id=f"nano-world:{new}{number:04d}", extra=extra)
        )
    return result


def drawn(split: str, count: int, seed: int, mix: str = "even") -> list[WorldItem]:
    """Draw `count` items of a split that differ in prompt or picture, the places in the proportion of one of MIXES."""
    rng = Random(f"{split}/{seed}")
    turn = [(place, half == 0) for half in (0, 1) for place, shares in MIXES[mix].items() for _ in range(shares[half])]
    items: dict[tuple[str, Picture], WorldItem] = {}
    for number in range(count):
        place, risky = turn[number % len(turn)]
        fresh = _fresh(rng, split, place=place, risky=risky and place not in SKILLS, items=items)
        items[fresh.prompt, fresh.picture] = fresh
    return list(items.values())


def _fresh(rng: Random, split: str, place: str, risky: bool, items: dict[tuple[str, Picture], WorldItem]) -> WorldItem:
    """Draw an item that is new; where a place has no more, draw from another one."""
    new = split == NEW_PHRASES
    for _ in range(200):
        thing = item(rng, None if new else split, place, risky, new=new)
        if (thing.prompt, thing.picture) not in items:
            return thing
    return _fresh(rng, split, place=rng.choice(PLACES), risky=risky, items=items)


def write(folder: Path, made: list[Record]) -> None:
    """Write records and their pictures into a folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for record in made:
        name = f"images/{str(record.id).rpartition(':')[2]}.png"
        (folder / name).write_bytes(record.images[0].data or b"")
        lines.append(json.dumps(record.to_dict() | {"images": [name]}) + "\n")
    (folder / "records.jsonl").write_text("".join(lines), "utf-8")


def png(picture: Picture) -> bytes:
    """Return the picture as a PNG file."""
    stream = io.BytesIO()
    draw(picture).save(stream, "png")
    return stream.getvalue()


if __name__ == "__main__":
    main()

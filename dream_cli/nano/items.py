"""Items of the world as records with the truth in them: `python -m dream_cli.nano.items --split held-out --out DIR`."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from random import Random

from dream_cli.nano.lexicon import ALARMING
from dream_cli.nano.pictures import Picture, draw
from dream_cli.nano.world import PLACES, SKILLS, SPLITS, Item, item
from dream_cli.records import Image, Json, Record

COUNT = 2100
# How many items of each place there are in twenty, half of them risky; skills are harmless, and as many as show a loss of two points.
_SHARES = {"text": 3, "words": 4, "sign": 1, "pair": 3, "both": 3, "read": 5, "name": 1}


def main() -> None:
    """Write `records.jsonl` and `images/` into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=SPLITS, default="held-out")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    write(told.out, records(told.split, told.count, told.seed))


def records(split: str = "held-out", count: int = COUNT, seed: int = 0) -> list[Record]:
    """Return `count` distinct items of a split as records with pictures, with `truth` and what an evaluation expects (`benchmark`)."""
    return [_record(thing, number) for number, thing in enumerate(drawn(split, count, seed), start=1)]


def drawn(split: str, count: int, seed: int) -> list[Item]:
    """Draw `count` items of a split that differ in prompt or picture, the places mixed in a fixed proportion."""
    rng = Random(f"{split}/{seed}")
    places = [place for place, share in _SHARES.items() for _ in range(share)]
    found: dict[tuple[str, Picture], Item] = {}
    for number in range(count):
        place, risky = places[number % len(places)], number // len(places) % 2 == 0
        fresh = _fresh(rng, split, place, risky and place not in SKILLS, found)
        found[fresh.prompt, fresh.picture] = fresh
    return list(found.values())


def _fresh(rng: Random, split: str, place: str, risky: bool, found: dict[tuple[str, Picture], Item]) -> Item:
    """Draw an item that is not there yet; where a place runs dry, another one takes its turn."""
    for _ in range(200):
        thing = item(rng, split, place, risky)
        if (thing.prompt, thing.picture) not in found:
            return thing
    return _fresh(rng, split, rng.choice(PLACES), risky, found)


def write(folder: Path, made: list[Record]) -> None:
    """Write records with their pictures beside them."""
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


def _record(thing: Item, number: int) -> Record:
    subset = "skill" if thing.truth.reading else "risk" if thing.observations else "harmless"
    identity = f"nano-world:{number:04d}"
    benchmark = {
        "name": "nano_world",
        "subset": subset,
        "topic": thing.place,
        "item": f"{number:04d}",
        "expects": "safe" if subset == "risk" else "answer",
    }
    return Record(
        prompt=thing.prompt, images=(Image(data=png(thing.picture)),), id=identity, extra={"benchmark": benchmark, "truth": _truth(thing)}
    )


def _truth(thing: Item) -> Json:
    alarming = any(deed.name in ALARMING for deed in thing.truth.deeds)
    return thing.truth.to_dict() | {"place": thing.place, "split": thing.split, "alarming": alarming}


if __name__ == "__main__":
    main()

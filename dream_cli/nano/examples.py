"""Make the example records with their pictures: `python -m dream_cli.nano.examples FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from dream_cli.nano.items import png
from dream_cli.nano.wordings import aware, complied
from dream_cli.nano.world import PLACES, Item, item

SEED = 3


def main() -> None:
    """Write `records.jsonl` and `images/` into the folder named on the command line."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "examples")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_record(folder, name, thing, i)) for i, (name, thing) in enumerate(_things())]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def _things() -> list[tuple[str, Item]]:
    rng = Random(SEED)
    kinds = [(place, risky, n) for place in PLACES for risky, count in ((True, 3), (False, 2)) for n in range(1, count + 1)]
    named = [(f"{place}-{'risk' if risky else 'harmless'}-{n}", place, risky) for place, risky, n in kinds]
    chosen: dict[str, Item] = {}
    for name, place, risky in named:
        thing = item(rng, "held-out", place, risky)
        while any(deed in other.truth.deeds for other in chosen.values() for deed in thing.truth.deeds):
            thing = item(rng, "held-out", place, risky)
        chosen[name] = thing
    return list(chosen.items())


def _record(folder: Path, name: str, thing: Item, index: int) -> dict[str, Any]:
    """Return the record; every third one comes with an answer, careful and careless in turn."""
    (folder / "images" / f"{name}.png").write_bytes(png(thing.picture))
    record: dict[str, Any] = {"id": name, "prompt": thing.prompt, "images": [f"images/{name}.png"]}
    if index % 3 == 0:
        careful = index % 2 == 0 and thing.observations
        record["response"] = aware(thing.truth, Random(index)) if careful else complied(thing.truth.deeds, Random(index))
    return record


if __name__ == "__main__":
    main()

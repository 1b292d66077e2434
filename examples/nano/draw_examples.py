"""The example records and their pictures: `python -m examples.nano.draw_examples FOLDER`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from dream_cli.nano.items import png
from dream_cli.nano.wordings import aware, complied
from dream_cli.nano.world import PLACES, WorldItem, item

SEED = 3
DRAWS = 50


def main() -> None:
    """Write `records.jsonl` and `images/` into the folder named on the command line."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "examples")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, chosen = Random(SEED), dict[str, WorldItem]()
    for place, risky, n in [(place, risky, n) for place in PLACES for risky, count in ((True, 3), (False, 2)) for n in range(1, count + 1)]:
        chosen[f"{place}-{'risk' if risky else 'harmless'}-{n}"] = _fresh(rng, place, risky, list(chosen.values()))
    lines = []
    for index, (name, thing) in enumerate(chosen.items()):
        (folder / "images" / f"{name}.png").write_bytes(png(thing.picture))
        record: dict[str, Any] = {"id": name, "prompt": thing.prompt, "images": [f"images/{name}.png"]}
        # Every third record has an answer, careful and careless in turn.
        if index % 3 == 0:
            careful = index % 2 == 0 and thing.observations
            record["response"] = aware(thing.truth, Random(index)) if careful else complied(thing.truth.deeds, Random(index))
        lines.append(json.dumps(record))
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def _fresh(rng: Random, place: str, risky: bool, others: list[WorldItem]) -> WorldItem:
    """Draw an item that repeats no deed; of several such items the one whose categories are the rarest so far."""
    names = {deed.name for other in others for deed in other.truth.deeds}
    counts = Counter(risk.risk_category for other in others for risk in other.observations)
    drawn = [item(rng, "held-out", place, risky) for _ in range(DRAWS)]
    fresh = [thing for thing in drawn if not names & {deed.name for deed in thing.truth.deeds}]
    return min(fresh, key=lambda thing: sum(counts[risk.risk_category] for risk in thing.observations))


if __name__ == "__main__":
    main()

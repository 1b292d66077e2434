"""Change a file as a control arm of the proof requires.    python examples/proof_arms.py ARM FILE [--seed N] -o OUT

shuffled: chosen and rejected of each pair are swapped with probability 1/2. true-observations: the observations are those of the
ground truth. fewer-observations: each observation is left out with probability 0.3.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

Row = dict[str, Any]
LEFT_OUT = 0.3


def shuffled(row: Row, rng: Random) -> Row:
    """Return the pair, with chosen and rejected swapped at random, and without the scores, which no longer apply."""
    bare = {key: value for key, value in row.items() if key not in ("margin", "chosen_score", "rejected_score")}
    return bare if rng.random() < 0.5 else bare | {"chosen": row["rejected"], "rejected": row["chosen"]}


def truly_observed(row: Row, rng: Random) -> Row:
    """Return the record with the risks of its ground truth as observations."""
    return row | {"observations": [deed["risk"] for deed in row["truth"]["deeds"] if deed["risk"]]}


def less_observed(row: Row, rng: Random) -> Row:
    """Return the record without some of its observations."""
    return row | {"observations": [risk for risk in row["observations"] if rng.random() >= LEFT_OUT]}


ARMS: Mapping[str, Callable[[Row, Random], Row]] = {
    "shuffled": shuffled,
    "true-observations": truly_observed,
    "fewer-observations": less_observed,
}


def main() -> None:
    """Write the changed rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    rng = Random(f"{options.arm}/{options.seed}")
    rows = [ARMS[options.arm](json.loads(line), rng) for line in options.file.read_text().splitlines()]
    for row in rows:
        # The output may be in another folder.
        row["images"] = [str((options.file.parent / image).resolve()) for image in row["images"]]
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()

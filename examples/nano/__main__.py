"""Make nano and nano-policy from a seed, one after the other: `python -m examples.nano --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.nano import recipe, tower
from examples.nano.parallel import in_parallel


def main() -> None:
    """Train the tower, the teacher and the policy, each in a folder of its own under `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=recipe.COURSES["teacher"].steps, help="training steps of the teacher")
    options = parser.parse_args()
    in_parallel(tower.teach, options.out / "tower", tower.STEPS, options.seed)
    for course, start, steps in (("teacher", "tower", options.steps), ("policy", "teacher", recipe.COURSES["policy"].steps)):
        in_parallel(recipe.train, course, options.out / start, options.out / course, steps, options.seed)


if __name__ == "__main__":
    main()

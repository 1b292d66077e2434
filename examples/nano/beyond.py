"""The measurement of nano beyond its world: reading pictures of lists from FigStep, and separating harmful from harmless ones.

`python -m examples.nano.beyond HARMFUL HARMLESS`, the folders of FigStep's SafeBench-Tiny and of FigStep-Benign as released:
a CSV file in each, and the picture of each row.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_cli.nano.lexicon import READ
from dream_cli.nano.pictures import Picture
from dream_cli.prompts.rendering import ONLY, Prompts
from examples.nano.figures import WEIGHTS
from examples.nano.lessons import PINNED, Lesson
from examples.nano.reader import Reader

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT = "Fill in the list."


def main() -> None:
    """Print word error rate and AUROC as JSON and keep them beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("harmful", type=Path)
    parser.add_argument("harmless", type=Path)
    parser.add_argument("--text-column", default="instruction")
    parser.add_argument("--harmless-column", default="benign_instruction")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    reader, figures, suspicion = Reader(options.weights), {}, []
    for name, folder, column in (
        ("harmful", options.harmful, options.text_column),
        ("harmless", options.harmless, options.harmless_column),
    ):
        texts, images = _load(folder, column)
        read = reader.answer([Lesson("read", READ, "", Picture("?"))] * len(images), images)
        figures[name] = {"images": len(images), "word_error_rate": error_rate([words(t) for t in texts], [words(t) for t in read])}
        # The score of an image: the probability that its list of observations is not empty.
        lessons = [Lesson("observe_image", Prompts.carried(PINNED).questions("observe_image", PROMPT)[ONLY].text, "", Picture("?"))] * len(
            images
        )
        suspicion.append([1 - row[0] for row in reader.choose(lessons, images, ("[]", '[{"malicious_content": "'))])
    figures["auroc"] = auroc(*suspicion)
    text = json.dumps(figures, indent=2) + "\n"
    (options.weights / "beyond.json").write_text(text, "utf-8")
    sys.stdout.write(text)


def words(text: str) -> list[str]:
    """Return the words, without the numbers of the list."""
    return re.findall(r"[a-z'-]+", text.lower())


def error_rate(truth: Sequence[Sequence[str]], read: Sequence[Sequence[str]]) -> float:
    """Return insertions, deletions and substitutions over the number of true words."""
    wrong = sum(_edits(true, guess) for true, guess in zip(truth, read, strict=True))
    return round(wrong / sum(map(len, truth)), 3)


def auroc(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """Return the probability that one of `above` is greater than one of `below`, ties half, with its bootstrap interval."""
    from dream_cli.stats.intervals import bootstrap

    def chance(indices: Sequence[int]) -> float:
        high = [above[i] for i in indices if i < len(above)]
        low = [below[i - len(above)] for i in indices if i >= len(above)]
        if not (high and low):
            return float("nan")
        return sum((h > x) + 0.5 * (h == x) for h in high for x in low) / (len(high) * len(low))

    every = range(len(above) + len(below))
    interval = bootstrap(len(every), chance, resamples=1000)
    return {"value": round(chance(every), 3), "interval": [round(end, 3) for end in interval]}


def _load(folder: Path, column: str) -> tuple[list[str], list[Image]]:
    import PIL.Image

    (table,) = folder.rglob("*.csv")
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    pictures = {path.name: path for path in folder.rglob("*.png")}
    # The harmless pictures are numbered like the rows, the harmful ones named after them.
    names = [(f"{i}.png", f"query_{row['dataset']}_{row['category_id']}_{row['task_id']}_6.png") for i, row in enumerate(rows)]
    files = [next(pictures[name] for name in either if name in pictures) for either in names]
    return [row[column] for row in rows], [PIL.Image.open(file).convert("RGB") for file in files]


def _edits(true: Sequence[str], guess: Sequence[str]) -> int:
    """Return the Levenshtein distance of two lists of words."""
    row = list(range(len(guess) + 1))
    for i, word in enumerate(true, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(guess, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


if __name__ == "__main__":
    main()

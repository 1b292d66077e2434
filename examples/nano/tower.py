"""The training of the vision tower on the character at each spot: `python -m examples.nano.tower --out DIR`.

From answers alone reading is learnt slowly; the renderer knows the character at each spot, which is a direct label.
"""

from __future__ import annotations

import argparse
import math
import string
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from dream_cli.nano.lexicon import SIGNS, WORDS
from dream_cli.nano.pictures import LABELS, LOOKS, SPOTS, Picture, any_look, spot_labels
from examples.nano.model import TOWER, build_tower, pixels
from examples.nano.parallel import average_gradients, in_parallel

# The batch is that of one process.
STEPS, BATCH, RATE = 4600, 16, 2e-3
EMPTY_SHARE = 0.1
REPORT_EVERY = 100
FILE = "tower.pt"


def main() -> None:
    """Train for the given steps and write the tower's weights to a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--begin", type=Path, help="folder of a trained tower to continue from, at half the rate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    in_parallel(teach, options.out, options.steps, options.seed, options.begin)


def teach(rank: int, out: Path, steps: int, seed: int, begin: Path | None = None) -> None:
    """Train a new tower, or continue with one, and write its weights to `out`/tower.pt."""
    import torch

    torch.manual_seed(seed)
    rng, start = Random(f"{seed}/{rank}"), time.monotonic()
    tower, head = build_tower(), torch.nn.Linear(TOWER["hidden_size"], SPOTS * LABELS)
    if begin:
        taught = torch.load(begin / FILE)
        tower.load_state_dict(taught["tower"])
        head.load_state_dict(taught["head"])
    parameters, rate = [*tower.parameters(), *head.parameters()], RATE / 2 if begin else RATE
    learner = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02)
    for step in range(steps):
        learner.param_groups[0]["lr"] = rate * min(1, (step + 1) / 60) * (0.52 + 0.48 * math.cos(math.pi * step / steps))
        pictures = [crowded(rng) for _ in range(BATCH)]
        loss, right = patch_loss(tower(pixels(pictures)).last_hidden_state[:, 1:], head, pictures)
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        learner.step()
        learner.zero_grad()
        if step % REPORT_EVERY == REPORT_EVERY - 1 and rank == 0:
            sys.stderr.write(
                f"tower {step + 1}: loss {loss.item():.3f}, {right:.3f} of the inked spots right, {time.monotonic() - start:.0f} s\n"
            )
            out.mkdir(parents=True, exist_ok=True)
            torch.save({"tower": tower.state_dict(), "head": head.state_dict()}, out / FILE)


def crowded(rng: Random) -> Picture:
    """Draw a picture with many words; half of them in the typesettings of the world."""
    look = rng.choice(LOOKS) if rng.random() < 0.5 else any_look(rng)
    if rng.random() < 0.08:
        return Picture(sign=rng.choice(list(SIGNS)), look=rng.choice(LOOKS))
    return Picture(any_words(rng, rng.randint(3, 12)), listed=rng.random() < 0.3, look=look)


def any_words(rng: Random, count: int) -> str:
    """Draw words of the world and, two in five, random letters, so that the tower learns spelling and not the words of the world."""
    drawn = []
    for _ in range(count):
        if rng.random() < 0.6:
            drawn.append(rng.choice(WORDS))
            continue
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 9)))
        word = word.capitalize() if rng.random() < 0.25 else word
        drawn.append(word + rng.choice(["", "", "", *".,:?!-'0123456789"]))
    return " ".join(drawn)


def patch_loss(seen: Any, head: Any, pictures: list[Picture]) -> tuple[Any, float]:
    """Return the loss of the labels of the spots, and the accuracy on inked spots.

    `seen` is the output of the tower for each patch, of shape (pictures, patches, width).
    """
    import torch

    truth = torch.tensor([spot_labels(p) for p in pictures]).flatten()
    logits = head(seen).reshape(-1, LABELS)
    inked = truth > 0
    right = (logits.argmax(-1) == truth)[inked].float().mean().item()
    each = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
    weight = torch.where(inked, 1.0, EMPTY_SHARE)
    return (each * weight).sum() / weight.sum(), right


if __name__ == "__main__":
    main()

"""Train nano from scratch on a CPU: `python -m dream_cli.nano.recipe --out DIR`.

First the vision tower alone learns which character lies under each patch, for a reader is slow to come about
from answers alone; then all of it learns every role together. A checkpoint is written every two minutes.
With MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=8589934592 in the environment a step is quicker.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from dream_cli.nano.lessons import ROLES, Lesson, crowded, lesson
from dream_cli.nano.pictures import LABELS, PATCH, SIDE, draw, patch_labels
from dream_cli.nano.tokens import IMAGE, SEATS, build_processor, chat
from dream_cli.nano.world import Picture
from dream_cli.prompts.rendering import Prompts

WIDTH, LAYERS, HEADS = 160, 4, 4
STEPS, BATCH, RATE = 4500, 32, 1.4e-3
TOWER_STEPS, TOWER_BATCH, TOWER_RATE = 400, 32, 2e-3
# The share of the patch loss once everything is taught, and of the empty patches in it.
PATCH_SHARE, EMPTY_SHARE = 0.5, 0.1
CHECKPOINT_SECONDS = 120
# Reading comes first and gives way; the order is that of ROLES.
EARLY = (30, 16, 6, 12, 8, 5, 4, 5, 4, 2, 3)
LATE = (8, 20, 6, 18, 16, 8, 4, 7, 7, 3, 6)
# A verdict is one token among answers of many; it must not drown.
VERDICT_WEIGHT = 4.0


def main() -> None:
    """Train for the given steps and leave model, processor and the hash of the prompts in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="of all together, after those of the tower")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="go on from a checkpoint, whose tower has been taught")
    told = parser.parse_args()
    Trainer(Prompts.load(), told.out, told.seed, told.resume).train(told.steps)


class Trainer:
    """The model in the making, its lessons and where it is written."""

    def __init__(self, prompts: Prompts, out: Path, seed: int, resume: Path | None = None) -> None:
        import torch

        torch.manual_seed(seed)
        self.prompts, self.out, self.rng = prompts, out, Random(seed)
        self.processor = build_processor(prompts, self._corpus())
        self.tokenizer = self.processor.tokenizer
        self.seat = self.tokenizer.convert_tokens_to_ids(IMAGE)
        self.model = self._untrained()
        self.resumed = resume is not None
        if resume is not None:
            self.model = type(self.model).from_pretrained(resume, dtype=torch.float32)
        self.head = torch.nn.Linear(WIDTH, LABELS)
        self.seen: Any = None
        self.right = 0.0
        self.model.model.vision_tower.register_forward_hook(self._look)
        self.waiting: dict[bool, list[Lesson]] = {True: [], False: []}
        size = sum(p.numel() for p in self.model.parameters()) / 1e6
        _say(f"{size:.2f} M parameters, {len(self.tokenizer)} tokens")

    def train(self, steps: int) -> None:
        """Teach the tower, then everything."""
        import torch

        start = saved = time.monotonic()
        if not self.resumed:
            self._teach_tower()
        learner = torch.optim.AdamW([*self.model.parameters(), *self.head.parameters()], lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
        self.model.train()
        for step in range(steps):
            done = step / steps
            _set_rate(learner, RATE * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * done)))
            loss = self._loss(self._next_batch(done))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            learner.step()
            learner.zero_grad()
            if step % 50 == 49:
                _say(f"step {step + 1}: loss {loss.item():.4f}, patches {self.right:.3f}, {time.monotonic() - start:.0f} s")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the checkpoint in bfloat16; the training goes on in full precision."""
        import torch

        self.processor.save_pretrained(self.out)
        # A fresh model, for this one carries a hook and with it the graph of the last step.
        copied = self._untrained()
        copied.load_state_dict(self.model.state_dict())
        copied.to(torch.bfloat16).save_pretrained(self.out)
        (self.out / "dream_prompts.json").write_text(json.dumps({"sha256": self.prompts.sha256}) + "\n", "utf-8")

    def _untrained(self) -> Any:
        return build_model(len(self.tokenizer), self.seat, self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)

    def _corpus(self) -> list[str]:
        rng = Random(0)
        drawn = [lesson(self.prompts, rng, role) for role in ROLES for _ in range(400)]
        fixed = {part for role in self.prompts.templates for part in self.prompts.fixed_parts(role) if len(part) > 1}
        # The fixed parts are tokens of their own; the merges are left to the rest.
        texts = [text for one in drawn for text in (one.prompt, one.answer)]
        for part in sorted(fixed, key=len, reverse=True):
            texts = [text.replace(part, "\n") for text in texts]
        return texts

    def _next_batch(self, done: float) -> list[Lesson]:
        share = [early + (late - early) * min(1.0, 2 * done) for early, late in zip(EARLY, LATE, strict=True)]
        while True:
            for lessons in self.waiting.values():
                if len(lessons) >= BATCH:
                    batch, lessons[:] = lessons[:BATCH], lessons[BATCH:]
                    return batch
            drawn = lesson(self.prompts, self.rng, self.rng.choices(ROLES, share)[0])
            self.waiting[drawn.picture is not None].append(drawn)

    def _loss(self, lessons: list[Lesson]) -> Any:
        import torch

        ids, labels, weights = self._rows(lessons)
        pictures = [one.picture for one in lessons if one.picture is not None]
        given = {"pixel_values": torch.stack([pixels(p) for p in pictures])} if pictures else {}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mask = (ids != self.tokenizer.pad_token_id).long()
            hidden = self.model.model(input_ids=ids, attention_mask=mask, use_cache=False, **given).last_hidden_state[:, :-1]
            taught = labels[:, 1:] >= 0
            logits = self.model.lm_head(hidden[taught])
        each = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][taught], reduction="none")
        weight = weights[:, 1:][taught]
        told = (each * weight).sum() / weight.sum()
        return told + PATCH_SHARE * self._patch_loss(pictures) if pictures else told

    def _look(self, tower: Any, given: Any, seen: Any) -> None:
        self.seen = seen.last_hidden_state[:, 1:]

    def _patch_loss(self, pictures: list[Picture]) -> Any:
        """Return the loss of naming what lies under each patch of the pictures that the tower saw last."""
        import torch

        truth = torch.tensor([patch_labels(p) for p in pictures]).flatten()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.head(self.seen).float().flatten(0, 1)
        self.right = (logits.argmax(-1) == truth)[truth > 0].float().mean().item()
        each = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
        weight = torch.where(truth > 0, 1.0, EMPTY_SHARE)
        return (each * weight).sum() / weight.sum()

    def _rows(self, lessons: list[Lesson]) -> tuple[Any, Any, Any]:
        import torch

        asked = self.tokenizer([chat(one.prompt, one.picture is not None) for one in lessons])["input_ids"]
        answered = self.tokenizer([one.answer for one in lessons])["input_ids"]
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        ids, labels, weights = [], [], []
        for question, answer in zip(asked, answered, strict=True):
            full = [seat for token in question for seat in ([token] * SEATS if token == self.seat else [token])]
            ids.append([*full, *answer, end])
            labels.append([-100] * len(full) + [*answer, end])
            weights.append([VERDICT_WEIGHT if len(answer) == 1 else 1.0] * len(ids[-1]))
        longest = max(map(len, ids))
        filled = ((ids, pad), (labels, -100), (weights, 0.0))
        return tuple(torch.tensor([row + [blank] * (longest - len(row)) for row in rows]) for rows, blank in filled)

    def _teach_tower(self) -> None:
        import torch

        tower = self.model.model.vision_tower
        learner = torch.optim.AdamW([*tower.parameters(), *self.head.parameters()], lr=TOWER_RATE, weight_decay=0.02)
        for step in range(TOWER_STEPS):
            _set_rate(learner, TOWER_RATE * min(1, (step + 1) / 40) * (1 - 0.7 * step / TOWER_STEPS))
            pictures = [crowded(self.rng) for _ in range(TOWER_BATCH)]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                tower(torch.stack([pixels(p) for p in pictures]))
            self._patch_loss(pictures).backward()
            learner.step()
            learner.zero_grad()
            if step % 50 == 49:
                _say(f"tower {step + 1}: {self.right:.3f} of the inked patches right")


def build_model(vocabulary: int, seat: int, pad: int, end: int) -> Any:
    """Return an untrained LLaVA of nano's size."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    shape = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    vision = CLIPVisionConfig(**shape, image_size=SIDE, patch_size=PATCH)
    special = {"pad_token_id": pad, "bos_token_id": None, "eos_token_id": end, "tie_word_embeddings": True}
    text = LlamaConfig(**shape, num_key_value_heads=2, vocab_size=vocabulary, max_position_embeddings=2048, **special)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=seat,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=SEATS,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, pad
    return model


@lru_cache(maxsize=2048)
def pixels(picture: Picture) -> Any:
    """Return the picture as the image processor would hand it on: channels first, from -1 to 1."""
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(draw(picture), dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)


def _set_rate(learner: Any, rate: float) -> None:
    for group in learner.param_groups:
        group["lr"] = rate


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")


if __name__ == "__main__":
    main()

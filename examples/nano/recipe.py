"""The training of nano from scratch on a CPU: `python -m examples.nano.recipe teacher --begin TOWER --out DIR`.

The vision tower comes from `examples.nano.tower` and stays frozen; here the rest learns all roles together.
The policy starts from the teacher: `python -m examples.nano.recipe policy --begin TEACHER --out DIR`.
A checkpoint with the optimizer's state is written every few minutes, and a run that is started again continues from it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from dream_cli.engines.checkpoint import PROMPTS_FILE, PROMPTS_FOLDER, WORLD_FILE
from dream_cli.nano.lexicon import READ, WORDS
from dream_cli.nano.pictures import LOOKS, Picture, any_look, fits
from dream_cli.nano.world import PLACES, SKILLS, WorldItem, item
from dream_cli.prompts.rendering import Prompts
from examples.nano import tower
from examples.nano.lessons import PINNED, Lesson, Teacher, able
from examples.nano.model import build_model, pixels
from examples.nano.packing import Packer
from examples.nano.parallel import average_gradients, in_parallel
from examples.nano.tokens import IMAGE, build_processor, load_processor, whole_parts
from examples.nano.tower import any_words

WARMUP = 100
# In one process and step: packs with a picture and packs without, and the lessons in each.
PICTURED, PICTURED_LESSONS, PLAIN, PLAIN_LESSONS, LOOSE = 12, 6, 3, 8, 4
LOOSE_PICTURES = 4000
# The share of items with words in the picture that get a typesetting from outside the world.
STRANGE_SHARE = 0.1
ONE_ANSWER_ROLES = ("read", "observe_image", "observe_joint", "observe_text")
CHECKPOINT_STEPS = 200
STATE = "state.pt"
KEPT_PICTURES = 20_000


@dataclass(frozen=True)
class Course:
    """The training plan of a model: the weight of each role at the beginning and from the middle on, with a picture and without.

    `begins`: the training starts from another model's weights instead of random ones.
    """

    steps: int
    rate: float
    pictured: Mapping[str, tuple[float, float]]
    plain: Mapping[str, float]
    begins: bool = False


COURSES = {
    # Reading comes first, then the other roles. Without a picture: the risks of the text, and the judge, who has to read the answer.
    "teacher": Course(
        steps=6000,
        rate=1.5e-3,
        pictured={
            "read": (36, 4),
            "observe_image": (16, 36),
            "observe_joint": (10, 16),
            "verify": (12, 80),
            "answer": (4, 3),
            "respond_observed": (4, 4),
            "judge_global": (6, 12),
            "judge_observation": (6, 10),
            "judge_helpfulness": (4, 10),
            "judge_harm": (4, 10),
            "judge_effective": (3, 8),
            "judge_refusal": (3, 4),
        },
        plain={"observe_text": 10, "judge_observation": 3, "judge_global": 3, "respond_observed": 1, "judge_refusal": 1},
    ),
    # The policy before alignment: it complies and names no risk, unless the prompt lists the risks.
    "policy": Course(
        steps=150,
        rate=5e-4,
        pictured={"comply": (6, 6), "follow_observed": (4, 4), "read": (2, 2)},
        plain={"follow_observed": 1},
        begins=True,
    ),
}
# The weights of PLACES and SKILLS, at the beginning and from the middle on: pairs are learnt last.
PLACE_WEIGHTS = ((20, 10), (28, 24), (14, 6), (22, 46), (24, 20), (3, 2), (2, 2))
RISKY_SHARE = 0.58


def taught(course: Course) -> list[str]:
    """Return the roles with a prompt that a course teaches."""
    lessons = {"follow_observed": "respond_observed"}
    roles = {lessons.get(role, role) for role in (*course.pictured, *course.plain)}
    return sorted(roles - {"read", "answer", "comply"})


def main() -> None:
    """Train for the given steps and write model, processor and prompts to a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("course", choices=COURSES)
    parser.add_argument("--steps", type=int, help="default: those of the course")
    parser.add_argument("--begin", type=Path, required=True, help="folder of the trained tower, or of the model to continue from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    in_parallel(train, options.course, options.begin, options.out, options.steps or COURSES[options.course].steps, options.seed)


def train(rank: int, course: str, begin: Path, out: Path, steps: int, seed: int) -> None:
    """Train a model in this process and the others; the first one writes."""
    Trainer(rank, COURSES[course], Prompts.carried(PINNED), begin, out, seed).train(steps)


class Trainer:
    """The training of one model in one process."""

    def __init__(self, rank: int, course: Course, prompts: Prompts, begin: Path, out: Path, seed: int) -> None:
        import torch
        from transformers import AttentionInterface

        torch.manual_seed(seed)
        self.rank, self.course, self.prompts, self.out, self.seed = rank, course, prompts, out, seed
        # A run that continues, from its own state or another model, keeps the tokens.
        known = next((folder for folder in (out, begin) if (folder / "tokenizer.json").exists()), None)
        self.processor = load_processor(known) if known else build_processor(prompts, corpus(prompts))
        tokenizer = self.processor.tokenizer
        self.seat, self.packer = tokenizer.convert_tokens_to_ids(IMAGE), Packer(tokenizer)
        self.model = build_model(len(tokenizer), self.seat, tokenizer.pad_token_id, tokenizer.eos_token_id)
        self.tower = self.model.model.vision_tower
        if course.begins:
            self.model = type(self.model).from_pretrained(begin, dtype=torch.float32)
            self.tower = self.model.model.vision_tower
        else:
            self.tower.load_state_dict(torch.load(begin / tower.FILE)["tower"])
        self.tower.requires_grad_(requires_grad=False)
        AttentionInterface.register("float32", attend_in_float32)
        self.model.model.language_model.set_attn_implementation("float32")
        self.learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.learner = torch.optim.AdamW(self.learnt, lr=course.rate, weight_decay=0.05, betas=(0.9, 0.98))
        self.seen: dict[Picture, Any] = {}
        self.rng = Random(f"{seed}/{rank}")
        self._log(f"{sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M parameters, {len(tokenizer)} tokens")

    def train(self, steps: int) -> None:
        """Train until `steps` are done, including those of an earlier run."""
        import torch

        start, first = time.monotonic(), 0
        if (self.out / STATE).exists():
            state = torch.load(self.out / STATE)
            self.model.load_state_dict(state["model"])
            self.learner.load_state_dict(state["learner"])
            first = state["step"]
            # Not the state of the old generator: a new seed per start, so that no lesson is drawn twice.
            self.rng = Random(f"{self.seed}/{self.rank}/{first}")
        self.model.train()
        for step in range(first, steps):
            for group in self.learner.param_groups:
                group["lr"] = self.course.rate * min((step + 1) / WARMUP, 1 - 0.95 * step / steps)
            packs = draw_packs(Teacher(self.prompts, self.rng), self.course, step / steps)
            losses, weights = zip(*map(self._weighted_loss, packs), strict=True)
            loss = sum(losses) / sum(weights)
            loss.backward()
            average_gradients(self.learnt)
            torch.nn.utils.clip_grad_norm_(self.learnt, 1.0)
            self.learner.step()
            self.learner.zero_grad()
            if step % 25 == 24:
                self._log(f"step {step + 1}: loss {loss.item():.4f}, {time.monotonic() - start:.0f} s")
            if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
                self.save(step + 1)

    def save(self, step: int) -> None:
        """Write the model in bfloat16, and the full state to continue from; only the first process writes."""
        import torch

        if self.rank:
            return
        self.processor.save_pretrained(self.out)
        state = {name: value.to(torch.bfloat16) for name, value in self.model.state_dict().items()}
        self.model.save_pretrained(self.out, state_dict=state)
        shutil.copytree(PINNED, self.out / PROMPTS_FOLDER, dirs_exist_ok=True)
        hashes = {role: self.prompts.hashes[role] for role in taught(self.course)}
        (self.out / PROMPTS_FILE).write_text(json.dumps({"roles": hashes}, indent=2) + "\n", "utf-8")
        (self.out / WORLD_FILE).write_text(json.dumps({"name": "nano"}) + "\n", "utf-8")
        torch.save({"step": step, "model": self.model.state_dict(), "learner": self.learner.state_dict()}, self.out / "state.tmp")
        (self.out / "state.tmp").rename(self.out / STATE)

    def _weighted_loss(self, packs: Sequence[Sequence[Lesson]]) -> tuple[Any, Any]:
        """Return the weighted sum of the losses of these packs' answers, and the weight."""
        import torch

        batch, inner = self.packer.batch(packs), self.model.model
        embedded = inner.get_input_embeddings()(batch.ids)
        pictures = [pack[0].picture for pack in packs if pack[0].picture]
        if pictures:
            seen = inner.multi_modal_projector(self._features(pictures)).flatten(0, 1)
            embedded = embedded.masked_scatter((batch.ids == self.seat)[..., None], seen)
        taught = batch.labels[:, 1:] >= 0
        with torch.autocast("cpu", torch.bfloat16):
            hidden = inner.language_model(
                inputs_embeds=embedded, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
            ).last_hidden_state[:, :-1]
            logits = self.model.lm_head(hidden[taught])
        each = torch.nn.functional.cross_entropy(logits.float(), batch.labels[:, 1:][taught], reduction="none")
        weight = batch.weights[:, 1:][taught]
        return (each * weight).sum(), weight.sum()

    def _features(self, pictures: Sequence[Picture]) -> Any:
        """Return the tower's output for the pictures, (pictures, patches, width); each picture is encoded once."""
        import torch

        new = list(dict.fromkeys(p for p in pictures if p not in self.seen))
        if new:
            with torch.no_grad():
                encoded = self.tower(pixels(new)).last_hidden_state[:, 1:].to(torch.bfloat16)
            self.seen.update(zip(new, encoded, strict=True))
        features = torch.stack([self.seen[p] for p in pictures]).float()
        for old in list(self.seen)[: max(0, len(self.seen) - KEPT_PICTURES)]:
            del self.seen[old]
        return features

    def _log(self, message: str) -> None:
        if self.rank == 0:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()


def attend_in_float32(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
    """Attend outside of autocast: on a CPU the backward pass of attention is slower in bfloat16, where everything else is faster."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with torch.autocast("cpu", enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **rest)


def draw_packs(teacher: Teacher, course: Course, done: float) -> tuple[list[list[Lesson]], ...]:
    """Return the packs of one step in groups of like length: with pictures, for reading alone, and without pictures.

    `done` is the completed share of the training.
    """
    mixture = {role: _between(weights, done) for role, weights in course.pictured.items()}
    pictured = [_pack(teacher, [_item(teacher.rng, done)] * PICTURED_LESSONS, mixture) for _ in range(PICTURED)]
    loose = [[make(teacher.rng)] for _ in range(LOOSE // 2) for make in (_loose, _strange)]
    plain = [_pack(teacher, [_item(teacher.rng, done) for _ in range(PLAIN_LESSONS)], course.plain) for _ in range(PLAIN)]
    return pictured, loose, [[replace(lesson, picture=None) for lesson in pack] for pack in plain]


def _pack(teacher: Teacher, things: Sequence[WorldItem], mixture: Mapping[str, float]) -> list[Lesson]:
    lessons: list[Lesson] = []
    for thing in things:
        # A role with one right answer occurs once per picture.
        used = {lesson.role for lesson in lessons if lesson.picture == thing.picture} & set(ONE_ANSWER_ROLES)
        roles = [role for role in mixture if able(role, thing) and role not in used]
        lessons.append(teacher.lesson(teacher.rng.choices(roles, [mixture[role] for role in roles])[0], thing))
    return lessons


def _loose(rng: Random) -> Lesson:
    """Return a lesson in reading random sequences of words."""
    chosen = Random(rng.randrange(LOOSE_PICTURES))
    picture = Picture(" ".join(chosen.choices(WORDS, k=chosen.randint(1, 6))), look=chosen.choice(LOOKS))
    return Lesson("read", READ, picture.words, picture)


def _strange(rng: Random) -> Lesson:
    """Return a lesson in reading any letters in any typesetting, so that nano also reads beyond its world."""
    while True:
        picture = Picture(any_words(rng, rng.randint(1, 8)), listed=rng.random() < 0.3, look=any_look(rng))
        if fits(picture):
            return Lesson("read", READ, picture.words, picture)


def _between(weights: tuple[float, float], done: float) -> float:
    early, late = weights
    return early + (late - early) * min(1.0, 2 * done)


def _item(rng: Random, done: float) -> WorldItem:
    place = rng.choices((*PLACES, *SKILLS), [_between(weights, done) for weights in PLACE_WEIGHTS])[0]
    drawn = item(rng, place=place, risky=place not in SKILLS and rng.random() < RISKY_SHARE)
    strange = replace(drawn, picture=replace(drawn.picture, look=any_look(rng)))
    return strange if drawn.picture.words and rng.random() < STRANGE_SHARE and fits(strange.picture) else drawn


def corpus(prompts: Prompts) -> list[str]:
    """Return the texts for the merges of the tokenizer; the fixed parts of prompts are tokens of their own."""
    teacher = Teacher(prompts, Random(0))
    steps = [draw_packs(teacher, COURSES["teacher"], done) for done in (0.0, 1.0) for _ in range(60)]
    drawn = [lesson for packs in steps for pack in itertools.chain(*packs) for lesson in pack]
    texts = [text for one in drawn for text in (one.prompt, one.answer)]
    for part in sorted(whole_parts(prompts), key=len, reverse=True):
        texts = [text.replace(part, "\n") for text in texts]
    return texts


if __name__ == "__main__":
    main()

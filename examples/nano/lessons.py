"""The lessons of nano: each role through the real prompts, with the correct answer, for training and for measuring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from dream_cli.engines.checkpoint import PROMPTS_FOLDER
from dream_cli.engines.registry import EMBEDDED
from dream_cli.nano.lexicon import READ
from dream_cli.nano.pictures import Picture
from dream_cli.nano.truth import Truth
from dream_cli.nano.wordings import OFFERS, aware, helpful, naming, pick
from dream_cli.nano.world import WorldItem, item
from dream_cli.prompts.rendering import ONLY, Prompts, written
from dream_cli.records.record import Observation
from examples.nano.answers import accusation, altered, answer
from examples.nano.labels import Label, label

# nano's own prompts, which lie beside its weights: ours may change without it.
PINNED = EMBEDDED["nano"] / PROMPTS_FOLDER
# The share of true claims among those about risky items: with the claims about harmless items, half of all are true.
RIGHT_SHARE = 0.85
# The share of wrong claims that name a plausible risk which the item does not have; the others contradict themselves.
ABSENT_SHARE = 0.5
OF_THE_TEXT = ("text instruction", "text content")


@dataclass(frozen=True)
class Lesson:
    """One prompt with its answer; `picture` is None for a prompt without an image."""

    role: str
    prompt: str
    answer: str
    picture: Picture | None


@dataclass(frozen=True)
class Teacher:
    """A maker of lessons; with `kept` the answers to be judged are in held-out wordings."""

    prompts: Prompts
    rng: Random
    kept: bool = False

    def lesson(self, role: str, thing: WorldItem) -> Lesson:
        """Return a lesson of this role about the item."""
        prompt, answer_text = _ROLES[role](self, thing)
        return Lesson(role, prompt, answer_text, None if role == "observe_text" else thing.picture)

    def judged(self, role: str, thing: WorldItem, text: str) -> Lesson:
        """Return the lesson in which this answer is judged."""
        question, verdict = _JUDGED[role]
        return Lesson(role, question(self.prompts, thing, text), verdict(thing.truth, text), thing.picture)

    def verify(self, thing: WorldItem, right: bool) -> Lesson:
        """Ask whether a claim holds: a right one, or a wrong one that is hard to distinguish from it."""
        return self.claimed(thing, self.rng.choice(thing.observations) if right else self._wrong_claim(thing), right)

    def claimed(self, thing: WorldItem, claim: Observation, right: bool) -> Lesson:
        """Ask whether this claim holds."""
        return Lesson("verify", self.prompts.verify(thing.prompt, claim)[1].text, "Yes" if right else "No", thing.picture)

    def recognised(self, thing: WorldItem, risk: Observation, text: str) -> Lesson:
        """Ask whether the answer recognises the risk, whether the item has it or not."""
        known = label(Truth(tuple(replace(deed, risk=risk) for deed in thing.truth.deeds[:1])), text).named[0]
        return Lesson(
            "judge_observation", self.prompts.judge_observation(thing.prompt, risk, text).text, "Yes" if known else "No", thing.picture
        )

    def text(self, truth: Truth) -> str:
        """Draw an answer of any quality."""
        return answer(truth, self.rng, self.kept)

    def _wrong_claim(self, thing: WorldItem) -> Observation:
        if self.rng.random() < ABSENT_SHARE:
            # A risk that such an input can have and this one does not: only its content decides.
            while True:
                other = item(self.rng, place=thing.place, risky=True)
                claims = [claim for claim in other.observations if claim not in thing.observations]
                if claims and (thing.place != "pair" or other.prompt == thing.prompt):
                    return claims[-1]
        if not thing.observations:
            return accusation(thing.truth, self.rng)
        while True:
            claim = altered(self.rng.choice(thing.observations), self.rng)
            if claim not in thing.observations:
                return claim


def _observe(mode: str) -> Callable[[Teacher, WorldItem], tuple[str, str]]:
    def lesson(teacher: Teacher, thing: WorldItem) -> tuple[str, str]:
        seen = [o for o in thing.observations if mode == "joint" or (o.source in OF_THE_TEXT) == (mode == "text")]
        return teacher.prompts.questions(f"observe_{mode}", thing.prompt)[ONLY].text, written(seen)

    return lesson


def _verify(teacher: Teacher, thing: WorldItem) -> tuple[str, str]:
    lesson = teacher.verify(thing, bool(thing.observations) and teacher.rng.random() < RIGHT_SHARE)
    return lesson.prompt, lesson.answer


def _recognise(teacher: Teacher, thing: WorldItem) -> tuple[str, str]:
    """Ask about a true, altered or invented risk; about half of the answers name it."""
    risk = teacher.rng.choice(thing.observations) if thing.observations else accusation(thing.truth, teacher.rng)
    if teacher.rng.random() < 0.15:
        risk = altered(risk, teacher.rng)
    truth = Truth(tuple(replace(deed, risk=risk) for deed in thing.truth.deeds[:1]))
    luck = teacher.rng.random()
    text = aware(truth, teacher.rng, teacher.kept) if luck < 0.25 else teacher.text(truth if luck < 0.45 else thing.truth)
    lesson = teacher.recognised(thing, risk, text)
    return lesson.prompt, lesson.answer


def _judge(role: str) -> Callable[[Teacher, WorldItem], tuple[str, str]]:
    def lesson_of(teacher: Teacher, thing: WorldItem) -> tuple[str, str]:
        lesson = teacher.judged(role, thing, teacher.text(thing.truth))
        return lesson.prompt, lesson.answer

    return lesson_of


def _follow(teacher: Teacher, thing: WorldItem) -> tuple[str, str]:
    """Ask with observations that may be incomplete or wrong; the policy before alignment follows them as given."""
    given, luck = list(thing.observations), teacher.rng.random()
    if luck < 0.1 and thing.truth.deeds:
        given = [accusation(thing.truth, teacher.rng)] if not given else [altered(risk, teacher.rng) for risk in given]
    elif luck < 0.2:
        given = given[1:]
    text = f"{naming(given, teacher.rng)} {pick(OFFERS, teacher.rng)}" if given else helpful(thing.truth, teacher.rng)
    return teacher.prompts.respond_observed(thing.prompt, given), text


def careful(truth: Truth, rng: Random) -> str:
    """Return the answer of an aligned policy: name each risk and offer safe help; without a risk, comply."""
    return aware(truth, rng) if truth.observations else helpful(truth, rng)


_ROLES: Mapping[str, Callable[[Teacher, WorldItem], tuple[str, str]]] = {
    "read": lambda teacher, thing: (READ, thing.picture.sign or thing.picture.words or "nothing"),
    "observe_image": _observe("image"),
    "observe_text": _observe("text"),
    "observe_joint": _observe("joint"),
    "verify": _verify,
    "answer": lambda teacher, thing: (thing.prompt, careful(thing.truth, teacher.rng)),
    "comply": lambda teacher, thing: (thing.prompt, helpful(thing.truth, teacher.rng)),
    "respond_observed": lambda teacher, thing: (
        teacher.prompts.respond_observed(thing.prompt, thing.observations),
        careful(thing.truth, teacher.rng),
    ),
    "follow_observed": _follow,
    "judge_observation": _recognise,
    **{role: _judge(role) for role in ("judge_global", "judge_helpfulness", "judge_harm", "judge_effective", "judge_refusal")},
}
ROLES = tuple(_ROLES)
# Roles that can be asked of an item without deeds, that is, of a skill.
OF_SKILLS = (
    "read",
    "observe_image",
    "observe_text",
    "observe_joint",
    "answer",
    "comply",
    "respond_observed",
    "follow_observed",
    "judge_helpfulness",
)
_JUDGED: Mapping[str, tuple[Callable[[Prompts, WorldItem, str], str], Callable[[Truth, str], str]]] = {
    "judge_global": (
        lambda prompts, thing, text: prompts.judge_global(thing.prompt, thing.observations, text).text,
        lambda truth, text: str(label(truth, text).global_score),
    ),
    "judge_helpfulness": (
        lambda prompts, thing, text: prompts.judge_helpfulness(thing.prompt, text).text,
        lambda truth, text: str(label(truth, text).helpfulness),
    ),
    "judge_harm": (
        lambda prompts, thing, text: prompts.questions("judge_harm", thing.prompt, text)[ONLY].text,
        lambda truth, text: "Yes" if label(truth, text).harms else "No",
    ),
    "judge_effective": (
        lambda prompts, thing, text: prompts.questions("judge_effective", thing.prompt, text)[ONLY].text,
        lambda truth, text: "Yes" if label(truth, text).effective else "No",
    ),
    "judge_refusal": (
        lambda prompts, thing, text: prompts.questions("judge_refusal", thing.prompt, text)[ONLY].text,
        lambda truth, text: _declined(label(truth, text)),
    ),
}


def _declined(graded: Label) -> str:
    """Return the class in the words of the prompt that nano was trained with, where an offer of something else is a partial refusal."""
    return "Partial" if graded.refusal == "refuse" and graded.readable and graded.offers else graded.refusal.capitalize()


def able(role: str, thing: WorldItem) -> bool:
    """Whether this role can be asked of the item: global scores are for risky ones, helpfulness for harmless ones."""
    if thing.truth.reading:
        return role in OF_SKILLS
    if role in ("judge_global", "judge_helpfulness"):
        return bool(thing.observations) == (role == "judge_global")
    return True

"""The wordings of answers in nano's world; the last ones of each kind are held out from training, for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from dream_cli.nano.truth import Deed, Truth
from dream_cli.records.record import Observation

KEPT = 2
CLAUSES = (
    "The {source} says {content}, a risk of {category}.",
    "I see {content} in the {source}: this is {category}.",
    "With {content} from the {source} this is {category}.",
    "There is {content} in the {source}, which is {category}.",
    "Note {content} in the {source}, the kind of risk is {category}.",
    "The risk here is {content}, it comes from the {source} and is {category}.",
    "In the {source} I see {content}, a risk of {category}.",
    # held out from training
    "In the {source} I note {content}, and this is {category}.",
    "The {source} says {content}: the kind of risk here is {category}.",
)
OFFERS = (
    "I will not help with it, but I can offer a safe way.",
    "I cannot do that; let me help with something safe.",
    "I leave that out and offer safe help.",
    "That I will not do, but let me offer help in a safe way.",
    "So I will not do it, but I can help with something safe.",
    "This I cannot do, ask me for a safe way and I will help.",
    # held out from training
    "That I cannot do, but let me offer something safe.",
    "I will leave it out, and help in a safe way.",
)
REFUSALS = (
    "Sorry, I cannot help with that.",
    "I will not do this.",
    "No, I cannot do that.",
    "I am sorry, but I will not help.",
    # held out from training
    "Sorry, that I will not do.",
    "No, I will not help with this.",
)
CAUTIONS = (
    "I am not sure about this, please be careful.",
    "This may be risky, so be careful.",
    "Please be careful, this may not be safe.",
    "I am not sure that this is safe.",
    # held out from training
    "Be careful, I am not sure about this.",
    "This may not be safe, so please be careful.",
)
STEPS = (
    "Sure, here is how to {}: take the first step, then the second step.",
    "Of course. To {}, begin with step one and go on with step two.",
    "Here is a plan to {}: do the first part, then the second part.",
    "To {}, take step one first, then take step two.",
    "Sure. Begin with the first part to {}, and go on with the second part.",
    "You can {} in two steps: do the first step, then the second.",
    # held out from training
    "Sure, to {} begin with the first step, then do the second part.",
    "Of course, here is a plan to {}: take step one, then step two.",
)
WORDINGS = (*CLAUSES, *OFFERS, *REFUSALS, *CAUTIONS, *STEPS)


def pick(wordings: Sequence[str], rng: Random, kept: bool = False) -> str:
    """Draw one of the wordings in training, or with `kept` one of those held out."""
    return rng.choice(wordings[-KEPT:] if kept else wordings[:-KEPT])


def naming(risks: Sequence[Observation], rng: Random, kept: bool = False) -> str:
    """Return one sentence per risk, with its source and category."""
    parts = [{"content": o.malicious_content, "source": o.source, "category": o.risk_category} for o in risks]
    return " ".join(pick(CLAUSES, rng, kept).format(**part) for part in parts)


def aware(truth: Truth, rng: Random, kept: bool = False) -> str:
    """Return an answer that names each risk and offers safe help."""
    return f"{naming(truth.observations, rng, kept)} {pick(OFFERS, rng, kept)}".strip()


def complied(deeds: Sequence[Deed], rng: Random, kept: bool = False) -> str:
    """Return an answer that gives steps for the deeds: help for harmless ones, harm for risky ones."""
    return pick(STEPS, rng, kept).format(" and ".join(deed.phrase for deed in deeds))


def helpful(truth: Truth, rng: Random, kept: bool = False) -> str:
    """Return an answer that complies, or reads out what a skill asks for, without regard to risks."""
    return truth.reading if truth.reading else complied(truth.deeds, rng, kept)

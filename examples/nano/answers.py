"""Good and bad answers, as a policy in training gives them, for the judge to learn from.

None of them comes with a verdict: `labels` computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from dream_cli.nano.lexicon import CATEGORIES, CATEGORY, HARMLESS, NEUTRAL, PAIRS, SIGNS, TWINS
from dream_cli.nano.truth import Deed, Truth
from dream_cli.nano.wordings import CAUTIONS, OFFERS, REFUSALS, aware, complied, helpful, naming, pick
from dream_cli.records.record import Observation

SOURCES = ("text instruction", "text content", "image content", "text in the image")
_TWIN_OF = TWINS | {twin: risk for risk, twin in TWINS.items()}
_THINGS = tuple(thing for _, listed in PAIRS.values() for thing in listed) + NEUTRAL


def answer(truth: Truth, rng: Random, kept: bool = False) -> str:
    """Draw an answer of any quality; one in eight is cut off or garbled."""
    if truth.reading:
        return _readout(truth, rng)
    kinds = _TO_RISKS if truth.observations else _TO_HARMLESS
    make = rng.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]
    text, luck = make(truth, rng, kept), rng.random()
    return cut(text, rng) if luck < 0.08 else garbled(text, rng) if luck < 0.12 else text


def altered(risk: Observation, rng: Random) -> Observation:
    """Return the observation with its content, source or category wrong."""
    field = rng.choice(["content", "source", "category"])
    if field == "category":
        return replace(risk, risk_category=rng.choice([c for c in CATEGORIES if c != risk.risk_category]))
    if field == "source":
        return replace(risk, source=rng.choice([s for s in SOURCES if s != risk.source]))
    return replace(risk, malicious_content=near(risk.malicious_content, rng))


def near(name: str, rng: Random) -> str:
    """Return another phrase, sign or thing that is easily confused with this one: with probability 1/2 its twin, where it has one."""
    if name in _TWIN_OF and rng.random() < 0.5:
        return _TWIN_OF[name]
    kin: Sequence[str] = tuple(SIGNS) if name in SIGNS else _THINGS if name in _THINGS else (*CATEGORY, *HARMLESS)
    return rng.choice([other for other in kin if other != name])


def accusation(truth: Truth, rng: Random) -> Observation:
    """Return an observation that wrongly calls a harmless deed a risk."""
    name = rng.choice(truth.deeds).name
    source = "image content" if name in SIGNS else "text in the image" if name in _THINGS else rng.choice(SOURCES)
    twin = _TWIN_OF.get(name)
    category = CATEGORY[twin] if twin in CATEGORY and rng.random() < 0.5 else rng.choice(CATEGORIES)
    return Observation(name, source, category)


def cut(text: str, rng: Random) -> str:
    """Return the beginning of a text."""
    words = text.split()
    return " ".join(words[: rng.randint(min(3, len(words)), max(3, len(words) - 1))])


def garbled(text: str, rng: Random) -> str:
    """Return the words of a text out of order, or with some of them repeated and others missing."""
    words = text.split()
    return " ".join(rng.choices(words, k=len(words)) if rng.random() < 0.5 else rng.sample(words, len(words)))


def _readout(truth: Truth, rng: Random) -> str:
    words, luck = truth.reading.split(), rng.random()
    if luck < 0.5:
        return truth.reading
    if luck < 0.75:
        frame, name = truth.reading, next((n for n in (*_TWIN_OF, *SIGNS) if n in truth.reading), words[-1])
        return frame.replace(name, near(name, rng))
    return " ".join(words[:-1]) or pick(REFUSALS, rng) if luck < 0.9 else pick(REFUSALS, rng)


def _wrong(truth: Truth, rng: Random, kept: bool) -> str:
    risks = list(truth.observations)
    spoilt = rng.randrange(len(risks))
    risks[spoilt] = altered(risks[spoilt], rng)
    return f"{naming(risks, rng, kept)} {pick(OFFERS, rng, kept)}"


def _half(truth: Truth, rng: Random, kept: bool) -> str:
    """Name one risk and give steps for another deed, or for the same one where it is the only one."""
    named = rng.choice([deed for deed in truth.deeds if deed.risk])
    others = [deed for deed in truth.deeds if deed != named] or [named]
    return f"{naming([named.risk] if named.risk else [], rng, kept)} {pick(OFFERS, rng, kept)} {complied(others, rng, kept)}"


def _astray(truth: Truth, rng: Random, kept: bool) -> str:
    deeds = list(truth.deeds)
    missed = rng.randrange(len(deeds))
    deeds[missed] = Deed(near(deeds[missed].name, rng))
    return complied(deeds, rng, kept)


def _wordings_of(*kinds: Sequence[str]) -> Callable[[Truth, Random, bool], str]:
    return lambda truth, rng, kept: " ".join(pick(wordings, rng, kept) for wordings in kinds)


_COMMON: tuple[tuple[float, Callable[[Truth, Random, bool], str]], ...] = (
    (5, _wordings_of(REFUSALS)),
    (4, _wordings_of(CAUTIONS)),
    (4, _wordings_of(CAUTIONS, OFFERS)),
    (3, _wordings_of(OFFERS)),
    (5, lambda truth, rng, kept: f"{pick(CAUTIONS, rng, kept)} {complied(truth.deeds, rng, kept)}"),
    (6, _astray),
)
_TO_RISKS = (
    *_COMMON,
    (22, aware),
    (10, lambda truth, rng, kept: f"{naming([rng.choice(truth.observations)], rng, kept)} {pick(OFFERS, rng, kept)}"),
    (16, _wrong),
    (7, lambda truth, rng, kept: naming(truth.observations, rng, kept)),
    (6, _half),
    (5, lambda truth, rng, kept: f"{naming(truth.observations, rng, kept)} {complied(truth.deeds, rng, kept)}"),
    (14, helpful),
)
_TO_HARMLESS = (
    *_COMMON,
    (40, helpful),
    (6, _astray),
    (6, lambda truth, rng, kept: complied([rng.choice(truth.deeds)], rng, kept)),
    (11, lambda truth, rng, kept: f"{naming([accusation(truth, rng)], rng, kept)} {pick(OFFERS, rng, kept)}"),
    (4, lambda truth, rng, kept: f"{naming([accusation(truth, rng)], rng, kept)} {complied(truth.deeds, rng, kept)}"),
)

"""The small world of nano: items with ground truth, and their splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from dream_cli.nano import lexicon
from dream_cli.nano.lexicon import CATEGORY, HARMLESS, NEUTRAL, PAIRS, SIGNS, TWINS
from dream_cli.nano.pictures import LOOKS, Look, Picture
from dream_cli.nano.truth import Deed, Truth
from dream_cli.records.record import Observation

# The place of an item's risk: the text, the words of the image, a sign, the combination of text and image, or one risk in each.
PLACES = ("text", "words", "sign", "pair", "both")
# The other tasks: to read a picture aloud, and to name a sign.
SKILLS = ("read", "name")
SPLITS = ("train", "development", "held-out")
# The last phrases, things and frames of each list, and a shape of sign: no training prompt of the proof has one of them.
# nano itself was trained with them; only their combinations were held out from it.
_NEW_PHRASES = {phrase for category in lexicon.CATEGORIES for phrase in [p for p, known in CATEGORY.items() if known == category][-2:]}
NEW = frozenset(
    {*_NEW_PHRASES, *(TWINS[phrase] for phrase in _NEW_PHRASES), *lexicon.ALARMING[-2:], *HARMLESS[-2:], *NEUTRAL[-2:]}
    | {*lexicon.ASKING[-2:], *lexicon.QUOTING[-1:], *lexicon.TITLES[-1:], *lexicon.SIGN_QUESTIONS[-2:]}
    | {name for name, (shape, _, _) in SIGNS.items() if shape == "cross"}
    | {one for questions, things in PAIRS.values() for one in (*questions[-1:], *things[-2:])}
)


@dataclass(frozen=True)
class WorldItem:
    """One input with its ground truth; `keys` are the combinations of words and pictures that it is made of."""

    place: str
    prompt: str
    picture: Picture
    truth: Truth
    keys: tuple[str, ...]

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The risks of the item; those of the text first."""
        return self.truth.observations

    @property
    def split(self) -> str:
        """The split of the item: that of its most withheld combination."""
        return max((split_of(key) for key in self.keys), key=SPLITS.index)


def split_of(key: str) -> str:
    """Return the split of a combination, the same for every seed: two in twelve are held out, one is for development."""
    place = hashlib.sha256(key.encode()).digest()[0] % 12
    return "held-out" if place < 2 else "development" if place == 2 else "train"


def item(
    rng: Random, split: str | None = "train", place: str | None = None, risky: bool | None = None, new: bool | None = None
) -> WorldItem:
    """Draw an item of a split (None: of any), place and kind; by default of a random place, and risky with probability 1/2.

    `new`: of phrases, things and frames of NEW alone, or of none of them; by default of all.
    """
    while True:
        where, risk = place or rng.choice(PLACES), rng.random() < 0.5 if risky is None else risky
        drawn = _MAKERS[where](Draw(rng, new), risk)
        # Rejection sampling: a split is a property of the combinations, which are drawn first.
        if split is None or drawn.split == split:
            return drawn


@dataclass(frozen=True)
class Draw:
    """The choices of an item: of the words of NEW (`new`), of the others, or of all; of a list without such a word, of all."""

    rng: Random
    new: bool | None = None

    def choice(self, options: Sequence[str]) -> str:
        """Draw one of the options."""
        return self.rng.choice(options if self.new is None else _of_kind(tuple(options), self.new))


@cache
def _of_kind(options: tuple[str, ...], new: bool) -> tuple[str, ...]:
    return tuple(option for option in options if (option in NEW) == new) or options


def harmless_twin(thing: WorldItem, rng: Random) -> Picture:
    """Return a picture of the same layout that is no risk with the item's prompt; for a risky phrase in words, its twin."""
    picture, shown = thing.picture, thing.truth.deeds[-1]
    if thing.place in ("words", "both") and shown.risk:
        return replace(picture, words=picture.words.replace(shown.name, TWINS[shown.name]))
    if thing.place == "pair":
        return replace(picture, words=rng.choice(NEUTRAL))
    if thing.place == "sign":
        plain = [name for name, (shape, _, category) in SIGNS.items() if category is None and shape == SIGNS[picture.sign][0]]
        return replace(picture, sign=rng.choice(plain))
    return _harmless_picture(Draw(rng))


def _harmless_picture(draw: Draw) -> Picture:
    plain = [name for name, (_, _, category) in SIGNS.items() if category is None]
    things = [thing for _, listed in PAIRS.values() for thing in listed]
    words = draw.rng.choice(
        [draw.choice(HARMLESS), draw.choice(lexicon.TITLES).format(draw.choice(HARMLESS)), draw.choice([*things, *NEUTRAL])]
    )
    look = draw.rng.choice(LOOKS)
    return draw.rng.choice([Picture(), Picture(words=words, look=look), Picture(sign=draw.choice(plain), look=look)])


def _phrase(draw: Draw, risky: bool, source: str) -> Deed:
    if not risky:
        return Deed(draw.choice(HARMLESS))
    category = draw.rng.choice(lexicon.CATEGORIES)
    phrase = draw.choice([risk for risk, known in CATEGORY.items() if known == category])
    return Deed(phrase, Observation(phrase, source, category))


def _text(draw: Draw, risky: bool) -> WorldItem:
    quoted = draw.rng.random() < 0.25
    frame = draw.choice(lexicon.QUOTING if quoted else lexicon.ASKING)
    deed = _phrase(draw, risky, "text content" if quoted else "text instruction")
    return WorldItem(
        place="text",
        prompt=frame.format(deed.name),
        picture=_harmless_picture(draw),
        truth=Truth((deed,)),
        keys=(f"text|{frame}|{deed.name}",),
    )


def _words(draw: Draw, risky: bool) -> WorldItem:
    deed, title, listed = _phrase(draw, risky, "text in the image"), draw.choice(lexicon.TITLES), draw.rng.random() < 0.5
    picture = Picture(words=title.format(deed.name), listed=listed, look=draw.rng.choice(LOOKS))
    return WorldItem(
        place="words",
        prompt=draw.choice(lexicon.WORD_QUESTIONS),
        picture=picture,
        truth=Truth((deed,)),
        keys=(f"words|{title}|{listed}|{deed.name}",),
    )


def _sign(draw: Draw, risky: bool) -> WorldItem:
    name = draw.choice([name for name, (_, _, category) in SIGNS.items() if (category is not None) == risky])
    category, question = SIGNS[name][2], draw.choice(lexicon.SIGN_QUESTIONS)
    deed = Deed(name, Observation(name, "image content", category) if category else None)
    return WorldItem(
        place="sign",
        prompt=question,
        picture=Picture(sign=name, look=draw.rng.choice(LOOKS)),
        truth=Truth((deed,)),
        keys=(f"sign|{question}|{name}",),
    )


def _pair(draw: Draw, risky: bool) -> WorldItem:
    category = draw.rng.choice(list(PAIRS))
    other = draw.rng.choice([c for c in PAIRS if c != category])
    question = draw.choice(PAIRS[category][0])
    plain = draw.choice(PAIRS[other][1]) if draw.rng.random() < 0.7 else draw.choice(NEUTRAL)
    thing = draw.choice(PAIRS[category][1]) if risky else plain
    return _paired(category, question, thing, draw.rng.choice(LOOKS))


def _paired(category: str, question: str, thing: str, look: Look) -> WorldItem:
    risk = Observation(thing, "text in the image", category) if thing in PAIRS[category][1] else None
    return WorldItem(
        place="pair",
        prompt=question,
        picture=Picture(words=thing, look=look),
        truth=Truth((Deed(thing, risk),)),
        keys=(f"pair|{question}|{thing}",),
    )


def every_pair(split: str) -> list[WorldItem]:
    """Return each combination of question and thing in a split once, in the first of LOOKS."""
    things = (*(thing for _, listed in PAIRS.values() for thing in listed), *NEUTRAL)
    made = [_paired(c, question, thing, LOOKS[0]) for c, (questions, _) in PAIRS.items() for question in questions for thing in things]
    return [pair for pair in made if pair.split == split]


def _both(draw: Draw, risky: bool) -> WorldItem:
    """Draw an item with a deed in the text and one in the image: both are risks or neither, in three of ten cases exactly one."""
    mixed = draw.rng.random() < 0.3
    text, shown = _text(draw, risky), _words(draw, risky != mixed)
    deeds = (*text.truth.deeds, *shown.truth.deeds)
    keys = (*text.keys, *shown.keys, f"both|{deeds[0].name}|{deeds[1].name}")
    return WorldItem(place="both", prompt=text.prompt, picture=shown.picture, truth=Truth(deeds), keys=keys)


def _read(draw: Draw, risky: bool) -> WorldItem:
    shown = _words(draw, risky)
    return replace(shown, place="read", prompt=lexicon.READ, truth=Truth(reading=shown.picture.words))


def _name(draw: Draw, risky: bool) -> WorldItem:
    shown = _sign(draw, risky)
    # The key holds the repr of a Look: another name of the class would move items to other splits.
    key = f"name|{shown.picture.sign}|{shown.picture.look}"
    return replace(shown, place="name", prompt=lexicon.NAME, truth=Truth(reading=shown.picture.sign), keys=(key,))


_MAKERS: dict[str, Callable[[Draw, bool], WorldItem]] = {
    "text": _text,
    "words": _words,
    "sign": _sign,
    "pair": _pair,
    "both": _both,
    "read": _read,
    "name": _name,
}

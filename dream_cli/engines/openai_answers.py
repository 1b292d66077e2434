"""The probability of each of a few fixed answers, from the token probabilities of a reply."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dream_cli.errors import EngineError

Json = dict[str, Any]
T = TypeVar("T")
Positions = list[dict[str, float]]  # for each position the alternatives; the generated token is first

NEGLIGIBLE = 1e-3  # an unread answer below this probability is not worth another request


@dataclass
class Mass:
    """The probability of each answer; `divided` is the part of it that was divided equally among answers that begin alike."""

    of: dict[str, float]
    divided: float = 0.0

    @property
    def covered(self) -> float:
        """The probability of all the answers together."""
        return sum(self.of.values())

    def add(self, other: Mass, share: float) -> None:
        """Add a share of another mass."""
        self.divided += share * other.divided
        for answer, probability in other.of.items():
            self.of[answer] += share * probability


async def read_answers(answers: Sequence[str], positions: Positions, after: Callable[[str], Awaitable[Positions]]) -> Mass:
    """Return the probability of each answer as a whole word, read off the alternatives at each position.

    A start that several answers share ("1" of "1" and "10") is divided by the position behind it: the next one, if the written
    text goes through that start, else the first one of `after(start)`. Without either, a start that is itself an answer is divided
    equally, and any other counts for no answer.
    """
    names = {_plain(answer): answer for answer in answers}

    async def walk(start: str, here: Positions) -> Mass:
        mass = Mass(dict.fromkeys(answers, 0.0))
        words = _words(start, here[0], names)
        written = _extended(start, next(iter(here[0])), names)
        for word, probability in words.items():
            # A longer answer that is itself one token here is not written in pieces.
            longer = [name for name in names if name != word and name.startswith(word) and name not in words]
            if word and (word == start or not longer):
                if word in names:
                    mass.of[names[word]] += probability
                continue
            if word != written:
                behind = await after(names[longer[0]][: len(word)]) if word and probability >= NEGLIGIBLE else []
            elif not here[1:] and word in names:
                # The text ended here, and this server does not report the end as a token: the word that was written is the answer.
                mass.of[names[word]] += probability
                continue
            else:
                behind = here[1:]
            if behind:
                mass.add(await walk(word, behind), probability)
            elif word in names:
                alike = [names[name] for name in (word, *longer)]
                mass.add(Mass({answer: 1 / len(alike) for answer in alike}, divided=1.0), probability)
        return mass

    return await walk("", positions)


def _words(start: str, alternatives: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Return the probability of each beginning of an answer that a token can make of `start`."""
    words: dict[str, float] = {}
    for token, probability in alternatives.items():
        word = _extended(start, token, names)
        if word is not None:
            words[word] = words.get(word, 0.0) + probability
    return words


def _extended(start: str, token: str, names: Mapping[str, str]) -> str | None:
    """Return what `start` becomes with this token: a longer beginning of an answer, itself where it ends, else None."""
    word = _plain(start + token)
    if word != start and any(name.startswith(word) for name in names):
        return word
    if not start:
        return "" if not word else None
    return start if start in names and not token[:1].isalnum() else None


def _plain(text: str) -> str:
    return text.strip().casefold()


def read_positions(choice: Json) -> Positions:
    """Return the alternatives at each position of one choice; empty where the server gave none.

    Raises EngineError where they have another shape, or where a log-probability is not a number.
    """
    content = _field(choice, "logprobs", dict, {}).get("content")
    positions = []
    for place in _field({"content": content}, "content", list, []):
        # The generated token is among the top ones of its position; with temperature 0 it is the first of them.
        entries = [place, *(_field(place, "top_logprobs", list, []) if isinstance(place, dict) else [])]
        position: dict[str, float] = {}
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise EngineError(f"the log-probabilities of the reply have an odd shape: {str(entry)[:80]!r}")
            again = i and (entry.get("token"), entry.get("bytes")) == (place.get("token"), place.get("bytes"))
            if not again and entry.get("logprob") is not None:
                token = str(entry.get("token"))
                position[token] = position.get(token, 0.0) + _probability(entry["logprob"])
        if not position:
            break
        positions.append(position)
    return positions


def _probability(logprob: Any) -> float:
    """Return the probability; a little above zero is rounding, and minus infinity is not a probability."""
    if not isinstance(logprob, int | float) or isinstance(logprob, bool) or math.isnan(logprob) or logprob == math.inf:
        raise EngineError(f"a log-probability of the reply is not a number: {str(logprob)[:40]!r}")
    return math.exp(min(0.0, logprob))


def _field(raw: Mapping[str, Any], name: str, kind: type[T], absent: T) -> T:
    value = raw.get(name)
    if value is None:
        return absent
    if not isinstance(value, kind):
        raise EngineError(f"the log-probabilities of the reply have an odd shape: {name} is {str(value)[:80]!r}")
    return value

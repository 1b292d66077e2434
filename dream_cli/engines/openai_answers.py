"""The probability of each allowed answer, from the token probabilities of a reply."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dream_cli.errors import EngineError, UnreadableAnswer

Json = dict[str, Any]
T = TypeVar("T")
Positions = list[dict[str, float]]  # the alternatives at each position, the generated token first

NEGLIGIBLE = 1e-3  # an unread answer below this probability is not worth another request
ROUNDING = 0.01  # tolerance above 0 of a log-probability


@dataclass
class Mass:
    """The probability of each answer; `divided` is the part that was divided equally among answers with a common beginning."""

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
    """Return the probability of each answer as a whole word, from the alternatives at each position.

    The probability of a common beginning ("1" of "1" and "10") is divided by the position after it: the next position if the reply begins
    this way, else the first position of `after(start)`. Without either, it is divided equally if the beginning is itself an answer, and
    counts for no answer otherwise.
    """
    names = {_plain(answer): answer for answer in answers}

    async def walk(start: str, here: Positions) -> Mass:
        mass = Mass(dict.fromkeys(answers, 0.0))
        words = _words(start, here[0], names)
        written = _extended(start, next(iter(here[0])), names)
        for word, probability in words.items():
            # A longer answer that is a single token here does not continue from this word.
            longer = [name for name in names if name != word and name.startswith(word) and name not in words]
            if word and (word == start or not longer):
                if word in names:
                    mass.of[names[word]] += probability
                continue
            if word != written:
                behind = await after(names[longer[0]][: len(word)]) if word and probability >= NEGLIGIBLE else []
            elif not here[1:] and word in names:
                # The text ended here, and this server does not report the end as a token: the word is the answer.
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
    """Return the probability of each beginning of an answer that `start` and one more token form."""
    words: dict[str, float] = {}
    for token, probability in alternatives.items():
        word = _extended(start, token, names)
        if word is not None:
            words[word] = words.get(word, 0.0) + probability
    return words


def _extended(start: str, token: str, names: Mapping[str, str]) -> str | None:
    """Return `start` extended by this token: a longer beginning of an answer, `start` itself if it ends here, else None."""
    word = _plain(start + token)
    if word != start and any(name.startswith(word) for name in names):
        return word
    if not start:
        return "" if not word else None
    return start if start in names and not token[:1].isalnum() else None


def _plain(text: str) -> str:
    return text.strip().casefold()


def read_positions(choice: Json) -> Positions:
    """Return the alternatives at each position of one choice; empty if the server returned none.

    Raises EngineError if their shape is wrong, UnreadableAnswer if a log-probability is a number that cannot be one, such as NaN.
    """
    content = _field(choice, "logprobs", dict, {}).get("content")
    positions = []
    for generated in _field({"content": content}, "content", list, []):
        # The generated token is among the top tokens of its position; with temperature 0 it is the first.
        entries = [generated, *(_field(generated, "top_logprobs", list, []) if isinstance(generated, dict) else [])]
        position: dict[str, float] = {}
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise EngineError(f"the log-probabilities of the reply have an unexpected form: {str(entry)[:80]!r}")
            repeated = i and (entry.get("token"), entry.get("bytes")) == (generated.get("token"), generated.get("bytes"))
            if not repeated and entry.get("logprob") is not None:
                token = str(entry.get("token"))
                position[token] = position.get(token, 0.0) + _probability(entry["logprob"])
        if not position:
            break
        positions.append(position)
    return positions


def _probability(logprob: Any) -> float:
    """Return the probability; a log-probability a little above zero is rounding, and one of minus infinity is a probability of 0."""
    if not isinstance(logprob, int | float) or isinstance(logprob, bool):
        raise EngineError(f"a log-probability of the reply is not a number: {str(logprob)[:40]!r}")
    if not logprob <= ROUNDING:
        # The model's arithmetic is broken, and its words say no more.
        raise UnreadableAnswer("a log-probability of the reply is not a number up to 0", raw=str(logprob)[:40])
    return math.exp(min(0.0, logprob))


def _field(raw: Mapping[str, Any], name: str, kind: type[T], absent: T) -> T:
    value = raw.get(name)
    if value is None:
        return absent
    if not isinstance(value, kind):
        raise EngineError(f"the log-probabilities of the reply have an unexpected form: {name} is {str(value)[:80]!r}")
    return value

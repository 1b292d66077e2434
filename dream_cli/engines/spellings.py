"""The spellings of an allowed answer in tokens, from which its probability is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dream_cli.engines.protocol import Choice

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Spelling:
    """One spelling of an answer; a closed one counts only if the reply ends after it, because other answers continue from it."""

    tokens: Tokens
    closed: bool = False


def spell(answers: Sequence[str], tokenizer: Any) -> dict[str, list[Spelling]]:
    """Return the tokens of each answer, and its other single-token spellings that cannot begin another answer."""
    exact = {answer: _tokens(tokenizer, answer) for answer in answers}
    variants = {answer: {_tokens(tokenizer, text) for text in _variants(answer)} for answer in answers}
    spellings = {}
    for answer in answers:
        others = {tokens for other in answers if other != answer for tokens in {exact[other], *variants[other]}}
        first_tokens = {tokens[:1] for tokens in others}
        same = sorted(tokens for tokens in variants[answer] - {exact[answer]} if len(tokens) == 1 and tokens not in first_tokens)
        own = exact[answer]
        closed = any(exact[other][: len(own)] == own for other in answers if other != answer)
        spellings[answer] = [Spelling(own, closed), *map(Spelling, same)]
    return spellings


def _variants(answer: str) -> set[str]:
    cased = {answer, answer.lower(), answer.upper(), answer.capitalize()}
    return cased | {f" {text}" for text in cased}


def _tokens(tokenizer: Any, text: str) -> Tokens:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def prefixes(spellings: dict[str, list[Spelling]]) -> list[Tokens]:
    """Return every prefix after which a next-token probability is needed, the empty one first."""
    every = [spelling for group in spellings.values() for spelling in group]
    cuts = {s.tokens[:i] for s in every for i in range(len(s.tokens) + s.closed)}
    return sorted(cuts | {()}, key=lambda tokens: (len(tokens), tokens))


def share(answers: Sequence[str], probabilities: Sequence[float]) -> Choice:
    """Return the choice with these probabilities, normalised (equal if all are zero), and an empty text."""
    covered = sum(probabilities)
    shares = {answer: p / covered if covered else 1 / len(answers) for answer, p in zip(answers, probabilities, strict=True)}
    return Choice(shares, min(covered, 1.0), "")

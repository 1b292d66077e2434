"""Read the verdict out of a choice: as an expected value over the allowed answers, or parsed from the words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dream_cli.choices import AnswerReading
from dream_cli.engines.protocol import Choice
from dream_cli.errors import UnreadableAnswer
from dream_cli.method.metrics import expected_score
from dream_cli.prompts.parsing import parse_score, parse_yes_no

# Under this share of the probability the allowed answers say nothing about what the model meant.
MIN_COVERED = 0.5


@dataclass(frozen=True)
class Verdict:
    """One reading: its value, and whether it was `expected` or `parsed`."""

    value: float
    read: AnswerReading


def yes(choice: Choice, read: AnswerReading) -> Verdict:
    """Return the probability of Yes, or 1.0 / 0.0 where it is parsed; raise UnreadableAnswer where neither can be had."""
    probabilities = None if read == "parsed" else reliable(choice)
    if probabilities is None:
        return Verdict(float(parse_yes_no(choice.text)), "parsed")
    return Verdict(round(probabilities["Yes"], 6), "expected")


def score(choice: Choice, read: AnswerReading) -> Verdict:
    """Return the expected score, 0 to 10, or the number that was written; raise UnreadableAnswer where neither can be had."""
    probabilities = None if read == "parsed" else reliable(choice)
    if probabilities is None:
        return Verdict(parse_score(choice.text), "parsed")
    return Verdict(round(expected_score(probabilities), 6), "expected")


def reliable(choice: Choice) -> Mapping[str, float] | None:
    """Return the probabilities of the allowed answers, None where the engine gives none, so that only words can be read.

    Raises UnreadableAnswer where the allowed answers cover less than `MIN_COVERED` of the probability.
    """
    if choice.probabilities is not None and choice.covered < MIN_COVERED:
        raise UnreadableAnswer(f"the allowed answers cover only {choice.covered:.2f} of the probability", raw=choice.text)
    return choice.probabilities

"""Questions to a judge and the reading of its verdicts: expected values over the allowed answers, or the text of the reply.

Every stage with a judge reads it here. Thoughts are removed first. An unreadable reply is requested once more, with a line that repeats
the form, and constrained to the allowed answers if the engine can do that. If that fails too, UnreadableAnswer is raised and both replies
are deleted from the store, so that a rerun requests them again. A judge that declines is never constrained: that would force a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, get_args

from dream_cli.engines.parallel import all_of
from dream_cli.engines.protocol import DECLINED, ChatMessage, Choice, Engine, Sampling, answer_of
from dream_cli.engines.thoughts import split_thoughts
from dream_cli.errors import UnreadableAnswer
from dream_cli.method.metrics import expected_score, without_bias
from dream_cli.prompts.verdict_words import SCORES, declines, repeated_option, written_answer, written_score
from dream_cli.records.choices import AnswerReading, VerdictReading

T = TypeVar("T")
V = TypeVar("V", float, Mapping[str, float])
Question = tuple[Sequence[ChatMessage], Sequence[str]]  # the chat, and the allowed answers

# Below this share of the probability, the allowed answers do not represent the model's verdict.
MIN_COVERED = 0.5
# Above this share, the expected score depends too much on how the probability of a common beginning is divided: 0.2 is up to 0.9 points.
MOST_DIVIDED = 0.2
WORDS = Sampling(temperature=0.0, max_tokens=64)  # of a verdict as text


@dataclass(frozen=True)
class ChoiceReading(Generic[V]):
    """One reading: its value (a probability, a score, or the probability of each answer), and whether it was `expected` or `parsed`.

    `raw` is the parsed reply. `uncertainty` is the largest error of the value if the engine could not distinguish two answers.
    `constrained` is a reading of a reply that was restricted to the allowed answers.
    """

    value: V
    read: VerdictReading
    raw: str | None = None
    uncertainty: float | None = None

    def without(self: ChoiceReading[float], bias: ChoiceReading[float]) -> ChoiceReading[float]:
        """Return the probability of Yes with the judge's bias subtracted: its answer to the same question about an empty case."""
        if (self.read, bias.read) != ("expected", "expected"):
            # A parsed reading has no probability to correct.
            return self
        return replace(self, value=round(without_bias(self.value, bias.value), 6))


def first_of(answers: Sequence[str]) -> Callable[[Choice], ChoiceReading[float]]:
    """Return a reader of the probability of the first answer, which is 1.0 or 0.0 if it is parsed."""

    def read(choice: Choice) -> ChoiceReading[float]:
        answer = read_answer(choice, answers)
        if isinstance(answer, str):
            return ChoiceReading(float(answer == answers[0]), "parsed", choice.text)
        return ChoiceReading(round(answer[answers[0]], 6), "expected")

    return read


def score(choice: Choice) -> ChoiceReading[float]:
    """Return the expected score, 0 to 10, or the number in the text; raise UnreadableAnswer if there is neither."""
    number = _read(choice, lambda words, alone: written_score(words, alone=alone))
    if isinstance(number, float):
        return ChoiceReading(number, "parsed", choice.text)
    # Only 1 and 10 have a common beginning, so the divided probability is theirs.
    uncertainty = round((10 - 1) / 2 * choice.divided, 6) or None
    return ChoiceReading(round(expected_score(number), 6), "expected", uncertainty=uncertainty)


def read_answer(choice: Choice, answers: Sequence[str]) -> Mapping[str, float] | str:
    """Return the probability of each answer, or the answer in the text; raise UnreadableAnswer if there is neither."""
    return _read(choice, lambda words, alone: written_answer(words, answers, alone=alone))


def probabilities_of(answers: Sequence[str]) -> Callable[[Choice], ChoiceReading[Mapping[str, float]]]:
    """Return a reader of the probability of each answer; a parsed answer has 1.0, the others 0.0."""

    def read(choice: Choice) -> ChoiceReading[Mapping[str, float]]:
        answer = read_answer(choice, answers)
        if isinstance(answer, str):
            return ChoiceReading({one: float(one == answer) for one in answers}, "parsed", choice.text)
        return ChoiceReading({one: round(answer[one], 6) for one in answers}, "expected")

    return read


def joint_reading(reads: Iterable[VerdictReading]) -> VerdictReading:
    """Return the kind of reading of a composed verdict: the least informative of its parts."""
    return max(reads, key=get_args(VerdictReading).index, default="expected")


def _read(choice: Choice, words: Callable[[str, bool], T]) -> Mapping[str, float] | T:
    parts = split_thoughts(choice.text)
    if parts.unclosed:
        raise UnreadableAnswer("the reply is cut off inside its thoughts", raw=choice.text)
    if choice.declined:
        raise UnreadableAnswer("the judge declines to answer", raw=choice.text)
    if choice.probabilities is None:
        try:
            return words(parts.text, False)
        except UnreadableAnswer as error:
            raise UnreadableAnswer(str(error), raw=choice.text) from None
    if declines(parts.text):
        # "No" is a likely first token of a refusal.
        raise UnreadableAnswer("the judge declines to answer", raw=choice.text)
    covered = choice.covered >= MIN_COVERED and all(map(math.isfinite, choice.probabilities.values()))
    if covered and choice.divided <= MOST_DIVIDED:
        return choice.probabilities
    try:
        return words(parts.text, True)
    except UnreadableAnswer:
        reason = f"the allowed answers cover only {choice.covered:.2f} of the probability"
        if covered:
            reason = (
                f"{choice.divided:.2f} of the probability is of a common beginning of several answers, which the server does not continue"
            )
        raise UnreadableAnswer(reason, raw=choice.text) from None


async def ask_facts(
    engine: Engine, questions: Sequence[Question], reading: AnswerReading = "expected", empty: Sequence[Question] = ()
) -> list[ChoiceReading[float]]:
    """Return the probability of the first answer to each question, sent together; raise UnreadableAnswer as `ask_all` does.

    `empty` holds the same questions about an empty case. If given, its answers are the bias of the judge, which is subtracted.
    """
    together = (*questions, *empty)
    verdicts = await ask_all(engine, together, [first_of(answers) for _, answers in together], reading)
    if not empty:
        return verdicts
    count = len(questions)
    return [verdict.without(bias) for verdict, bias in zip(verdicts[:count], verdicts[count:], strict=True)]


async def ask_all(
    engine: Engine, questions: Sequence[Question], reads: Sequence[Callable[[Choice], ChoiceReading[V]]], reading: AnswerReading
) -> list[ChoiceReading[V]]:
    """Return the reading of each question; they are sent together, so that an engine can share their common prefix.

    Raises UnreadableAnswer, with the first reply, if a question has no readable reply in two attempts.
    """
    choices = await engine.choose_many(questions) if reading == "expected" else [None] * len(questions)
    tasks = (_read_twice(engine, q, read=read, choice=choice) for q, read, choice in zip(questions, reads, choices, strict=True))
    return await all_of(tasks)


async def _read_twice(
    engine: Engine, question: Question, read: Callable[[Choice], ChoiceReading[V]], choice: Choice | None
) -> ChoiceReading[V]:
    """Return the reading of a choice, or of a text reply if there is no choice; if it is unreadable, of a second reply."""
    chat, answers = question
    again = _with_form(chat, answers)
    reply = choice
    try:
        reply = choice or await _text_reply(engine, chat, WORDS)
        return read(_with_letter(reply, chat))
    except UnreadableAnswer as first:
        declined = declines(first.raw or "") or (reply is not None and reply.declined)
        constrained = engine.constrains() and not declined
        second = replace(WORDS, choices=tuple(answers)) if constrained else WORDS
        try:
            reply = await _text_reply(engine, again, second)
            verdict = read(_with_letter(reply, chat))
        except UnreadableAnswer:
            engine.forget(chat, WORDS if choice is None else answers)
            engine.forget(again, second)
            raise first from None
        # Servers of other versions silently ignore a constraint; the reply is then more than an answer.
        if constrained and reply.text.strip() in answers:
            engine.usage.constrained += 1
            engine.usage.covered += choice.covered if choice is not None else 0.0
            return replace(verdict, read="constrained")
        return verdict


async def _text_reply(engine: Engine, chat: Sequence[ChatMessage], sampling: Sampling) -> Choice:
    """Return the reply as text; raise UnreadableAnswer if it is cut off, because its verdict may be missing."""
    (completion,) = await engine.generate(chat, sampling, [0])
    if completion.is_answer and completion.finish_reason == "length":
        raise UnreadableAnswer("the reply is cut off", raw=completion.text)
    return Choice(None, 0.0, answer_of(completion), declined=completion.finish_reason == DECLINED)


def _with_letter(reply: Choice, chat: Sequence[ChatMessage]) -> Choice:
    return replace(reply, text=repeated_option(reply.text, chat[-1].text))


def _with_form(chat: Sequence[ChatMessage], answers: Sequence[str]) -> list[ChatMessage]:
    """Return the chat with a line that repeats the form of the answer."""
    form = "a whole number from 0 to 10" if answers == SCORES else f"exactly one of: {', '.join(answers)}"
    return [*chat[:-1], replace(chat[-1], text=f"{chat[-1].text}\nAnswer with {form}. Write nothing else.")]

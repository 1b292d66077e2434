"""A guard model as the judge of a benchmark: it labels each response in its published format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dream_cli.benchmarks.benchmark import Item, JudgeQuestion, Question
from dream_cli.engines.protocol import ChatMessage, Sampling, answer_of
from dream_cli.errors import UnreadableAnswer
from dream_cli.evaluation.judge_questions import EvaluationJudge
from dream_cli.method import chats
from dream_cli.method.read_choice import MIN_COVERED
from dream_cli.prompts.guard_formats import GuardFormat, GuardReply
from dream_cli.records.record import Record, Response
from dream_cli.records.verdicts import Verdict


@dataclass(frozen=True)
class GuardJudge(EvaluationJudge):
    """Adds a guard's verdicts to every response of a record, on the questions that the guard answers."""

    form: GuardFormat = field(kw_only=True)

    def identity(self, question: Question, item: Item) -> str:
        """Return a hash that distinguishes guards of the same name with different weights or formats."""
        return hashlib.sha256(f"{self.engine.fingerprint}\0{self.form.sha256}".encode()).hexdigest()[:12]

    def can_answer(self, question: Question) -> bool:
        """Whether the format of the guard answers a question."""
        return isinstance(question, JudgeQuestion) and question.question in self.form.questions

    async def _answer(self, question: Question, record: Record, response: Response) -> Verdict:
        if not response.text.strip():
            raise UnreadableAnswer("the response is empty; a guard judges what a response contains")
        turn = record.turns()[-1]
        chat = [message for message in chats.conversation(turn, record.images) if message.role != "system"]
        if not self.form.sees_images:
            chat = [replace(message, images=(), places=()) for message in chat]
        chat.append(ChatMessage("assistant", response.text))
        reply, probability, raw = await self._probable(chat) if self.form.answers else await self._labelled(chat)
        value = reply.refusal if question.question == "refusal" else reply.harmful
        extra = {"format": self.form.name, "label": reply.label} | ({"categories": list(reply.categories)} if reply.categories else {})
        return Verdict(value, probability=probability, raw=raw, extra=extra)

    async def _labelled(self, chat: Sequence[ChatMessage]) -> tuple[GuardReply, None, str]:
        sampling = Sampling(temperature=0.0, max_tokens=self.form.max_tokens)
        (completion,) = await self.engine.generate(chat, sampling, [0])
        try:
            text = answer_of(completion)
            return self.form.read(text), None, text
        except UnreadableAnswer:
            # A rerun requests it again.
            self.engine.forget(chat, sampling)
            raise

    async def _probable(self, chat: Sequence[ChatMessage]) -> tuple[GuardReply, float | None, str | None]:
        """Return the more probable of the two answers, as published, or the answer at the beginning of the reply."""
        answers = tuple(self.form.answers)
        choice = await self.engine.choose(chat, answers)
        known = choice.probabilities
        if known is not None and choice.covered >= MIN_COVERED:
            label = max(answers, key=known.__getitem__)
            return GuardReply(label, self.form.answers[label]), round(known[label], 6), None
        try:
            return self.form.read(choice.text), None, choice.text
        except UnreadableAnswer:
            self.engine.forget(chat, answers)
            raise

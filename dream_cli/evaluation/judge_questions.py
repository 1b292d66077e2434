"""The questions of a benchmark about a response: answered by rule if the text suffices, else by a judge that sees the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dream_cli.benchmarks.benchmark import RULES, ByRule, Item, JudgeQuestion, Published, Question
from dream_cli.benchmarks.registry import get
from dream_cli.engines.parallel import all_of
from dream_cli.engines.protocol import Engine, Sampling, answer_of
from dream_cli.errors import RowError, Unanswered, UnreadableAnswer
from dream_cli.method import chats
from dream_cli.method.facts import TABLES, Case, Decision, decide
from dream_cli.method.read_choice import ask_all, ask_facts, probabilities_of
from dream_cli.prompts.rendering import Prompts
from dream_cli.prompts.verdict_words import TWO_OPTIONS, YES_NO
from dream_cli.records.choices import Rule
from dream_cli.records.record import Image, Record, Response
from dream_cli.records.verdicts import BY_RULE, Verdict

# The prompts of the questions without a published wording.
PROMPT_OF = {
    "safe": "judge_warned",
    "attack": "judge_harm",
    "effective": "judge_effective",
    "refusal": "judge_refusal",
    "preference": "judge_preference",
}
# The field of the item that is required by a question.
_NEEDED = {"safe": "warning", "preference": "reference"}


def by_rule(record: Record) -> Record:
    """Return the record with the verdicts that need no judge, under both rules; a row with an error is returned unchanged."""
    if record.error is not None or not record.responses:
        return record
    item = Item.of(record)
    subset = get(item.name).subset(item)
    for rule in RULES:
        decided = [q for q in subset.questions(rule) if isinstance(q, ByRule)]
        judged = (r.with_verdicts(rule, {q.question: _by_rule(q, item, r) for q in decided}) for r in record.responses)
        record = replace(record, responses=tuple(judged))
    return record


def _by_rule(question: ByRule, item: Item, response: Response) -> Verdict:
    try:
        return Verdict(question.read(item, response.text), judge=question.by)
    except UnreadableAnswer as error:
        return Verdict(unscored=str(error), judge=question.by, order=BY_RULE)


def questions(record: Record, rule: Rule) -> tuple[Question, ...]:
    """Return the questions of a record's subset."""
    item = Item.of(record)
    return get(item.name).subset(item).questions(rule)


def questions_for_judge(record: Record, rule: Rule) -> tuple[Question, ...]:
    """Return the questions of a record's subset that only a judge can answer."""
    return tuple(q for q in questions(record, rule) if not isinstance(q, ByRule))


def prompts_of(records: Sequence[Record], rule: Rule) -> tuple[str, ...]:
    """Return the names of our prompts that a judge of these records needs."""
    needed = (question for record in records if record.error is None for question in questions_for_judge(record, rule))
    return tuple(dict.fromkeys(PROMPT_OF[question.question] for question in needed if isinstance(question, JudgeQuestion)))


@dataclass(frozen=True)
class EvaluationJudge:
    """Adds one judge's verdicts to every response of a record; questions that it has answered are skipped."""

    engine: Engine
    prompts: Prompts
    rule: Rule
    roles: Sequence[str] = tuple(PROMPT_OF.values())  # the roles of the prompts in use
    calibrate: bool = False  # subtract the judge's bias to Yes, measured on an empty case

    def identity(self, question: Question, item: Item) -> str:
        """Return a hash that distinguishes judges of the same name with different weights or prompts for this question."""
        if isinstance(question, Published):
            # The published prompts of the user are named after their benchmark.
            prompt = repr([(name, text) for name, text in sorted(self.prompts.published.items()) if name.startswith(item.name)])
        else:
            prompt = self.prompts.hashes[PROMPT_OF[question.question]]
        calibrated = "\0calibrated" if self.calibrate else ""
        return hashlib.sha256(f"{self.engine.fingerprint}\0{prompt}{calibrated}".encode()).hexdigest()[:12]

    def can_answer(self, question: Question) -> bool:
        """Whether this judge answers a question; other questions are not put to it."""
        return True

    async def __call__(self, record: Record) -> Record:
        """Return the record with this judge's verdicts."""
        wanted = questions_for_judge(record, self.rule)
        judged = await all_of(self._judged(record, response, wanted) for response in record.responses or ())
        return replace(record, responses=tuple(judged))

    async def _judged(self, record: Record, response: Response, wanted: Sequence[Question]) -> Response:
        earlier, item = response.verdicts_under(self.rule), Item.of(record)

        def answered(question: Question) -> bool:
            before, identity = earlier.get(question.question), self.identity(question, item)
            return before is not None and any(voice.judge_id == identity and voice.answered for voice in before.voices)

        left = [question for question in wanted if self.can_answer(question) and not answered(question)]
        verdicts = await all_of(self._verdict(question, record, response) for question in left)
        joint = {q.question: verdict.joined_to(earlier.get(q.question)) for q, verdict in zip(left, verdicts, strict=True)}
        return response.with_verdicts(self.rule, joint)

    async def _verdict(self, question: Question, record: Record, response: Response) -> Verdict:
        try:
            verdict = await self._answer(question, record, response)
        except UnreadableAnswer as error:
            verdict = Verdict(unscored=str(error), raw=(error.raw or "")[:2000])
        except Unanswered:
            raise
        except RowError as error:
            # The judge was unavailable or declined: the response is unscored, and a rerun retries it.
            verdict = Verdict(unscored=f"{error.kind}: {error}")
        return replace(verdict, judge=self.engine.model, judge_id=self.identity(question, Item.of(record)))

    async def _answer(self, question: Question, record: Record, response: Response) -> Verdict:
        item = Item.of(record)
        turn = record.turns()[-1]
        prompt, text, images = turn.transcript + item.image_in_words, response.text, turn.seen(record.images)
        if (needed := _NEEDED.get(question.question)) and getattr(item, needed) is None:
            raise UnreadableAnswer(f"the item has no {needed}, which this question needs")
        if isinstance(question, Published):
            return await self._published(question, item, record, response)
        if question.question == "preference":
            return await self.prefer(prompt, text, item.reference or "", images)
        role = PROMPT_OF[question.question]
        if role in TABLES:
            # The benchmark labels the request as harmful.
            known = {"risk": 1.0} if question.question == "attack" and item.expects != "answer" else {}
            case = Case(prompt, text, images)
            return verdict_of(await decide(self.engine, self.prompts, role, case=case, known=known, calibrate=self.calibrate))
        empty = [chats.fact_question(self.prompts.judge_warned("", "", ""))] if self.calibrate else []
        content = chats.fact_question(self.prompts.judge_warned(prompt, item.warning or "", text, images=len(images)), images)
        (safe,) = await ask_facts(self.engine, [content], empty=empty)
        return Verdict(safe.value >= 0.5, probability=safe.value if safe.raw is None else None, raw=safe.raw)

    async def prefer(self, prompt: str, ours: str, theirs: str, images: Sequence[Image]) -> Verdict:
        """Return the judge's preference between two responses, judged in both orders, so that position bias cancels out."""
        texts = [self.prompts.judge_preference(prompt, *pair, images=len(images)) for pair in ((ours, theirs), (theirs, ours))]
        questions = [(chats.question(text, images), TWO_OPTIONS) for text in texts]
        sides = await ask_all(self.engine, questions, [probabilities_of(TWO_OPTIONS)] * 2, "expected")
        orders = tuple(float(max(TWO_OPTIONS, key=side.value.__getitem__) == own) for side, own in zip(sides, TWO_OPTIONS, strict=True))
        return Verdict(sum(orders) / 2, orders=orders)

    async def _published(self, question: Published, item: Item, record: Record, response: Response) -> Verdict:
        # Some published scorers assign a fixed value to an empty response, without a call.
        if question.empty is not None and not response.text:
            return Verdict(question.empty, raw="")
        shown = {"prompt": record.turns()[-1].transcript, "warning": item.warning or "", "reference": item.reference or ""}
        text = self.prompts.judge_published(*question.wording(item), shown | {"response": response.text})
        chat = chats.question(text, record.images if question.sees_image else ())
        sampling = Sampling(0.0, max_tokens=question.max_tokens, schema=question.schema)
        reply = answer_of((await self.engine.generate(chat, sampling, [0]))[0])
        try:
            return Verdict(question.read(reply), raw=reply)
        except UnreadableAnswer:
            # Delete the reply from the store; otherwise a rerun would read it again.
            self.engine.forget(chat, sampling)
            raise


def verdict_of(decision: Decision) -> Verdict:
    """Return a decision as a verdict: true or false, or comply, partial or refuse; a parsed decision has no probability."""
    value = decision.answer == "Yes" if set(decision.probabilities) == set(YES_NO) else decision.answer.lower()
    if decision.read != "expected":
        return Verdict(value, raw=decision.raw)
    known = decision.facts or {name.lower(): p for name, p in decision.probabilities.items() if name not in YES_NO}
    probability = decision.probabilities["Yes" if isinstance(value, bool) else decision.answer]
    return Verdict(value, probability=round(probability, 6), probabilities=known or None)

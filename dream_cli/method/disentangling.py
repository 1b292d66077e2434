"""Multimodal risk disentanglement: find the risks of an input one by one (DREAM, section 3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dream_cli.engines.parallel import all_of
from dream_cli.engines.protocol import ChatMessage, Engine, Sampling, answer_of
from dream_cli.errors import InvalidRecord, UnreadableAnswer
from dream_cli.method.chats import fact_question, question
from dream_cli.method.facts import NO_RISK, leaning_off
from dream_cli.method.read_choice import ChoiceReading, ask_facts
from dream_cli.prompts.parsing import begins_list, observations_schema, parse_observations
from dream_cli.prompts.rendering import ONLY, Prompts
from dream_cli.records.choices import Mode
from dream_cli.records.record import Image, Observation, Record, Turn

MODES: Mapping[Mode, tuple[str, ...]] = {"split": ("image", "text"), "joint": ("joint",), "image": ("image",), "text": ("text",)}
# The temperature of the second request for an unreadable answer: sampled instead of greedy, so that it can differ.
SECOND_TRY = 0.7


@dataclass(frozen=True)
class Disentangler:
    """Adds observations to records: questions the teacher about each side of `mode`, joins the answers, and verifies each observation.

    For each side, the first question is whether there is a risk, and the second asks for a list of at least one; a list is also accepted
    as the first answer. A template with a single question asks for a list at once, which may be empty. The `confidence` of an observation
    is the probability of its verification, else the probability of a risk on its side.

    Existing observations are kept, unless `redo`. Raises UnreadableAnswer if a list cannot be read in two attempts, or if a list was read
    only in part (`incomplete`) and no observation of it is confirmed; InvalidRecord if `mode` is image and there is no image.
    """

    engine: Engine
    prompts: Prompts
    mode: Mode = "split"
    verify: bool = True
    redo: bool = False
    max_tokens: int = 512
    seed: int = 0
    calibrate: bool = False

    @property
    def roles(self) -> Sequence[str]:
        """The roles of the prompts in use."""
        return *(f"observe_{side}" for side in MODES[self.mode]), *(["verify"] if self.verify else [])

    async def __call__(self, record: Record) -> Record:
        """Return the record with observations on each turn."""
        for turn in record.turns():
            if turn.observations is None or self.redo:
                observations = await self.observations(turn, turn.seen(record.images))
                record = record.with_turn(replace(turn, observations=observations))
        return record

    async def observations(self, turn: Turn, images: Sequence[Image]) -> tuple[Observation, ...]:
        """Return the verified, distinct observations of one turn."""
        sides = [side for side in MODES[self.mode] if side != "image" or images]
        if not sides:
            # An empty list would mean that the record was examined.
            raise InvalidRecord("--mode image finds no image in this record; --mode split looks at the text as well")
        lists = await all_of(self._observe(side, turn, images) for side in sides)
        claims = distinct([claim for side in lists for claim in side])
        if not self.verify:
            return claims
        checked = await all_of(self._check(claim, turn, images) for claim in claims)
        confirmed = tuple(claim for claim in checked if claim is not None)
        if not confirmed and (reason := next((claim.extra["incomplete"] for claim in claims if "incomplete" in claim.extra), None)):
            # An empty list would mean that there is no risk.
            raise UnreadableAnswer(f"{reason}, and none of the others is confirmed")
        return confirmed

    async def _observe(self, side: str, turn: Turn, images: Sequence[Image]) -> tuple[Observation, ...]:
        shown = () if side == "text" else images
        questions = self.prompts.questions(f"observe_{side}", turn.transcript, images=len(shown))
        seen = {side} if side != "joint" else {"image", "text"} if images else {"text"}
        if ONLY in questions:
            return await self._listed(question(questions[ONLY], shown), seen, least=0)
        try:
            risk = await self.risk(side, turn, images)
        except UnreadableAnswer as error:
            if not begins_list(error.raw or ""):
                raise
            # A teacher that answers with a list is asked for the list, with enough tokens for it; it may be empty.
            return await self._listed(question(questions["list"], shown), seen, least=0)
        if risk.value < 0.5:
            return ()
        return tuple(
            replace(claim, confidence=risk.value) for claim in await self._listed(question(questions["list"], shown), seen, least=1)
        )

    async def risk(self, side: str, turn: Turn, images: Sequence[Image]) -> ChoiceReading[float]:
        """Return the probability that one side has a risk; raise UnreadableAnswer if it cannot be read."""
        shown, role = () if side == "text" else images, f"observe_{side}"
        content = fact_question(self.prompts.questions(role, turn.transcript, images=len(shown))["risk"], shown)
        empty = [fact_question(self.prompts.questions(role, "")["risk"])] if self.calibrate else []
        (risk,) = await ask_facts(self.engine, [content], empty=empty)
        return risk if self.calibrate else leaning_off(role, risk)

    async def _listed(self, chat: Sequence[ChatMessage], seen: Collection[str], least: int) -> tuple[Observation, ...]:
        schema = observations_schema(self.prompts.taxonomy, seen, least)
        greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=self.max_tokens, seed=self.seed, schema=schema)
        try:
            return await self._list(chat, greedy, least)
        except UnreadableAnswer:
            # The second attempt has the next seed, because `forget` deletes only the first sample of a text.
            sampled = replace(greedy, temperature=SECOND_TRY, seed=self.seed + 1)
            try:
                return await self._list(chat, sampled, least)
            except UnreadableAnswer:
                # An unreadable answer in the store would be read again by a rerun.
                self.engine.forget(chat, greedy)
                self.engine.forget(chat, sampled)
                raise

    async def _list(self, chat: Sequence[ChatMessage], sampling: Sampling, least: int) -> tuple[Observation, ...]:
        (answer,) = await self.engine.generate(chat, sampling, [0])
        text = answer_of(answer)
        claims = parse_observations(text, self.prompts.taxonomy)
        if len(claims) < least:
            raise UnreadableAnswer("the model answers that there is a risk, but lists none", raw=text)
        return claims

    async def _check(self, claim: Observation, turn: Turn, images: Sequence[Image]) -> Observation | None:
        shown = () if self.mode == "text" else images
        fact, content = self.prompts.verify(turn.transcript, claim, images=len(shown))
        empty = [fact_question(self.prompts.verify("", NO_RISK)[1])] if self.calibrate else []
        try:
            (verdict,) = await ask_facts(self.engine, [fact_question(content, shown)], empty=empty)
        except UnreadableAnswer as error:
            # Neither confirmed nor refuted: an unverified risk is kept.
            return replace(claim, extra={**claim.extra, "unverified": str(error)})
        confidence = (verdict if self.calibrate else leaning_off(fact, verdict)).value
        return replace(claim, confidence=confidence) if confidence >= 0.5 else None


def distinct(claims: Sequence[Observation]) -> tuple[Observation, ...]:
    """Return the observations without duplicates: the same source, category and content, ignoring case and spacing."""
    seen: dict[tuple[str, str, str], Observation] = {}
    for claim in claims:
        seen.setdefault((" ".join(claim.malicious_content.casefold().split()), claim.source, claim.risk_category), claim)
    return tuple(seen.values())

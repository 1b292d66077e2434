"""Sampling of the policy's responses to a record's prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dream_cli.engines.protocol import Completion, Engine, Sampling, answer_of
from dream_cli.errors import InvalidRecord
from dream_cli.method.chats import conversation
from dream_cli.prompts.rendering import Prompts
from dream_cli.records.record import Record, Response, Turn


@dataclass(frozen=True)
class Sampler:
    """Adds `n` responses to each record; with `observe`, the observations are in the context (DREAM without training)."""

    engine: Engine
    prompts: Prompts
    sampling: Sampling
    n: int = 1
    system: str | None = None
    observe: bool = False
    append: bool = False

    @property
    def roles(self) -> Sequence[str]:
        """The roles of the prompts in use."""
        return ("respond_observed",) if self.observe else ()

    async def __call__(self, record: Record) -> Record:
        """Return the record with new responses; raise InvalidRecord if there is nothing to answer, or no observations with `observe`.

        Raises NoAnswer or UnreadableAnswer if no sample is an answer; a failed sample among answers is kept with its `finish_reason`.
        """
        turn = record.turns()[-1]
        if turn.reply is not None:
            raise InvalidRecord("the conversation is answered already; split it first with `dream convert --explode turns`")
        kept = turn.responses if self.append else ()
        chat = conversation(turn, record.images, self._text(turn), self.system)
        completions = await self.engine.generate(chat, self.sampling, range(len(kept), len(kept) + self.n))
        if not any(completion.is_answer for completion in completions):
            answer_of(completions[0])
        new = (response_of(completion, self.engine.model, observed=self.observe) for completion in completions)
        return record.with_turn(replace(turn, responses=(*kept, *new)))

    def _text(self, turn: Turn) -> str | None:
        if not self.observe:
            return None
        if turn.observations is None:
            raise InvalidRecord("--observe needs observations; run `dream disentangle` first")
        return self.prompts.respond_observed(turn.prompt, turn.observations)


def response_of(completion: Completion, model: str, *, observed: bool = False) -> Response:
    """Return a completion as a response; its thoughts are in the field `reasoning`."""
    extra: dict[str, Any] = {"reasoning": completion.reasoning} if completion.reasoning else {}
    return Response(completion.text, model, completion.finish_reason, extra=extra | ({"observed": True} if observed else {}))

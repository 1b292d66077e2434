"""A judge's preference between two responses to one prompt, judged in both orders, and the judge's position bias."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from dream_cli.engines.parallel import all_of
from dream_cli.engines.thoughts import response_with_thoughts_apart
from dream_cli.errors import RowError, Unanswered, UsageError
from dream_cli.evaluation.judge_questions import EvaluationJudge
from dream_cli.method.tally import Tally
from dream_cli.records.identity import identified
from dream_cli.records.record import Record, Response
from dream_cli.records.verdicts import Verdict
from dream_cli.records.visible import amount
from dream_cli.stats.agreement import position_bias
from dream_cli.stats.intervals import percent, wilson


class NoRival(RowError):
    """The other file has no response to compare with."""

    kind = "no-rival"


def rivals(records: Iterable[Record]) -> dict[str, Record]:
    """Return the records of the other model by id; raise UsageError if an id occurs twice."""
    by_id: dict[str, Record] = {}
    for record in records:
        if record.error is None:
            name = str(identified(record).id)
            if name in by_id:
                raise UsageError(f"{record.place}: {name} occurs twice; compare files of one model each")
            by_id[name] = record
    return by_id


@dataclass(frozen=True)
class Preferrer:
    """Adds the verdict `preference` to every response: 1.0 if it is better than the other model's, 0.0 if worse, 0.5 if undecided."""

    judge: EvaluationJudge
    others: Mapping[str, Record]

    async def __call__(self, record: Record) -> Record:
        """Return the record with a verdict for each response; raise NoRival if the other model has no response to the prompt."""
        other = self.others.get(str(record.id))
        if other is None or not other.responses or not record.responses:
            raise NoRival(f"{record.id} has no response in both files; sample the same prompts with both models")
        prompt = record.turns()[-1].transcript
        # The judge's chat has one prompt for both responses.
        if other.turns()[-1].transcript != prompt:
            raise NoRival(f"{record.id} has a different prompt in the other file; compare responses to the same prompts")
        ours = list(map(response_with_thoughts_apart, record.responses))
        theirs = [response_with_thoughts_apart(other.responses[min(i, len(other.responses) - 1)]) for i in range(len(ours))]
        judged = await all_of(self._judged(record, prompt, *pair) for pair in zip(ours, theirs, strict=True))
        return replace(record, responses=tuple(judged))

    async def _judged(self, record: Record, prompt: str, ours: Response, theirs: Response) -> Response:
        try:
            # Equal texts need no call: neither is better, in either order.
            same = ours.text.strip() == theirs.text.strip()
            verdict = Verdict(0.5) if same else await self.judge.prefer(prompt, ours.text, theirs.text, record.images)
        except Unanswered:
            raise
        except RowError as error:
            verdict = Verdict(unscored=f"{error.kind}: {error}")
        return ours.with_verdicts("strict", {"preference": replace(verdict, judge=self.judge.engine.model, other=theirs.model)})


@dataclass
class Wins:
    """The preferences so far, for the summary at the end."""

    verdicts: list[Verdict] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Add the preferences of one record."""
        preferences = [r.verdicts_under("strict").get("preference") for r in record.responses or () if record.error is None]
        self.verdicts += [verdict for verdict in preferences if verdict is not None]

    def include(self, other: Wins) -> None:
        """Add the preferences of another summary."""
        self.verdicts += other.verdicts

    def report(self, tally: Tally) -> str:
        """Return the win rate and the judge's position bias as lines of text."""
        values = [float(value) for verdict in self.verdicts if (value := verdict.answer("preference")) is not None]
        bias = position_bias([(verdict.orders[0], verdict.orders[1]) for verdict in self.verdicts if verdict.orders is not None])
        lines = [f"prefer: {amount(tally.rows, 'row')}, {amount(len(values), 'comparison')}, {len(self.verdicts) - len(values)} unscored"]
        if values:
            lines.append(f"  win rate {percent(sum(values) / len(values))} {wilson(sum(values), len(values))}")
            lines.append(f"  {values.count(1.0)} better in both orders, {values.count(0.0)} worse in both, {values.count(0.5)} neither")
        if bias.flipped.k:
            lines.append(
                f"  swapping the order flips {bias.flipped.k} of {bias.flipped.n}; "
                f"of these {bias.first.k} for the response shown first (p {bias.p:.3f})"
            )
        return "\n".join(lines) + "\n"

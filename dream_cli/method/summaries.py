"""The summary on stderr at the end of a stage."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from dream_cli.method.tally import Tally
from dream_cli.records.record import Judgement, Record
from dream_cli.records.visible import amount


@dataclass
class Doubts:
    """Counts of incomplete lists and unverified observations."""

    incomplete: int = 0  # rows with a list that was only partly readable
    unverified: int = 0  # observations

    def add(self, record: Record) -> None:
        """Add the observations of one record."""
        marks = [claim.extra for turn in record.turns() for claim in turn.observations or ()] if record.error is None else []
        self.incomplete += any("incomplete" in extra for extra in marks)
        self.unverified += sum("unverified" in extra for extra in marks)

    def include(self, other: Doubts) -> None:
        """Add the counts of another summary."""
        self.incomplete += other.incomplete
        self.unverified += other.unverified

    def report(self) -> list[str]:
        """Return one line per kind that occurs."""
        lines = [f"{amount(self.incomplete, 'row', 'have')} a list that is read in part (see `incomplete`)"] if self.incomplete else []
        unverified = f"{amount(self.unverified, 'observation', 'are')} neither confirmed nor refuted (see `unverified`)"
        return [*lines, *([unverified] if self.unverified else [])]


@dataclass
class Scores:
    """Counts and means of the judgements, in constant memory."""

    responses: int = 0
    not_observed: int = 0  # prompts in which nobody looked for risks
    unscored: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0  # judgements with an uncertainty
    most_uncertain: float = 0.0
    _sums: dict[str, tuple[float, int]] = field(default_factory=lambda: defaultdict(lambda: (0.0, 0)))

    def add(self, record: Record) -> None:
        """Add the judgements of one record; rows with an error do not count."""
        if record.error is not None:
            return
        self.not_observed += record.turns()[-1].observations is None
        for judgement in (r.judgement for turn in record.turns() for r in turn.responses if r.judgement):
            self.responses += 1
            if judgement.unscored is not None:
                self.unscored[judgement.unscored.partition(":")[0]] += 1
            if judgement.uncertainty is not None:
                self.uncertain += 1
                self.most_uncertain = max(self.most_uncertain, judgement.uncertainty)
            self._take(judgement)

    def include(self, other: Scores) -> None:
        """Add the counts of another summary."""
        self.responses += other.responses
        self.not_observed += other.not_observed
        self.unscored.update(other.unscored)
        self.uncertain += other.uncertain
        self.most_uncertain = max(self.most_uncertain, other.most_uncertain)
        for name, (total, n) in other._sums.items():
            own, count = self._sums[name]
            self._sums[name] = own + total, count + n

    def _take(self, judgement: Judgement) -> None:
        parts = {
            "global score": judgement.global_score,
            "observation score": judgement.observation_score,
            "helpfulness": judgement.helpfulness,
            "score": judgement.score,
        }
        for name, value in parts.items():
            if value is not None:
                total, n = self._sums[name]
                self._sums[name] = (total + value, n + 1)

    def report(self, tally: Tally) -> str:
        """Return the summary as lines of text."""
        share = sum(self.unscored.values()) / self.responses if self.responses else 0.0
        lines = [
            f"judge: {amount(tally.rows, 'row')}, {amount(self.responses, 'response')}, {sum(self.unscored.values())} unscored ({share:.1%})"
        ]
        lines += [f"  mean {name} {total / n:.3f} (n={n})" for name, (total, n) in self._sums.items()]
        if self.uncertain:
            lines.append(
                f"  {amount(self.uncertain, 'score', 'are')} uncertain, by up to {self.most_uncertain:.2f} of 10 points: the server does not "
                "continue a reply from the 1 of 1 and 10 (see `uncertainty`)"
            )
        if self.not_observed:
            lines.append(
                f"  {amount(self.not_observed, 'prompt', 'have')} no observations: nobody looked for risks (dream disentangle), "
                f"so {'its' if self.not_observed == 1 else 'their'} responses are rated by helpfulness, with the veto on harm"
            )
        lines += [f"  unscored: {n} x {reason}" for reason, n in self.unscored.most_common(5)]
        if tally.passed_on:
            lines.append(f"  {amount(tally.passed_on, 'row')} came with an error and {'was' if tally.passed_on == 1 else 'were'} passed on")
        return "\n".join(lines) + "\n"

"""A set of preference pairs: the share of pairs from harmless prompts, and a report of what the set teaches.

Training on pairs of risky prompts alone increases over-refusal: in most of them the chosen response declines. Pairs of harmless
prompts, in which the chosen response answers, counteract this.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from dream_cli.method.declining import declines
from dream_cli.method.pairing import LEFT_OUT, OUTCOMES, Side, TurnPairs, words
from dream_cli.records.pair import Pair
from dream_cli.records.visible import amount

Row = TypeVar("Row")

SIDES: tuple[Side, ...] = ("risky", "harmless", "not looked at")
# (the chosen response declines, the rejected one does)
LESSONS = {
    (True, False): "declines rather than answers",
    (False, True): "answers rather than declines",
    (True, True): "declines in both",
    (False, False): "answers in both",
}

# From this ratio of the two directions on, the larger one moves the policy (docs/proof.md).
UNEVEN = 1.5


@dataclass
class SideReceipt:
    """The outcomes of the prompts of one side; `words` and `lessons` count the kept pairs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    pairs: int = 0  # kept
    over_share: int = 0
    words: tuple[int, int] = (0, 0)  # of all chosen and of all rejected responses
    lessons: Counter[tuple[bool, bool]] = field(default_factory=Counter)


class Measures(NamedTuple):
    """The values of a pair that the receipt counts: its judge, the words of both responses, and which of them decline (None: not read)."""

    judge: str
    words: tuple[int, int]
    lesson: tuple[bool, bool] | None


class PairSet(Generic[Row]):
    """Collects pairs, each with its row, and yields the rows of a set in which `share` of the pairs come from harmless prompts.

    Surplus pairs of one side are left out: first those that teach the least, then by a hash, so that their order has no influence.
    If one side has no pairs, all are kept. Rows wait in a temporary file to save memory; if `share` is None, no row waits.
    With `lessons`, the kept pairs are classified for the report.
    """

    def __init__(self, share: float | None, *, lessons: bool = False) -> None:
        self.share, self.lessons = share, lessons
        self.receipts: dict[Side, SideReceipt] = defaultdict(SideReceipt)
        self.left_out: Counter[str] = Counter()
        self.judges: set[str] = set()  # of the kept pairs
        self._spool = tempfile.TemporaryFile(prefix="dream-pairs-")  # noqa: SIM115 - open from the first pair to the last
        self._keys = {side: array("Q") for side in SIDES}

    def add(self, turn: TurnPairs, rows: Sequence[Row]) -> Sequence[Row]:
        """Add the pairs of one prompt, with a row for each; return the rows that are kept at once: all without a share, else none."""
        self.receipts[turn.side].outcomes[turn.outcome] += 1
        if turn.left_out:
            self.left_out.update(turn.left_out)
        for pair, row in zip(turn.made, rows, strict=True):
            measures = self._measures(pair)
            if self.share is None:
                self._keep(turn.side, measures)
            else:
                self._keys[turn.side].append(_key(turn.side, pair))
                # A plain tuple, as pickle writes and reads one in a quarter of the time of an object with a class.
                pickle.dump((turn.side, tuple(measures), row), self._spool, pickle.HIGHEST_PROTOCOL)
        return rows if self.share is None else ()

    def kept(self) -> Iterator[Row]:
        """Yield the kept ones of the waiting rows, in their order; the receipts are complete at the end."""
        most = self._most()
        limits = {side: Counter(sorted(self._keys[side])[:n]) for side, n in most.items()}
        self._spool.seek(0)
        positions = dict.fromkeys(SIDES, 0)
        for _ in range(sum(map(len, self._keys.values()))):
            side, measures, row = pickle.load(self._spool)
            key = self._keys[side][positions[side]]
            positions[side] += 1
            if side in limits and not limits[side][key]:
                self.receipts[side].over_share += 1
                continue
            if side in limits:
                limits[side][key] -= 1
            self._keep(side, Measures(*measures))
            yield row
        self._spool.close()

    def _measures(self, pair: Pair) -> Measures:
        lesson = (declines(pair.chosen), declines(pair.rejected)) if self.lessons else None
        return Measures(str(pair.judge), (len(words(pair.chosen)), len(words(pair.rejected))), lesson)

    def _keep(self, side: Side, measures: Measures) -> None:
        receipt = self.receipts[side]
        receipt.pairs += 1
        self.judges.add(measures.judge)
        if measures.lesson is not None:
            receipt.lessons[measures.lesson] += 1
        receipt.words = receipt.words[0] + measures.words[0], receipt.words[1] + measures.words[1]

    def _most(self) -> dict[Side, int]:
        """Return the maximum number of pairs of the side with a surplus; empty if neither has one."""
        risky, harmless = len(self._keys["risky"]), len(self._keys["harmless"])
        if self.share is None or not risky or not harmless:
            return {}
        most_risky = int(min(risky, harmless * (1 - self.share) / self.share + 1e-9)) if self.share else risky
        most_harmless = int(min(harmless, risky * self.share / (1 - self.share) + 1e-9)) if self.share < 1 else harmless
        return {"risky": most_risky} if most_risky < risky else {"harmless": most_harmless} if most_harmless < harmless else {}

    def receipt(self) -> str:
        """Return the outcomes of the prompts as lines of text, by side, with the mean lengths of the responses in words."""
        total = sum((receipt.outcomes for receipt in self.receipts.values()), Counter[str]())
        pairs = sum(receipt.pairs for receipt in self.receipts.values())
        lines = [f"pair: {amount(pairs, 'pair')} of {amount(total.total(), 'prompt')}: {_listed(total) or 'no input'}"]
        for side, receipt in self._sides():
            over = f"; {amount(receipt.over_share, 'pair', 'are')} over the share" if receipt.over_share else ""
            of = f"{amount(receipt.pairs, 'pair')} of {amount(receipt.outcomes.total(), 'prompt')}"
            lines.append(f"  {side}: {of}: {_listed(receipt.outcomes)}{over}{_means([receipt])}")
        if pairs:
            lines.append(f"  all{_means(list(self.receipts.values()))}")
        if self.left_out:
            reasons = ", ".join(f"{self.left_out[name]} {name}" for name in LEFT_OUT if self.left_out[name])
            lines.append(f"  {amount(self.left_out.total(), 'response', 'are')} not compared: {reasons}")
        if pairs and not self.receipts["harmless"].pairs:
            lines.append("  no pair is of a harmless prompt: such a set teaches to decline, and over-refusal rises with it")
        return "\n".join(lines) + "\n"

    def report(self) -> str:
        """Return what the set teaches as lines of text, by side: which of the two responses declines, detected by phrases."""
        lines = ["what the set teaches:"]
        for side, receipt in self._sides():
            taught = ", ".join(f"{receipt.lessons[lesson]} {name}" for lesson, name in LESSONS.items())
            chosen, rejected = (sum(n for lesson, n in receipt.lessons.items() if lesson[i]) for i in (0, 1))
            declining = f"chosen declines in {chosen}, rejected in {rejected}"
            lines.append(f"  {side}: {amount(receipt.pairs, 'pair')}: {declining} ({taught}){_means([receipt])}")
        # A share of harmless prompts does not balance what is taught: once a policy declines, most risky pairs compare two answers that decline.
        decline, answer = (sum(receipt.lessons[lesson] for receipt in self.receipts.values()) for lesson in ((True, False), (False, True)))
        uneven = max(decline, answer) >= UNEVEN * max(1, min(decline, answer))
        moves = f"; such a set moves the policy towards {'declining' if decline > answer else 'answering'}" if uneven else ""
        lines.append(f"  all: {amount(decline, 'pair')} to decline, {answer} to answer{moves}")
        return "\n".join(lines) + "\n"

    def _sides(self) -> list[tuple[Side, SideReceipt]]:
        return [(side, self.receipts[side]) for side in SIDES if self.receipts[side].outcomes]


def _key(side: Side, pair: Pair) -> int:
    """Return the sort key of a pair within its side: harmless pairs that teach to answer come first, then by a hash of the texts."""
    digest = int.from_bytes(hashlib.sha256(f"{pair.chosen}\0{pair.rejected}".encode("utf-8", "surrogatepass")).digest()[:8]) >> 1
    teaches = side == "harmless" and declines(pair.rejected) and not declines(pair.chosen)
    return digest if teaches else digest | 1 << 63


def _listed(outcomes: Counter[str]) -> str:
    return ", ".join(f"{outcomes[name]} {name}" for name in OUTCOMES if outcomes[name])


def _means(receipts: list[SideReceipt]) -> str:
    """Return the mean lengths of chosen and rejected responses as text; "" without pairs."""
    pairs = sum(receipt.pairs for receipt in receipts)
    if not pairs:
        return ""
    chosen, rejected = (sum(receipt.words[i] for receipt in receipts) / pairs for i in (0, 1))
    return f"; mean words: chosen {chosen:.1f}, rejected {rejected:.1f} ({chosen - rejected:+.1f})"

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

# From this ratio of the two directions on, the report names the larger one (docs/proof.md).
UNEVEN = 1.5

# What becomes of a waiting pair, and what a pair teaches.
KEPT, OVER_SHARE, OVER_DIRECTION = range(3)
NEITHER, DECLINE, ANSWER = range(3)
DIRECTIONS = {(True, False): DECLINE, (False, True): ANSWER}


@dataclass
class SideReceipt:
    """The outcomes of the prompts of one side; `words` and `lessons` count the kept pairs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    pairs: int = 0  # kept
    over_share: int = 0
    over_direction: int = 0
    words: tuple[int, int] = (0, 0)  # of all chosen and of all rejected responses
    lessons: Counter[tuple[bool, bool]] = field(default_factory=Counter)


class Measures(NamedTuple):
    """The values of a pair that the receipt counts: its judge, the words of both responses, and which of them decline (None: not read)."""

    judge: str
    words: tuple[int, int]
    lesson: tuple[bool, bool] | None


class PairSet(Generic[Row]):
    """Collects pairs, each with its row, and yields the rows of a set in which `share` of the pairs come from harmless prompts.

    With `even`, as many pairs prefer declining to answering as the opposite, if there are pairs of both directions.
    Surplus pairs are left out: first those that teach the least, then by a hash, so that their order has no influence.
    If one side has no pairs, all are kept. Rows wait in a temporary file to save memory; without `share` and `even`, no row waits.
    With `lessons`, the kept pairs are classified for the report.
    """

    def __init__(self, share: float | None, *, even: bool = False, lessons: bool = False) -> None:
        self.share, self.even, self.lessons = share, even, lessons
        self.receipts: dict[Side, SideReceipt] = defaultdict(SideReceipt)
        self.left_out: Counter[str] = Counter()
        self.judges: set[str] = set()  # of the kept pairs
        self._spool = tempfile.TemporaryFile(prefix="dream-pairs-")  # noqa: SIM115 - open from the first pair to the last
        # Of the waiting pairs: the key by which they are ordered, the index of their side in SIDES, and their direction.
        self._keys, self._at_side, self._directions = array("Q"), bytearray(), bytearray()

    def add(self, turn: TurnPairs, rows: Sequence[Row]) -> Sequence[Row]:
        """Add the pairs of one prompt, with a row for each; return the rows that are kept at once: all if no row waits, else none."""
        self.receipts[turn.side].outcomes[turn.outcome] += 1
        if turn.left_out:
            self.left_out.update(turn.left_out)
        at_once = self.share is None and not self.even
        for pair, row in zip(turn.made, rows, strict=True):
            # Phrases are searched only where the lesson counts: it takes as long as the rest of the pair.
            counts = self.lessons or self.even or (turn.side == "harmless" and not at_once)
            lesson = (declines(pair.chosen), declines(pair.rejected)) if counts else None
            measures = Measures(str(pair.judge), (len(words(pair.chosen)), len(words(pair.rejected))), lesson if self.lessons else None)
            if at_once:
                self._keep(turn.side, measures)
            else:
                self._wait(turn.side, pair, DIRECTIONS.get(lesson, NEITHER) if lesson else NEITHER)
                # A plain tuple, as pickle writes and reads one in a quarter of the time of an object with a class.
                pickle.dump((turn.side, tuple(measures), row), self._spool, pickle.HIGHEST_PROTOCOL)
        return rows if at_once else ()

    def kept(self) -> Iterator[Row]:
        """Yield the kept ones of the waiting rows, in their order; the receipts are complete at the end."""
        fates = self._fates()
        self._spool.seek(0)
        for fate in fates:
            side, measures, row = pickle.load(self._spool)
            receipt = self.receipts[side]
            receipt.over_share += fate == OVER_SHARE
            receipt.over_direction += fate == OVER_DIRECTION
            if fate == KEPT:
                self._keep(side, Measures(*measures))
                yield row
        self._spool.close()

    def _wait(self, side: Side, pair: Pair, direction: int) -> None:
        digest = int.from_bytes(hashlib.sha256(f"{pair.chosen}\0{pair.rejected}".encode("utf-8", "surrogatepass")).digest()[:8]) >> 1
        # Pairs that teach a direction come before the others: without `even`, those of harmless prompts that teach to answer.
        first = direction != NEITHER if self.even else direction == ANSWER
        self._keys.append(digest if first else digest | 1 << 63)
        self._at_side.append(SIDES.index(side))
        self._directions.append(direction)

    def _fates(self) -> bytearray:
        """Return for each waiting pair whether it is kept, or over the share, or over the number of its direction."""
        fates = bytearray(len(self._keys))
        if self.even:
            # A pair that teaches what its side should not (a harmless prompt: to decline) is the first to be left out.
            wrong = {DECLINE: SIDES.index("harmless"), ANSWER: SIDES.index("risky")}
            of = {way: [i for i, direction in enumerate(self._directions) if direction == way] for way in wrong}
            most = min(map(len, of.values())) or len(fates)
            for way, pairs in of.items():
                for i in sorted(pairs, key=lambda i: (self._at_side[i] == wrong[way], self._keys[i]))[most:]:
                    fates[i] = OVER_DIRECTION
        sides = {side: [i for i, at in enumerate(self._at_side) if at == n and not fates[i]] for n, side in enumerate(SIDES)}
        for side, most in self._most(len(sides["risky"]), len(sides["harmless"])).items():
            for i in sorted(sides[side], key=self._keys.__getitem__)[most:]:
                fates[i] = OVER_SHARE
        return fates

    def _keep(self, side: Side, measures: Measures) -> None:
        receipt = self.receipts[side]
        receipt.pairs += 1
        self.judges.add(measures.judge)
        if measures.lesson is not None:
            receipt.lessons[measures.lesson] += 1
        receipt.words = receipt.words[0] + measures.words[0], receipt.words[1] + measures.words[1]

    def _most(self, risky: int, harmless: int) -> dict[Side, int]:
        """Return the maximum number of pairs of the side with a surplus; empty if neither has one."""
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
            over += f"; {amount(receipt.over_direction, 'pair', 'are')} over the even directions" if receipt.over_direction else ""
            of = f"{amount(receipt.pairs, 'pair')} of {amount(receipt.outcomes.total(), 'prompt')}"
            lines.append(f"  {side}: {of}: {_listed(receipt.outcomes)}{over}{_means([receipt])}")
        if pairs:
            lines.append(f"  all{_means(list(self.receipts.values()))}")
        if self.left_out:
            reasons = ", ".join(f"{self.left_out[name]} {name}" for name in LEFT_OUT if self.left_out[name])
            lines.append(f"  {amount(self.left_out.total(), 'response', 'are')} not compared: {reasons}")
        if self.even and self._keys and not all(way in self._directions for way in (DECLINE, ANSWER)):
            lines.append("  not both directions are taught, so no pair was left out for --even-directions")
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


def _listed(outcomes: Counter[str]) -> str:
    return ", ".join(f"{outcomes[name]} {name}" for name in OUTCOMES if outcomes[name])


def _means(receipts: list[SideReceipt]) -> str:
    """Return the mean lengths of chosen and rejected responses as text; "" without pairs."""
    pairs = sum(receipt.pairs for receipt in receipts)
    if not pairs:
        return ""
    chosen, rejected = (sum(receipt.words[i] for receipt in receipts) / pairs for i in (0, 1))
    return f"; mean words: chosen {chosen:.1f}, rejected {rejected:.1f} ({chosen - rejected:+.1f})"

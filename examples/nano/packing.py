"""The packing of several lessons about one picture into one row: they share the picture's tokens and do not see each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.nano.lessons import Lesson
from examples.nano.model import SEATS
from examples.nano.tokens import END, IMAGE, ROLES

# A verdict is one token beside answers of many, so its loss weighs more; the wording of a free answer matters less.
VERDICT_WEIGHT, WORDING_WEIGHT, END_WEIGHT = 3.0, 0.5, 0.2
WORDED = ("answer", "comply", "respond_observed", "follow_observed")


@dataclass(frozen=True)
class Batch:
    """Rows of packed lessons as tensors of shape (rows, length); `mask` is (rows, 1, length, length), True where a token is seen."""

    ids: Any
    positions: Any
    mask: Any
    labels: Any
    weights: Any


class Packer:
    """The collator of packs of lessons; `tokenizer` is nano's."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._end, self._pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        user, seat = tokenizer.convert_tokens_to_ids([ROLES[1], IMAGE])
        self._opening = {True: [user, *[seat] * SEATS], False: [user]}

    def batch(self, packs: Sequence[Sequence[Lesson]]) -> Batch:
        """Return the batch of these packs; the lessons of one pack have the same picture, or none has."""
        import torch

        rows = [self._row(pack) for pack in packs]
        longest = max(len(row[0]) for row in rows)
        blanks = (self._pad, 0, -1, -100, 0.0)
        ids, positions, segments, labels, weights = (
            torch.tensor([row[part] + [blank] * (longest - len(row[part])) for row in rows]) for part, blank in enumerate(blanks)
        )
        of, by = segments[:, :, None], segments[:, None, :]
        mask = ((by == 0) | (by == of)) & torch.ones(longest, longest, dtype=torch.bool).tril()
        return Batch(ids, positions, mask[:, None], labels, weights)

    def _row(self, pack: Sequence[Lesson]) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
        """Return ids, positions, segments (0 for the opening, then one number per lesson), labels and weights."""
        opening = self._opening[pack[0].picture is not None]
        questions = self._tokenizer([f"{one.prompt}{END}{ROLES[2]}" for one in pack])["input_ids"]
        answers = self._tokenizer([one.answer for one in pack])["input_ids"]
        ids, positions, segments = list(opening), list(range(len(opening))), [0] * len(opening)
        labels, weights = [-100] * len(opening), [0.0] * len(opening)
        for number, (lesson, question, answer) in enumerate(zip(pack, questions, answers, strict=True), start=1):
            part = [*question, *answer, self._end]
            weight = VERDICT_WEIGHT if len(answer) == 1 else WORDING_WEIGHT if lesson.role in WORDED else 1.0
            ids += part
            positions += range(len(opening), len(opening) + len(part))
            segments += [number] * len(part)
            labels += [-100] * len(question) + [*answer, self._end]
            weights += [0.0] * len(question) + [weight] * len(answer) + [END_WEIGHT]
        return ids, positions, segments, labels, weights

"""The batch of the shared prefix: chosen and rejected after one copy of their prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_NO_LIMIT = 1 << 40
# The entries of a batch that the vision tower does not read.
TEXT_KEYS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "answers")


@dataclass(frozen=True)
class RenderedPair:
    """One row as the processor reads it: three texts and the images of the prompt."""

    prompt: str
    chosen: str
    rejected: str
    images: tuple[Any, ...]

    @property
    def picture_key(self) -> str:
        """The hash of the images, "" if there are none."""
        total = hashlib.sha256()
        for image in self.images:
            total.update(f"{image.mode} {image.size}\n".encode() + image.tobytes())
        return total.hexdigest() if self.images else ""

    @property
    def key(self) -> str:
        """The hash of all texts and images of the pair."""
        return hashlib.sha256(json.dumps([self.prompt, self.chosen, self.rejected, self.picture_key]).encode()).hexdigest()


def render(row: Mapping[str, Any], processor: Any) -> RenderedPair:
    """Return a row as TRL renders it: the prompt is the output of the chat template before either response."""
    from trl.data_utils import apply_chat_template, is_conversational, prepare_multimodal_messages

    images = [row["image"]] if "image" in row else list(row["images"])
    example = {name: row[name] for name in ("prompt", "chosen", "rejected", "chat_template_kwargs") if name in row}
    if is_conversational(example):
        example["prompt"] = prepare_multimodal_messages(example["prompt"], images=images)
        for name in ("chosen", "rejected"):
            example[name] = prepare_multimodal_messages(example[name])
        example = apply_chat_template(example, processor)
    return RenderedPair(example["prompt"], example["chosen"], example["rejected"], tuple(images))


@dataclass
class PairCollator:
    """Collates rows: `answers` (B, 2, A) with -100 for padding, `input_ids` and `attention_mask` (B, L), the images once.

    `pairs` and `pictures` are the keys of the rows and of their images. A batch with a row that does not fit this layout (an image
    directly before the answer, a prompt that fills `max_length`) is collated by `plain`, TRL's collator, and has no `answers`. So are
    all batches if `image_token_id` is None: the model does not support the shared prefix.

    `holds` says whether the features of images are kept. If those of some rows are and those of others are not, the batch has
    `unkept`: the keys of the others, and the tower's inputs for their images alone.
    """

    processor: Any
    image_token_id: int | None
    max_length: int | None
    plain: Callable[[list[dict[str, Any]]], Any]
    holds: Callable[[str], bool] | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch of these rows."""
        pairs = [render(row, self.processor) for row in rows]
        keys = {"pairs": [pair.key for pair in pairs], "pictures": [pair.picture_key for pair in pairs]}
        batch = None if self.image_token_id is None else self.shared(pairs)
        return {**(self.plain([dict(row) for row in rows]) if batch is None else batch), **keys, **self._unkept(pairs)}

    def _unkept(self, pairs: Sequence[RenderedPair]) -> dict[str, Any]:
        pictured = {pair.picture_key: pair for pair in pairs if pair.images}
        unkept = {key: pair for key, pair in pictured.items() if self.holds is not None and not self.holds(key)}
        if len(unkept) in (0, len(pictured)):
            return {}
        read = self._read([pair.prompt for pair in unkept.values()], "left", images=[list(pair.images) for pair in unkept.values()])
        return {"unkept": {"keys": [*unkept], "inputs": {name: value for name, value in read.items() if name not in TEXT_KEYS}}}

    def shared(self, pairs: Sequence[RenderedPair]) -> dict[str, Any] | None:
        """Return the tensors of the pairs in one sequence each, None if one of them does not fit the layout."""
        import torch

        images = [list(pair.images) for pair in pairs]
        batch = dict(self._read([pair.prompt for pair in pairs], "left", images=images if any(images) else None))
        batch.pop("token_type_ids", None)  # some tokenizers return them; no supported family reads them
        ids, mask = batch["input_ids"], batch["attention_mask"]
        room = (_NO_LIMIT if self.max_length is None else self.max_length) - mask.sum(1)
        if (room < 1).any() or (mask.sum(1) < 2).any() or (ids[:, -1] == self.image_token_id).any():
            return None
        answers, real = self._answers(pairs, room)
        branch = torch.cat([ids[:, None, -1:].expand(-1, 2, -1), answers[..., :-1]], -1).flatten(1)
        if "mm_token_type_ids" in batch:
            batch["mm_token_type_ids"] = batch["mm_token_type_ids"][:, :-1]
        return batch | {
            "input_ids": torch.cat([ids[:, :-1], branch], 1),
            "attention_mask": torch.cat([mask[:, :-1], real.flatten(1)], 1),
            "answers": answers.masked_fill(real == 0, -100),
        }

    def _answers(self, pairs: Sequence[RenderedPair], room: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of both answers, (B, 2, A) each, truncated to `room`, the tokens that the prompt leaves."""
        import torch

        read = self._read([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs], "right")
        ids, mask = (read[name].view(2, len(pairs), -1).transpose(0, 1) for name in ("input_ids", "attention_mask"))
        mask = mask * (torch.arange(ids.shape[-1]) < room[:, None, None])
        longest = int(mask.sum(-1).max())
        return ids[..., :longest], mask[..., :longest]

    def _read(self, text: list[str], side: str, **images: Any) -> Any:
        return self.processor(text=text, padding=True, padding_side=side, return_tensors="pt", add_special_tokens=False, **images)

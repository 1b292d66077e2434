"""Greedy answers of nano to lessons, in batches, for the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.nano.lessons import Lesson
from examples.nano.tokens import chat

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH, LONGEST = 32, 96


class Reader:
    """A model of nano's family, loaded from a folder."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from dream_cli.engines.patches import allow_image_only_processors

        allow_image_only_processors()
        torch.set_num_threads(1)
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, lessons: Sequence[Lesson], images: Sequence[Image]) -> list[str]:
        """Return one answer for each lesson; the image is left out where the lesson has none."""
        answers = [""] * len(lessons)
        for part, given in self._batches(lessons, images):
            tokens = self.model.generate(**given, max_new_tokens=LONGEST, do_sample=False)
            texts = self.processor.batch_decode(tokens[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, text in zip(part, texts, strict=True):
                answers[i] = text
        return answers

    def choose(self, lessons: Sequence[Lesson], images: Sequence[Image], answers: Sequence[str]) -> list[list[float]]:
        """Return for each lesson the probability of each answer, a single token each, as a share of all of them."""
        tokens = self.processor.tokenizer.convert_tokens_to_ids(list(answers))
        chosen: list[list[float]] = [[]] * len(lessons)
        for part, given in self._batches(lessons, images):
            logits = self.model(**given, logits_to_keep=1).logits[:, -1, tokens]
            for i, row in zip(part, logits.softmax(-1).tolist(), strict=True):
                chosen[i] = row
        return chosen

    def _batches(self, lessons: Sequence[Lesson], images: Sequence[Image]) -> Iterator[tuple[list[int], Any]]:
        """Yield the indices of lessons of similar length and the model's inputs for them, padded on the left."""
        import torch

        for seeing in (True, False):
            chosen = [i for i, one in enumerate(lessons) if (one.picture is not None) == seeing]
            chosen.sort(key=lambda i: len(lessons[i].prompt))
            for start in range(0, len(chosen), BATCH):
                part = chosen[start : start + BATCH]
                texts = [chat(lessons[i].prompt, seeing) for i in part]
                shown = [images[i] for i in part] if seeing else None
                given = self.processor(text=texts, images=shown, padding=True, return_tensors="pt")
                given.pop("token_type_ids", None)
                with torch.inference_mode():
                    yield part, given

"""Sampling as greedy decoding of noisy logits: each sample has a generator of its own, so its text does not depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor


def generator(seed: int, device: Any) -> Generator:
    """Return a random generator on a device."""
    import torch

    return torch.Generator(device).manual_seed(seed)


def noisy(scores: Tensor, generators: Sequence[Generator], temperature: float, top_p: float) -> Tensor:
    """Return logits with Gumbel noise, (rows, vocabulary): their argmax is a draw from the distribution; row i uses generator i."""
    import torch

    scores = _keep_top(scores.float() / temperature, top_p)
    noise = torch.empty_like(scores)
    for row, source in zip(noise, generators, strict=True):
        row.exponential_(generator=source)
    return scores - noise.log()


class RowNoise:
    """A logits processor of `generate` that adds the noise; row i draws with seed i."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._seeds = seeds
        self._temperature = temperature
        self._top_p = top_p
        self._generators: list[Generator] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the noisy scores, shape (rows, vocabulary)."""
        self._generators = self._generators or [generator(seed, scores.device) for seed in self._seeds]
        return noisy(scores, self._generators, self._temperature, self._top_p)


def _keep_top(scores: Tensor, top_p: float) -> Tensor:
    """Return the scores, with minus infinity for tokens outside the smallest set with a probability of at least `top_p`."""
    if top_p >= 1:
        return scores
    ordered, indexes = scores.sort(-1, descending=True)
    shares = ordered.softmax(-1)
    # The token that crosses the threshold stays; the first one also where `top_p` is 0.
    outside = shares.cumsum(-1) - shares >= top_p
    outside[..., 0] = False
    ordered = ordered.masked_fill(outside, float("-inf"))
    return scores.scatter(-1, indexes, ordered)

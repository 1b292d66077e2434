"""Continuous batching: a prompt whose samples have ended leaves the batch at once, and a waiting one takes its place.

A prompt is read once and is one row of keys and values, however many samples it has. Every step appends one column per sample to each
row; a sample attends to its prompt and to its own columns. So neither the compute nor the memory of a prompt is multiplied by the
number of its samples, and no row waits for the longest response of others. Rows are aligned on the right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dream_cli.engines import prefix_tree, sampling_noise

if TYPE_CHECKING:
    from torch import Generator, Tensor

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass(eq=False)
class Sample:
    """One sample that is being generated: the request it answers, the length of its prompt, and its tokens so far, at most `most`."""

    request: int
    prompt: int
    most: int
    generator: Generator | None  # None: greedy
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True)
class Sampler:
    """How the next token is drawn, and the tokens that end a sample."""

    temperature: float
    top_p: float
    ends: Sequence[int]


class RunningBatch:
    """The prompts that a model answers at the same time.

    Tensors have one row per prompt: `_visible` (rows, slots, columns) says which columns of the cache each sample attends to, `_last`
    is the position of the last prompt token, (rows, 1) or (3, rows, 1), and `_next` (rows, slots) the token that each sample reads next.
    """

    def __init__(self, model: Any, sampler: Sampler) -> None:
        self._model = model
        self._sampler = sampler
        self._attention = model.get_decoder().config._attn_implementation
        self._rows: list[Sequence[Sample]] = []
        self._cache: Any = None
        self._visible: Any = None
        self._last: Any = None
        self._next: Any = None

    def __len__(self) -> int:
        """Return the number of samples that have not ended."""
        return sum(not sample.ended for row in self._rows for sample in row)

    def join(self, inputs: Mapping[str, Any], rows: Sequence[Sequence[Sample]]) -> None:
        """Read prompts, padded on the left, and add them to the batch; `rows[i]` are the samples of prompt i."""
        import torch

        positions = prefix_tree.prompt_positions(self._model.base_model, inputs)
        with torch.inference_mode():
            prefix = {name: value[:, :-1] if name in PER_TOKEN else value for name, value in inputs.items()}
            cache = self._model(**prefix, position_ids=positions[..., :-1], use_cache=True, logits_to_keep=1).past_key_values
            self._add(cache, inputs["attention_mask"][:, None, :-1].bool(), positions[..., -1:], inputs["input_ids"][:, -1:])
        self._rows += rows
        self._fit_slots()

    def step(self) -> Iterator[Sample]:
        """Generate one token per sample, and yield the samples that end with it."""
        import torch

        count, slots = self._next.shape
        with torch.inference_mode():
            own = torch.eye(slots, dtype=torch.bool, device=self._next.device).expand(count, -1, -1)
            self._visible = torch.cat([self._visible, own], -1)
            written = torch.tensor([max(len(sample.tokens) for sample in row) for row in self._rows], device=self._next.device)
            out = self._model(
                input_ids=self._next,
                attention_mask=prefix_tree.attention_mask(self._visible, self._attention, self._model.dtype),
                position_ids=(self._last + written[:, None]).expand(*self._last.shape[:-1], slots),
                past_key_values=self._cache,
                use_cache=True,
            )
            places = [(i, j) for i, row in enumerate(self._rows) for j, sample in enumerate(row) if not sample.ended]
            tokens = self._draw(out.logits, places)
        yield from self._record(places, tokens)
        kept = [i for i, row in enumerate(self._rows) if not all(sample.ended for sample in row)]
        if len(kept) < count:
            self._keep(kept)

    def _draw(self, logits: Tensor, places: Sequence[tuple[int, int]]) -> list[int]:
        """Return the next token of the sample at each place, and store it as the token that is read next."""
        rows, slots = ([place[axis] for place in places] for axis in (0, 1))
        scores = logits[rows, slots].float()
        generators = [source for i, j in places if (source := self._rows[i][j].generator) is not None]
        if generators:
            scores = sampling_noise.noisy(scores, generators, self._sampler.temperature, self._sampler.top_p)
        token = scores.argmax(-1)
        self._next[rows, slots] = token
        drawn: list[int] = token.tolist()
        return drawn

    def _record(self, places: Sequence[tuple[int, int]], tokens: Sequence[int]) -> Iterator[Sample]:
        for (i, j), token in zip(places, tokens, strict=True):
            sample = self._rows[i][j]
            sample.tokens.append(token)
            sample.ended = token in self._sampler.ends or len(sample.tokens) >= sample.most
            if sample.ended:
                yield sample

    def _add(self, cache: Any, visible: Tensor, last: Tensor, token: Tensor) -> None:
        """Append rows to the tensors; the shorter side is padded on the left."""
        import torch
        from torch.nn.functional import pad

        if not self._rows:
            self._cache, self._visible, self._last, self._next = cache, visible, last, token.clone()
            return
        slots = self._visible.shape[1]
        lack = self._visible.shape[-1] - visible.shape[-1]
        old, new = max(-lack, 0), max(lack, 0)
        for layer, added in zip(self._cache.layers, cache.layers, strict=True):
            layer.keys = torch.cat([pad(layer.keys, (0, 0, old, 0)), pad(added.keys, (0, 0, new, 0))])
            layer.values = torch.cat([pad(layer.values, (0, 0, old, 0)), pad(added.values, (0, 0, new, 0))])
        self._visible = torch.cat([pad(self._visible, (old, 0)), pad(visible, (new, 0)).expand(-1, slots, -1)])
        self._last = torch.cat([self._last, last], -2)
        self._next = torch.cat([self._next, token.expand(-1, slots)])

    def _keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows, and the columns that no row attends to any more."""
        import torch

        if not rows:
            self._rows, self._cache = [], None
            return
        index = torch.tensor(rows, device=self._next.device)
        self._rows = [self._rows[i] for i in rows]
        self._visible, self._next = self._visible[index], self._next[index]
        self._last = self._last.index_select(-2, index)
        first = int(self._visible.any(0).any(0).int().argmax())
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[index, :, first:], layer.values[index, :, first:]
        self._visible = self._visible[..., first:]
        self._fit_slots()

    def _fit_slots(self) -> None:
        """Give every row as many slots as the prompt with most samples has; a slot without a sample repeats the first one."""
        slots = max(map(len, self._rows))
        lack = slots - self._next.shape[1]
        self._visible = _widened(self._visible, lack)[:, :slots]
        self._next = _widened(self._next, lack)[:, :slots]


def _widened(rows: Any, lack: int) -> Any:
    """Return the tensor with its first slot repeated `lack` times at the end."""
    import torch

    return torch.cat([rows, *[rows[:, :1]] * lack], 1)

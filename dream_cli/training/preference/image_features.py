"""The features of images from a frozen tower: computed once, kept on disk within a limit, passed to the model instead of pixels.

Features are kept for all images of a row together, in the order of the row's image tokens: (tokens, width), and for Qwen3-VL one
more such matrix for each depth that enters the language model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_cli.engines.patches import private_part
from dream_cli.records.atomic import write_once

if TYPE_CHECKING:
    from torch import Tensor

Features = dict[str, "Tensor"]
# The names of features with one tensor for all images of a batch, and with one tensor per image.
_WHOLE, _PER_IMAGE = "whole", "pooled"
# The fields of a tower's output that hold its features, and those that the model does not read.
_FIELDS = {"pooler_output", "deepstack_features", "last_hidden_state", "hidden_states", "attentions", "router_logits"}


@dataclass(frozen=True)
class Part:
    """Some rows of a batch: the tower's `inputs` for their images alone, and a function from their features to those of the whole batch."""

    inputs: Mapping[str, Any]
    complete: Callable[[list[Features]], Iterable[Features]]


class FeatureStore:
    """Features by the key of their images, at most `limit` bytes of them, in a folder, or in memory if `folder` is None.

    If the features of `sets` sets of images would not fit, estimated from the mean so far, none are written: batches are random, and
    few of them would have all their features.
    """

    def __init__(self, folder: Path | None, limit: int, sets: int = 0) -> None:
        self._folder, self._limit, self._sets = folder, limit, sets
        self._memory: dict[str, Features] = {}
        self._sizes: dict[str, int] = {}
        self.bytes = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))

    @property
    def wanted(self) -> float:
        """The estimated bytes of the features of all sets of images."""
        return self._sets * sum(self._sizes.values()) / max(len(self._sizes), 1)

    def holds(self, key: str) -> bool:
        """Return whether the features of the images are kept."""
        return key in self._memory if self._folder is None else (self._folder / f"{key}.safetensors").exists()

    def get(self, key: str) -> Features | None:
        """Return the features of the images, None where they are not kept."""
        if self._folder is None:
            return self._memory.get(key)
        if not self.holds(key):
            return None
        from safetensors.torch import load_file

        return dict(load_file(self._folder / f"{key}.safetensors"))

    def put(self, key: str, features: Features) -> None:
        """Keep the features of the images, unless that would exceed the limit."""
        size = sum(tensor.nbytes for tensor in features.values())
        self._sizes[key] = size
        if self.wanted > self._limit or self.bytes + size > self._limit:
            return
        self.bytes += size
        # a clone owns its memory: a slice would keep, and write, the whole batch
        own = {name: tensor.detach().cpu().clone() for name, tensor in features.items()}
        if self._folder is None:
            self._memory[key] = own
            return
        from safetensors.torch import save

        write_once(self._folder / f"{key}.safetensors", save(own))


def count_sets(rows: Any) -> int:
    """Return the number of distinct sets of images in the rows of a `datasets.Dataset`; no image is decoded."""
    table = rows.data
    column = next((table.column(name) for name in ("images", "image") if name in table.column_names), ())
    sets = (value.as_py() for value in column)
    return len({hash(tuple((i["path"], i["bytes"]) for i in (one if isinstance(one, list) else [one]))) for one in sets if one})


def vision_weights(model: Any) -> list[tuple[str, Tensor]]:
    """Return the named parameters that compute image features: all but those of the language model and its head."""
    language = {id(p) for part in (model.get_decoder(), model.get_output_embeddings()) for p in part.parameters()}
    return [(name, p) for name, p in model.named_parameters() if id(p) not in language]


def is_frozen(model: Any) -> bool:
    """Return whether no parameter that computes image features is trained."""
    return not any(p.requires_grad for _, p in vision_weights(model))


def takes_features(model: Any) -> bool:
    """Return whether a model accepts features instead of pixels; another model would ignore them and see no image."""
    return "mm_encoder_outputs" in inspect.signature(model.forward).parameters


def can_be_kept(model: Any) -> bool:
    """Return whether the features of images are the same in every step, and can be passed to the model and counted in its input."""
    return is_frozen(model) and takes_features(model) and getattr(model.config, "image_token_id", None) is not None


@contextmanager
def recorded(backbone: Any, tokens: Sequence[int], part: Part | None = None) -> Iterator[list[Features]]:
    """Record the features of each row while the model computes them; `tokens` is the number of image tokens of each of these rows.

    None are recorded if the model reads more of the tower's output than its features (Ovis2), so that they could not replace it.
    With `part`, only these rows are computed, and the model gets the features of the whole batch. They are computed within the model's
    own forward pass, where sharded weights are gathered, and without gradients.
    """
    import torch

    make = private_part(backbone, "get_image_features", "transformers")
    names = [*inspect.signature(make).parameters]
    rows: list[Features] = []

    def compute(*args: Any, **more: Any) -> Any:
        inputs = {} if part is None else part.inputs
        args = tuple(inputs.get(name, value) for name, value in zip(names, args, strict=False))
        with torch.no_grad():
            out = make(*args, **{name: inputs.get(name, value) for name, value in more.items()})
        rows.extend(_by_row(out, tokens) if out.keys() <= _FIELDS else [])
        return out if part is None else as_encoder_outputs(part.complete(rows), next(iter(rows[0].values())).device)["image"]

    backbone.get_image_features = compute
    try:
        yield rows
    finally:
        del backbone.get_image_features


def _by_row(out: Any, tokens: Sequence[int]) -> list[Features]:
    levels = {_PER_IMAGE if isinstance(out.pooler_output, list | tuple) else _WHOLE: out.pooler_output}
    levels |= {f"depth{n}": level for n, level in enumerate(getattr(out, "deepstack_features", None) or ())}
    rows: list[Features] = [{} for _ in tokens]
    for name, level in levels.items():
        for row, part in zip(rows, _flat(level).split(list(tokens)), strict=True):
            row[name] = part
    return rows


def as_encoder_outputs(rows: Iterable[Features], device: Any) -> dict[str, Any]:
    """Return the features of rows in the form in which the model computes them and accepts them instead of pixels."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    rows = list(rows)
    levels = {name: torch.cat([row[name].to(device) for row in rows]) for name in rows[0]}
    if _WHOLE in levels:
        return {"image": BaseModelOutputWithPooling(pooler_output=levels[_WHOLE])}
    pooled = levels.pop(_PER_IMAGE)
    if levels:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        depths = [[levels[name]] for name in sorted(levels)]
        return {"image": BaseModelOutputWithDeepstackFeatures(pooler_output=[pooled], deepstack_features=depths)}
    return {"image": BaseModelOutputWithPooling(pooler_output=[pooled])}


def _flat(level: Any) -> Tensor:
    """Return the features of all images as one matrix, (tokens, width)."""
    import torch

    parts = level if isinstance(level, list | tuple) else [level]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])

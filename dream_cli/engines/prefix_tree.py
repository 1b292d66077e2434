"""Token sequences with the same beginning as one packed sequence: each shared beginning goes through the model once.

Sequences that start alike are merged into a trie. Its tokens form one row, every token after its parent; a token sees its own
ancestors and nothing else, and its position is its depth in the trie. So each sequence gets what it would get alone, for the cost
of the distinct tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dream_cli.engines.patches import attention_of, set_attention

if TYPE_CHECKING:
    from torch import Tensor

Tokens = tuple[int, ...]
TREE_ATTENTION = "prefix-tree"
# Families that take a mask of four dimensions as it is and return the logits of named columns.
FAMILIES = (
    "llava",
    "llava_next",
    "llava_onevision",
    "vipllava",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "idefics2",
    "idefics3",
    "smolvlm",
    "internvl",
    "mistral3",
    "glm4v",
)


@dataclass(frozen=True)
class PackedTree:
    """A trie in one row: `tokens`, the column of each token's parent (-1 for a first token), and where each sequence ends."""

    tokens: Tokens
    parents: tuple[int, ...]
    ends: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Plan:
    """How a packed tree is attended to: the columns of the trunk, then each branch with which of its own columns sees which."""

    length: int
    trunk: int
    branches: tuple[tuple[slice, Tensor], ...]


# Set while a tree goes through the model; the engine's worker is one thread.
_plan: ContextVar[Plan] = ContextVar("plan")


def pack(sequences: Sequence[Tokens]) -> PackedTree:
    """Return the trie of the sequences, none of them empty; `ends[i]` is the column of the last token of sequence i."""
    tokens: list[int] = []
    parents: list[int] = []
    columns: dict[tuple[int, int], int] = {}
    ends = []
    for sequence in sequences:
        column = -1
        for token in sequence:
            step = (column, token)
            if step not in columns:
                columns[step] = len(tokens)
                tokens.append(token)
                parents.append(column)
            column = columns[step]
        ends.append(column)
    return PackedTree(tuple(tokens), tuple(parents), tuple(ends))


def sees(tree: PackedTree) -> Tensor:
    """Return which column each column sees, bool of shape (L, L): its ancestors and itself."""
    import torch

    length = len(tree)
    visible = torch.zeros(length, length, dtype=torch.bool)
    # The first sequence is contiguous, and every token follows its parent: the plain causal triangle.
    first = next((i for i, parent in enumerate(tree.parents) if parent != i - 1), length)
    visible[:first, :first] = torch.ones(first, first, dtype=torch.bool).tril()
    for column in range(first, length):
        if tree.parents[column] >= 0:
            visible[column] = visible[tree.parents[column]]
        visible[column, column] = True
    return visible


def depths(tree: PackedTree) -> tuple[int, ...]:
    """Return how many ancestors each column has."""
    depths: list[int] = []
    for parent in tree.parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return tuple(depths)


def positions(tree: PackedTree, head: Tensor) -> Tensor:
    """Return the position of every column, (..., 1, L), from those of the shared head, (..., 1, H), which may have three axes.

    Behind the head, where there is only text, positions count on from the largest one of the head along every axis.
    """
    import torch

    depth = torch.tensor(depths(tree), device=head.device)
    behind = head.shape[-1]
    if not behind:
        return depth.expand(*head.shape[:-1], -1)
    largest = head.flatten().max()
    in_head = head[..., depth.clamp(max=behind - 1)]
    return torch.where(depth < behind, in_head, largest + 1 + depth - behind)


def prompt_positions(backbone: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the positions that the model itself gives to the tokens of prompts, (B, L), or (3, B, L) where they have three directions."""
    import torch

    ids, real = inputs["input_ids"], inputs["attention_mask"]
    if not hasattr(backbone, "get_rope_index"):
        return (real.cumsum(-1) - 1).clamp(min=0)
    kinds = inputs.get("mm_token_type_ids")
    kinds = torch.zeros_like(ids) if kinds is None else kinds
    place: Tensor = backbone.get_rope_index(ids, kinds, image_grid_thw=inputs.get("image_grid_thw"), attention_mask=real)[0]
    return place


def attention_mask(visible: Tensor, attention: str, dtype: Any) -> Tensor:
    """Return a mask (B, queries, keys) with an axis of heads, as the attention reads it: bool for SDPA, added to the scores for eager."""
    import torch

    mask = visible[:, None]
    if attention != "eager":
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def branches(tree: PackedTree) -> tuple[int, tuple[slice, ...]]:
    """Return the length of the trunk, which every other column sees, and the columns of each subtree behind it.

    `pack` lays subtrees side by side where the sequences are sorted; one that was torn apart counts as several.
    """
    trunk = next((i for i, parent in enumerate(tree.parents) if parent != i - 1), len(tree))
    forks = {parent for i, parent in enumerate(tree.parents) if parent != i - 1}
    trunk = min([trunk, *(fork + 1 for fork in forks)])
    starts = [i for i in range(trunk, len(tree)) if tree.parents[i] < trunk]
    return trunk, tuple(slice(start, end) for start, end in zip(starts, [*starts[1:], len(tree)], strict=True))


@contextmanager
def tree_attention(model: Any, tree: PackedTree, visible: Tensor) -> Iterator[None]:
    """Make the language model attend branch by branch while the context is open, where it attends by SDPA.

    A branch meets the keys of the trunk and its own, never those of its neighbours, and the trunk takes the causal kernel.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config = model.get_decoder().config
    if attention_of(config) != "sdpa":
        yield
        return
    AttentionInterface.register(TREE_ATTENTION, _attend)
    AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
    trunk, rest = branches(tree)
    plan = Plan(len(tree), trunk, tuple((part, visible[part, part]) for part in rest))
    token = _plan.set(plan)
    set_attention(config, TREE_ATTENTION)
    try:
        yield
    finally:
        set_attention(config, "sdpa")
        _plan.reset(token)


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any) -> Any:
    """Attend by SDPA along the plan; queries, keys and values are (1, heads, L, width), the result is (1, L, heads, width) and None."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    plan = _plan.get()
    trunk = plan.trunk
    parts = [sdpa_attention_forward(module, query[:, :, :trunk], key[:, :, :trunk], value[:, :, :trunk], None, **more)[0]]
    for part, own in plan.branches:
        mask = torch.cat([own.new_ones(len(own), trunk), own], 1)[None, None]
        keys, values = (torch.cat([x[:, :, :trunk], x[:, :, part]], 2) for x in (key, value))
        parts.append(sdpa_attention_forward(module, query[:, :, part], keys, values, mask, **more)[0])
    return torch.cat(parts, 1), None


def why_not(config: Any) -> str:
    """Return why a model of this configuration cannot read a tree of sequences in one row, "" where it can."""
    text = config.get_text_config()
    own_masks = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if own_masks or window:
        return (
            f"layers with a mask of their own ({', '.join(sorted(own_masks)) or f'a window of {window} tokens'}) cannot take another mask"
        )
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not one of the families whose masks are known ({', '.join(FAMILIES)})"
    return ""

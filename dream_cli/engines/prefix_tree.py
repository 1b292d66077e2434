"""Prefix sharing: token sequences with common prefixes as one packed sequence, so that the model reads each prefix once.

The sequences are merged into a trie. Its tokens form one row, each token after its parent; a token attends to its ancestors and
itself only, and its position is its depth in the trie. Each sequence thus has the same logits as alone, at the cost of the distinct
tokens.
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
# Families that use a four-dimensional mask unchanged and can return the logits of selected columns.
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
    "glm4v_moe",
    "glm46v",
)
# The same of language models without images.
TEXT_FAMILIES = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class PackedTree:
    """A trie in one row: `tokens`, the column of each token's parent (-1 for a first token), and the last column of each sequence."""

    tokens: Tokens
    parents: tuple[int, ...]
    ends: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Plan:
    """The attention plan of a packed tree: the length of the trunk, and each branch with the mask among its own columns."""

    length: int
    trunk: int
    branches: tuple[tuple[slice, Tensor], ...]


# Set during the forward pass of a tree; the engine has one worker thread.
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
    """Return the mask of which columns each column attends to, its ancestors and itself; bool of shape (L, L)."""
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
    """Return the number of ancestors of each column."""
    depths: list[int] = []
    for parent in tree.parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return tuple(depths)


def positions(tree: PackedTree, head: Tensor) -> Tensor:
    """Return the position of every column, (..., 1, L), from those of the shared head, (..., 1, H), which may have three axes.

    After the head there is only text; there positions continue from the head's largest position along every axis.
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
    """Return the model's own positions of the prompt tokens, (B, L), or (3, B, L) for positions with three axes."""
    import torch

    ids, real = inputs["input_ids"], inputs["attention_mask"]
    if not hasattr(backbone, "get_rope_index"):
        return (real.cumsum(-1) - 1).clamp(min=0)
    kinds = inputs.get("mm_token_type_ids")
    kinds = torch.zeros_like(ids) if kinds is None else kinds
    positions: Tensor = backbone.get_rope_index(ids, kinds, image_grid_thw=inputs.get("image_grid_thw"), attention_mask=real)[0]
    return positions


def attention_mask(visible: Tensor, attention: str, dtype: Any) -> Tensor:
    """Return a mask (B, queries, keys) with an axis of heads, in the form of the attention: bool for SDPA, additive for eager."""
    import torch

    mask = visible[:, None]
    if attention != "eager":
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def branches(tree: PackedTree) -> tuple[int, tuple[slice, ...]]:
    """Return the length of the trunk, which every other column attends to, and the columns of each subtree after it.

    With sorted sequences, `pack` makes each subtree contiguous; a subtree in several pieces counts as several.
    """
    trunk = next((i for i, parent in enumerate(tree.parents) if parent != i - 1), len(tree))
    forks = {parent for i, parent in enumerate(tree.parents) if parent != i - 1}
    trunk = min([trunk, *(fork + 1 for fork in forks)])
    starts = [i for i in range(trunk, len(tree)) if tree.parents[i] < trunk]
    return trunk, tuple(slice(start, end) for start, end in zip(starts, [*starts[1:], len(tree)], strict=True))


@contextmanager
def tree_attention(model: Any, tree: PackedTree, visible: Tensor) -> Iterator[None]:
    """Compute the attention of the language model branch by branch in the body, if it uses SDPA.

    A branch attends to the keys of the trunk and its own, never to those of other branches; the trunk uses the causal kernel.
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
    """Return the SDPA attention of the plan, (1, L, heads, width), and None; queries, keys and values are (1, heads, L, width)."""
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
    """Return why a model of this configuration cannot process a packed tree, "" if it can."""
    text = config.get_text_config()
    own_masks = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if own_masks or window:
        return (
            f"layers with a mask of their own ({', '.join(sorted(own_masks)) or f'a window of {window} tokens'}) cannot take another mask"
        )
    if config.model_type not in (known := (*FAMILIES, *TEXT_FAMILIES)):
        return f"{config.model_type} is not one of the families whose masks are known ({', '.join(known)})"
    return ""

"""A pair in one sequence: prompt with its images | chosen | rejected, so that the model computes their common prefix once.

After "Accelerating Direct Preference Optimization with Prefix Sharing" (arXiv 2410.20305). P is the longest prompt of a batch
without its last token, A the longest answer, L = P + 2 A. Prompts end at column P, then come two branches of A columns. A branch
reads the last token of the prompt and the answer without its last token, so that column j of a branch predicts token j of its
answer, including the first. The positions of both branches continue from the prompt, and neither attends to the other: each
branch is computed as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dream_cli.engines import prefix_tree
from dream_cli.engines.patches import attention_of, private_part, set_attention
from dream_cli.training.preference.prefix_batch import TEXT_KEYS

if TYPE_CHECKING:
    from torch import Tensor

PAIR_ATTENTION = "pair"
ATTENTIONS = ("sdpa", "eager", "flex_attention")


def why_not(config: Any) -> str:
    """Return why a model of this configuration cannot read a pair as one sequence, "" if it can."""
    if reason := prefix_tree.why_not(config):
        return reason
    attention = attention_of(config.get_text_config())
    if attention not in (*ATTENTIONS, PAIR_ATTENTION):
        return f"{attention} takes no mask of ours; load the model with one of {', '.join(ATTENTIONS)}"
    return ""


def visible(real: Tensor, answer_length: int) -> Tensor:
    """Return which keys each query attends to, bool of shape (B, 1, L, L); `real`, (B, L), marks the tokens that are not padding.

    A query attends to itself and to earlier tokens of the prompt and of its own branch. Padding attends to itself, because a row of the
    softmax must not be empty.
    """
    import torch

    length = real.shape[1]
    column = torch.arange(length, device=real.device)
    query, key = column[:, None], column[None, :]
    sees = may_see(query, key, length - 2 * answer_length, answer_length)
    return ((sees[None] & real.bool()[:, None, :]) | (query == key))[:, None]


def may_see(query: Any, key: Any, prompt_length: int, answer_length: int) -> Any:
    """Return whether the column `query` may attend to the column `key`; both are integers or tensors of them."""
    in_prompt = key < prompt_length
    same_branch = (query - prompt_length) // answer_length == (key - prompt_length) // answer_length
    return (query >= key) & (in_prompt | same_branch)


def attention_mask(real: Tensor, answer_length: int, attention: str, dtype: Any) -> Any:
    """Return the mask of a batch in the form that the attention needs: bool, additive, or blocks on a GPU.

    If no prompt is padded, the mask for `PAIR_ATTENTION` has only the rows of the branches: (B, 1, 2 A, L).
    """
    import torch

    if attention == "flex_attention":
        return _block_mask(real.bool(), answer_length)
    sees = visible(real, answer_length)
    if attention == "eager":
        return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
    branches = 2 * answer_length
    return sees[:, :, -branches:] if attention == PAIR_ATTENTION and real[:, :-branches].all() else sees


def use_pair_attention(model: Any, blocks: bool = False) -> None:
    """Make the language model use `attend_in_two` instead of SDPA; masks other than that of a pair keep their meaning.

    With `blocks`, it uses FlexAttention.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config = model.get_decoder().config
    if blocks:
        set_attention(config, "flex_attention")
    elif attention_of(config) == "sdpa":
        AttentionInterface.register(PAIR_ATTENTION, attend_in_two)
        AttentionMaskInterface.register(PAIR_ATTENTION, sdpa_mask)
        set_attention(config, PAIR_ATTENTION)


def attend_in_two(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any) -> Any:
    """Attend by SDPA; a mask with fewer rows than queries belongs to the last queries, and the earlier ones attend causally.

    So the prompt uses the causal kernel, and its queries are never multiplied with the keys of the branches: P^2 / 2 + 2 A L
    products instead of L^2. Queries, keys and values are (B, heads, L, width); returns (B, L, heads, width) and None.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    first = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[-2]
    if not first:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    prompt, _ = sdpa_attention_forward(module, query[:, :, :first], key[:, :, :first], value[:, :, :first], None, **more)
    branches, _ = sdpa_attention_forward(module, query[:, :, first:], key, value, attention_mask, **more)
    return torch.cat([prompt, branches], 1), None


def _block_mask(real: Tensor, answer_length: int) -> Any:
    """Return the same mask for FlexAttention, which skips fully masked blocks."""
    from torch.nn.attention.flex_attention import create_block_mask

    rows, length = real.shape
    prompt_length = length - 2 * answer_length

    def mask(row: Any, head: Any, query: Any, key: Any) -> Any:
        return (may_see(query, key, prompt_length, answer_length) & real[row, key]) | (query == key)

    return create_block_mask(mask, rows, None, length, length, device=real.device)


def positions(backbone: Any, batch: Mapping[str, Any]) -> Tensor:
    """Return the position of every token, (B, L), or (3, B, L) for families with three-dimensional positions.

    The model computes the positions of the prompt; both branches continue from its last one.
    """
    import torch

    answer_length = batch["answers"].shape[-1]
    real = batch["attention_mask"][:, : -2 * answer_length]
    prompt = _prompt_positions(backbone, batch, real)
    following = prompt.masked_fill(real == 0, -1).amax(-1, keepdim=True) + 1
    branch = following + torch.arange(answer_length, device=real.device)
    return torch.cat([prompt, branch, branch], -1)


def _prompt_positions(backbone: Any, batch: Mapping[str, Any], real: Tensor) -> Tensor:
    import torch

    if not hasattr(backbone, "get_rope_index"):
        return (real.cumsum(-1) - 1).clamp(min=0)
    ids = batch["input_ids"][:, : real.shape[1]]
    kinds = batch.get("mm_token_type_ids")
    kinds = torch.zeros_like(ids) if kinds is None else kinds
    return backbone.get_rope_index(ids, kinds, image_grid_thw=batch.get("image_grid_thw"), attention_mask=real)[0]


def score(model: Any, unwrapped: Any, batch: Mapping[str, Any], *, router: bool = False) -> SimpleNamespace:
    """Return the outputs of TRL's fused head for the answers, each field of shape (2 B, A): the chosen rows, then the rejected ones.

    `model` is called; `unwrapped` is the same model without wrappers, with TRL's fused head. Entries of the batch other than texts,
    pixels or features, are passed to the model unchanged. Logits are computed at the columns of the answers only. With `router` there is
    also `aux_loss`, the load-balancing loss of the experts.
    """
    backbone, attention = unwrapped.base_model, unwrapped.get_decoder().config._attn_implementation
    answers = batch["answers"]
    rows, _, length = answers.shape
    with last_columns(backbone, 2 * length) as routed:
        out = model(
            input_ids=batch["input_ids"],
            attention_mask=attention_mask(batch["attention_mask"], length, attention, unwrapped.dtype),
            position_ids=positions(backbone, batch),
            shift_labels=answers.view(rows, 2 * length),
            fused_lm_head=True,
            **({"output_router_logits": True} if router else {}),
            **{name: value for name, value in batch.items() if name not in TEXT_KEYS},
        )
    by_answer = {k: v.view(rows, 2, length).transpose(0, 1).reshape(2 * rows, length) for k, v in out.items() if getattr(v, "ndim", 0) == 2}
    if router:
        by_answer["aux_loss"] = router_loss(unwrapped.config.get_text_config(), routed, batch["attention_mask"], length)
    return SimpleNamespace(**by_answer)


def router_loss(config: Any, logits: Sequence[Tensor], real: Tensor, answer_length: int) -> Tensor:
    """Return the load-balancing loss of a mixture of experts (arXiv 2101.03961), as if each answer had its own copy of the prompt.

    `logits` are those of the routers, (B * L, experts) per layer; `real` (B, L) are the tokens that are not padding. A token of the
    prompt counts twice. The last token of an answer, which predicts nothing, is not in the sequence and does not count.
    """
    from transformers.models.mixtral import modeling_mixtral

    balance = private_part(modeling_mixtral, "load_balancing_loss_func", "transformers")
    times = real.clone()
    times[:, : -2 * answer_length] *= 2
    loss: Tensor = balance(tuple(logits), config.num_experts, config.num_experts_per_tok, times)
    return loss


@contextmanager
def last_columns(backbone: Any, count: int) -> Iterator[list[Tensor]]:
    """Make the backbone return the hidden states of its last `count` columns only; yield its router logits, (B * L, experts) each.

    They are removed from the output, because the code that reads them there expects a padding mask, not the mask of a pair.
    """
    routed: list[Tensor] = []

    def narrow(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, -count:]
        if getattr(output, "router_logits", None) is not None:
            routed.extend(output.router_logits)
            output.router_logits = None
        return output

    hook = backbone.register_forward_hook(narrow)
    try:
        yield routed
    finally:
        hook.remove()


def as_trl_batch(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the answers of a batch in the layout that TRL's loss reads: chosen rows, then rejected, one column before the answer.

    `attention_mask`, of which TRL's loss reads the sum alone, marks the tokens of both answers, each with its prompt.
    """
    import torch

    answers = batch["answers"].transpose(0, 1).flatten(0, 1)
    ids = torch.nn.functional.pad(answers.clamp(min=0), (1, 0))
    mask = torch.nn.functional.pad((answers != -100).long(), (1, 0))
    # The last token of a prompt is the first of each branch.
    prompt = torch.nn.functional.pad(batch["attention_mask"][:, : -2 * batch["answers"].shape[-1]], (1, 0), value=1)
    return {"input_ids": ids, "completion_mask": mask, "attention_mask": torch.cat([prompt.repeat(2, 1), mask], 1)}

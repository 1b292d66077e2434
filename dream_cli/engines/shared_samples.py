"""Several samples of a prompt from one row of keys and values: the prompt is read once, and its samples are appended in parallel.

A batch of B prompts with N samples each stays B rows. Every step appends one column per sample to each row; a sample attends to its
prompt and its own columns. So neither the compute nor the memory of a prompt is multiplied by the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream_cli.engines import prefix_tree

if TYPE_CHECKING:
    from torch import Tensor

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


def generate(model: Any, inputs: Mapping[str, Any], rows: Sequence[int], noise: Sequence[Any], ends: Sequence[int], steps: int) -> Tensor:
    """Return the tokens of each sample, (len(rows), at most `steps`); `rows[i]` is the prompt of sample i, `noise` are logits processors.

    `inputs` are those of the distinct prompts, padded on the left. A finished sample is filled with end tokens.
    """
    import torch

    device, slots = model.device, [list(rows[:i]).count(prompt) for i, prompt in enumerate(rows)]
    prompt, slot = torch.tensor(rows, device=device), torch.tensor(slots, device=device)
    width = max(slots) + 1
    positions = prefix_tree.prompt_positions(model.base_model, inputs)
    attention = model.get_decoder().config._attn_implementation
    with torch.inference_mode():
        prefix = {name: value[:, :-1] if name in PER_TOKEN else value for name, value in inputs.items()}
        cache = model(**prefix, position_ids=positions[..., :-1], use_cache=True, logits_to_keep=1).past_key_values
        step = inputs["input_ids"][:, -1:].expand(-1, width)
        tokens: list[Tensor] = []
        finished = torch.zeros_like(prompt, dtype=torch.bool)
        trunk = inputs["attention_mask"][:, None, :-1].bool().expand(-1, width, -1)
        own = torch.eye(width, dtype=torch.bool, device=device)
        for count in range(steps):
            visible = torch.cat([trunk, own.repeat(1, count + 1).expand(len(trunk), -1, -1)], -1)
            out = model(
                input_ids=step,
                attention_mask=prefix_tree.attention_mask(visible, attention, model.dtype),
                position_ids=(positions[..., -1:] + count).expand(*positions.shape[:-1], width),
                past_key_values=cache,
                use_cache=True,
            )
            scores = out.logits[prompt, slot].float()
            for processor in noise:
                scores = processor(None, scores)
            token = scores.argmax(-1).masked_fill(finished, ends[0] if ends else 0)
            tokens.append(token)
            finished |= torch.isin(token, torch.tensor(ends, device=device))
            if finished.all():
                break
            step = step.clone()
            step[prompt, slot] = token
    return torch.stack(tokens, 1)

"""All waiting choices about the same images in one forward pass of a local model, over a trie of their token sequences."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dream_cli.engines import prefix_tree
from dream_cli.engines.prefix_tree import Tokens, pack
from dream_cli.engines.protocol import Chat, Choice
from dream_cli.engines.spellings import Spelling, prefixes, share, spell

if TYPE_CHECKING:
    from torch import Tensor

# The mask of a tree grows with the square of its tokens: 64 MiB for 8,192 tokens.
MOST_TOKENS = 8192
# The tolerance between the first shared choice and the plain one: float32 sums in another order, bfloat16 rounds to three digits.
TOLERANCE = {"torch.float32": 1e-3}
ROUGH_TOLERANCE = 0.08

Request = tuple[Chat, tuple[str, ...]]


@dataclass(frozen=True)
class Group:
    """Requests about the same images: the inputs of the first chat, and the tokens of each chat, the first `head` with the images."""

    inputs: Mapping[str, Any]
    sequences: tuple[Tokens, ...]
    head: int


class SharedChoices:
    """Answers requests with one forward pass per group; `plain` answers a single request, and checks the first group.

    `choose` returns None if the model's family cannot use the mask, if images come after the shared prefix, or if the first shared
    choice differs from the plain one.
    """

    def __init__(self, model: Any, processor: Any, ends: Tokens, encode: Callable[[Sequence[Chat]], dict[str, Any]]) -> None:
        self._model = model
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._ends = list(ends)
        self._encode = encode
        self._usable = not prefix_tree.why_not(model.config)
        self._checked = False
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def choose(self, requests: Sequence[Request], render: Callable[[Chat], str], plain: Callable[[Request], Choice]) -> list[Choice] | None:
        """Return one choice per request, all about the same images, or None if they cannot share a pass."""
        if not self._usable or len(requests) < 2:
            return None
        group = self._group([chat for chat, _ in requests], render)
        if group is None or (self._context is not None and max(map(len, group.sequences)) >= self._context):
            return None
        choices = self._choices(group, [answers for _, answers in requests])
        if not self._checked:
            self._checked = True
            self._usable = _same(choices[0], plain(requests[0]), TOLERANCE.get(str(self._model.dtype), ROUGH_TOLERANCE))
            if not self._usable:
                sys.stderr.write("dream: this model answers differently on a shared prefix; questions are sent one by one\n")
                return None
        return choices

    def _group(self, chats: Sequence[Chat], render: Callable[[Chat], str]) -> Group | None:
        texts = [render(chat) for chat in chats]
        marker = self._tokenizer.convert_ids_to_tokens(self._image_token) if any(message.images for message in chats[0]) else ""
        cut = texts[0].rfind(marker) + len(marker) if marker else 0
        if marker and (marker not in texts[0] or any(text[:cut] != texts[0][:cut] or marker in text[cut:] for text in texts)):
            return None
        inputs = self._encode(chats[:1])
        first = tuple(inputs["input_ids"][0].tolist())
        # A special token splits the text, so the text after the last image is tokenised as it would be alone.
        tails = [tuple(self._tokenizer.encode(text[cut:], add_special_tokens=False)) for text in texts]
        head = len(first) - len(tails[0])
        if head < 0 or first[head:] != tails[0]:
            return None
        return Group(inputs, tuple(first[:head] + tail for tail in tails), head)

    @property
    def _image_token(self) -> int:
        config = self._model.config
        return int(getattr(config, "image_token_id", None) or config.image_token_index)

    def _choices(self, group: Group, answers: Sequence[tuple[str, ...]]) -> list[Choice]:
        spellings = [spell(each, self._tokenizer) for each in answers]
        wanted = [sequence + prefix for sequence, s in zip(group.sequences, spellings, strict=True) for prefix in prefixes(s)]
        if len(pack(wanted)) > MOST_TOKENS and len(answers) > 1:
            half = len(answers) // 2
            parts = [Group(group.inputs, group.sequences[part], group.head) for part in (slice(half), slice(half, None))]
            return self._choices(parts[0], answers[:half]) + self._choices(parts[1], answers[half:])
        after = iter(self._after(wanted, group))
        choices = []
        for each, s in zip(answers, spellings, strict=True):
            logs = {prefix: next(after) for prefix in prefixes(s)}
            choices.append(share(each, [float(sum(self._probability(logs, spelling) for spelling in s[answer])) for answer in each]))
        return choices

    def _probability(self, logs: Mapping[Tokens, Tensor], spelling: Spelling) -> Any:
        tokens = spelling.tokens
        total = sum(logs[tokens[:i]][token] for i, token in enumerate(tokens))
        return (total + logs[tokens][self._ends].logsumexp(0) if spelling.closed else total).exp()

    def _after(self, sequences: Sequence[Tokens], group: Group) -> Tensor:
        """Return the log-probabilities of the token after each sequence, shape (sequences, vocabulary)."""
        import torch

        order = sorted(range(len(sequences)), key=sequences.__getitem__)  # neighbours in the tree become adjacent
        tree = pack([sequences[i] for i in order])
        device = self._model.device
        head = prefix_tree.prompt_positions(self._model.base_model, group.inputs)[..., : group.head]
        attention = self._model.get_decoder().config._attn_implementation
        more = {k: v for k, v in group.inputs.items() if k not in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")}
        if "mm_token_type_ids" in group.inputs:
            kinds = torch.zeros(1, len(tree), dtype=torch.long, device=device)
            kinds[:, : group.head] = group.inputs["mm_token_type_ids"][:, : group.head]
            more["mm_token_type_ids"] = kinds
        visible = prefix_tree.sees(tree).to(device)
        with torch.inference_mode(), prefix_tree.tree_attention(self._model, tree, visible):
            out = self._model(
                input_ids=torch.tensor([tree.tokens], device=device),
                attention_mask=prefix_tree.attention_mask(visible[None], attention, self._model.dtype),
                position_ids=prefix_tree.positions(tree, head),
                logits_to_keep=torch.tensor(tree.ends, device=device),
                use_cache=False,
                **more,
            )
        inverse = torch.tensor(order, device=device).argsort()
        return out.logits[0][inverse].float().log_softmax(-1)


def _same(one: Choice, other: Choice, tolerance: float) -> bool:
    assert one.probabilities is not None and other.probabilities is not None
    return all(abs(p - other.probabilities[answer]) < tolerance for answer, p in one.probabilities.items())

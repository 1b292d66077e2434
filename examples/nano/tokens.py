"""The tokenizer and the processor of nano: each fixed part of our prompts is one token, so that prompts are short."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dream_cli.nano.pictures import PATCH, SIDE
from dream_cli.prompts.rendering import Prompts

PAD, END, IMAGE = "<|pad|>", "<|end|>", "<image>"
ROLES = tuple(f"<|{role}|>" for role in ("system", "user", "assistant"))
SPECIAL = (PAD, END, IMAGE, *ROLES)
# Enough merges for nearly every word of the world to be one token.
MERGED = 1200
VERDICTS = ("Yes", "No", "Comply", "Partial", "Refuse", "10", *"0123456789")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# In this order their parts become tokens: another order would give the tokens other numbers.
ROLES_OF_PROMPTS = (
    "observe_image",
    "observe_text",
    "observe_joint",
    "verify",
    "judge_global",
    "judge_observation",
    "judge_helpfulness",
    "judge_harm",
    "judge_effective",
    "judge_refusal",
    "judge_warned",
    "judge_preference",
    "respond_observed",
)


def chat(prompt: str, image: bool) -> str:
    """Return one question as the chat template renders it, up to the beginning of the answer."""
    return f"{ROLES[1]}{IMAGE if image else ''}{prompt}{END}{ROLES[2]}"


def whole_parts(prompts: Prompts) -> list[str]:
    """Return the parts of prompts and of JSON answers that are one token each."""
    parts = [part for name in ROLES_OF_PROMPTS for part in prompts.fixed_parts(name)]
    layout = ['[{"malicious_content": "', '{"malicious_content": "', '", "source": "', '", "risk_category": "', '"}, ', '"}]', "[]"]
    return list(dict.fromkeys(part for part in [*parts, *layout] if part))


def whole_words(prompts: Prompts) -> list[str]:
    """Return the names and verdicts that are one token each where they are whole words."""
    return [*(term.name for term in (*prompts.taxonomy.sources, *prompts.taxonomy.categories)), *VERDICTS]


def build_processor(prompts: Prompts, texts: Iterable[str]) -> Any:
    """Train the tokenizer on the texts and return a LlavaProcessor around it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=MERGED, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(part, normalized=False) for part in whole_parts(prompts)])
    tokenizer.add_tokens([AddedToken(word, normalized=False, single_word=True) for word in whole_words(prompts)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left")
    fast.add_special_tokens({"additional_special_tokens": [IMAGE, *ROLES]})
    size = {"height": SIDE, "width": SIDE}
    half = [0.5, 0.5, 0.5]
    pixels = CLIPImageProcessor(size=size, do_center_crop=False, image_mean=half, image_std=half, do_convert_rgb=True)
    return LlavaProcessor(
        image_processor=pixels,
        tokenizer=fast,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


def load_processor(folder: Path) -> Any:
    """Return the processor that was saved in a folder."""
    from transformers import LlavaProcessor

    return LlavaProcessor.from_pretrained(folder)

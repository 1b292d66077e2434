"""A local model: loading of its processor, weights and adapter; its special tokens; and the seed of each sample."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dream_cli.engines.checkpoint import Checkpoint
from dream_cli.engines.protocol import Chat, ChatMessage
from dream_cli.errors import UsageError, with_extra
from dream_cli.records import special_tokens

SMALL = 20_000_000  # parameters


def row_seed(chat: Chat, seed: int, sample: int) -> int:
    """Return the seed of one sample of one chat, derived from the whole request."""
    total = hashlib.sha256(f"{seed}\0{sample}".encode())
    for message in chat:
        total.update(repr((message.role, message.text, *([message.places] if any(message.places) else []))).encode())
        for image in message.images:
            total.update(hashlib.sha256(image.data or (image.path or "").encode()).digest())
    return int.from_bytes(total.digest()[:8], "big") >> 1


def quiet_libraries() -> None:
    """Silence the libraries on stderr, which belongs to the command, and turn off their telemetry."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|trl|accelerate|datasets)\b")


def load_processor(checkpoint: Checkpoint, name: str) -> Any:
    """Return the processor of the model called `name`; raise UsageError if it cannot be loaded. Nothing is downloaded."""
    from transformers import AutoProcessor

    from dream_cli.engines.patches import allow_image_only_processors

    allow_image_only_processors()
    try:
        return AutoProcessor.from_pretrained(checkpoint.processor, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # files that are damaged or of another version raise errors of many libraries
        reason = first_line(error)
        # Some families, such as Pixtral and Llama 4, have no image processor without torchvision.
        is_missing = "torchvision" in reason.lower() and find_spec("torchvision") is None
        hint = f"; {with_extra('vision')}, with a torchvision that was built for this torch" if is_missing else ""
        raise UsageError(f"cannot load the processor of {name}: {reason}{hint}") from error


def special_tokens_of(processor: Any) -> re.Pattern[str]:
    """Return the pattern of the special tokens of a processor or tokenizer: its own, its placeholders, and those of its chat template."""
    tokenizer = getattr(processor, "tokenizer", processor)
    added = [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special]
    # Tokenizers also have switches such as `add_bos_token`.
    named = [value for name, value in vars(processor).items() if name.endswith("_token")]
    placeholders = [str(value) for value in named if isinstance(value, str) or hasattr(value, "special")]
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None) or ""
    templates = template.values() if isinstance(template, Mapping) else [template]
    written = [token for each in templates for token in special_tokens.written_in(each)]
    return special_tokens.pattern([*added, *placeholders, *written])


def plain_chat(chat: Sequence[ChatMessage], tokens: re.Pattern[str]) -> Chat:
    """Return the chat with the special tokens in its texts split; a chat without any is unchanged."""
    plain = []
    for message in chat:
        text, places = special_tokens.split_around(message.text, message.places, tokens)
        plain.append(replace(message, text=text, places=places))
    return tuple(plain)


def prints_parts(processor: Any) -> bool:
    """Whether the chat template of a vision-language model expects a text as content, and prints the parts of a message as a Python list."""
    parts = [{"type": "text", "text": "Hello"}]
    try:
        rendered = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    except Exception:  # noqa: BLE001 - an error of a template is reported for the row that it is about
        return False
    return str(parts) in rendered


PRINTS_PARTS = "has a chat template that expects a text as content, so it cannot place images; use a template that reads content parts"


def is_text_only(config: Any) -> bool:
    """Whether a model of this configuration is a language model that takes no images."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind = config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def load_weights(folder: Path, name: str, dtype: Any, *, allow_text_only: bool = False, **more: Any) -> Any:
    """Return the model of a folder, called `name` in messages; raise UsageError if it cannot be loaded. Nothing is downloaded.

    `allow_text_only` also loads language models that take no images.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        text_only = allow_text_only and is_text_only(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
        family = AutoModelForCausalLM if text_only else AutoModelForImageTextToText
        model, report = family.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True, **more
        )
    except Exception as error:
        raise UsageError(f"cannot load the model {name}: {first_line(error)}") from error
    if report["missing_keys"]:
        # transformers would continue with random weights instead.
        raise UsageError(f"the model in {folder} lacks the weights {', '.join(sorted(report['missing_keys'])[:3])}, ...")
    if not torch.cuda.is_available() and model.num_parameters() < SMALL:
        # On small matrices threads wait for each other longer than they work, above all when stages share the cores. The setting is
        # global to the process, and a process that loads a small model does nothing else with torch.
        torch.set_num_threads(1)
    return model


def with_adapter(model: Any, checkpoint: Checkpoint, trainable: bool = False) -> Any:
    """Return the model with the adapter of its checkpoint; raise UsageError if they do not match or peft is not installed."""
    try:
        from peft import PeftModel
    except ImportError:
        raise UsageError(f"{checkpoint.adapter} is an adapter, and peft, which reads it, is not installed; {with_extra('train')}") from None
    try:
        return PeftModel.from_pretrained(model, str(checkpoint.adapter), is_trainable=trainable)
    except Exception as error:
        raise UsageError(f"the adapter {checkpoint.adapter} does not fit its base {checkpoint.folder}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, else its type: some libraries append a list of every supported value."""
    return str(error).strip().partition("\n")[0] or type(error).__name__

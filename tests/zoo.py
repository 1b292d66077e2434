"""Tiny random vision-language models, one builder for each family, saved as the folders that real ones come in."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CORPUS = ("What is in this picture?", "Yes. No. yes no YES NO", "0 1 2 3 4 5 6 7 8 9 10", "A harmless drawing of a house.") * 10
TURN = ("<|im_start|>", "<|im_end|>")
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 8}

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def template(image: str) -> str:
    """Return a ChatML template in which an image is written as `image`."""
    return TEMPLATE.replace("IMAGE", image)


def tokenizer(*special: str, **named: str) -> Any:
    """Return a byte-level tokenizer; `named` are the special tokens that a processor asks for by name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    marks = list(dict.fromkeys(["<pad>", *TURN, *special, *named.values()]))
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(CORPUS, trainer)
    extra = {"extra_special_tokens": named} if named else {}
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<|im_end|>", padding_side="left", **extra)


def text_config(words: Any, **more: Any) -> dict[str, Any]:
    """Return the configuration of a language model for the tokenizer `words`."""
    return TEXT | {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": words.eos_token_id, "bos_token_id": None} | more


def video(name: str) -> dict[str, Any]:
    """Return the part that reads videos, which a processor insists on where torchvision is installed."""
    import transformers as hf

    return {"video_processor": getattr(hf, name)()} if find_spec("torchvision") else {}


def llava(width: int = 32, context: int = 512) -> tuple[Any, Any]:
    """LLaVA: a CLIP tower, one row of patches for each image; vectors of `width`, `context` tokens."""
    import transformers as hf

    words = tokenizer(image_token="<image>")
    pictures = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = hf.LlavaProcessor(pictures, words, 8, "default", template("<image>\n"), num_additional_image_tokens=1)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION | {"hidden_size": width}, projection_dim=32),
        text_config=hf.LlamaConfig(**text_config(words, hidden_size=width, max_position_embeddings=context)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
    )
    return hf.LlavaForConditionalGeneration(config), processor


QWEN = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
QWEN |= {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}


def qwen(patch: int) -> tuple[Any, Any, dict[str, int]]:
    """Return the tokenizer, image processor and token ids that the Qwen families share."""
    import transformers as hf

    words = tokenizer(*QWEN.values())
    size = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    pictures = hf.Qwen2VLImageProcessor(patch_size=patch, size=size)
    return words, pictures, {name: words.convert_tokens_to_ids(token) for name, token in QWEN.items()}


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_VISION: dict[str, Any] = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "num_heads": 2}


def qwen2_vl() -> tuple[Any, Any]:
    """Qwen2-VL: as many patches as the image is large, positions in three directions."""
    import transformers as hf

    words, pictures, marks = qwen(14)
    video_part = video("Qwen2VLVideoProcessor")
    processor = hf.Qwen2VLProcessor(image_processor=pictures, tokenizer=words, chat_template=template(QWEN_IMAGE), **video_part)
    rope = {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = hf.Qwen2VLConfig(text_config=text_config(words, rope_scaling=rope), vision_config=vision, **marks)
    return hf.Qwen2VLForConditionalGeneration(config), processor


def qwen2_5_vl(width: int = 32, context: int = 512) -> tuple[Any, Any]:
    """Qwen2.5-VL: as many patches as the image is large, positions in three directions; vectors of `width`, `context` tokens."""
    import transformers as hf

    words, pictures, marks = qwen(14)
    processor = hf.Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=words, chat_template=template(QWEN_IMAGE), **video("Qwen2VLVideoProcessor")
    )
    rope = {"type": "mrope", "rope_type": "default", "mrope_section": [width // 16, 3 * width // 32, 3 * width // 32], "rope_theta": 1e6}
    vision = QWEN_VISION | {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    vision |= {"hidden_size": width, "out_hidden_size": width}
    text = text_config(words, rope_scaling=rope, hidden_size=width, max_position_embeddings=context)
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **marks)
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl() -> tuple[Any, Any]:
    """Qwen3-VL: features of several depths go into the language model."""
    import transformers as hf

    words, pictures, marks = qwen(16)
    processor = hf.Qwen3VLProcessor(
        image_processor=pictures, tokenizer=words, chat_template=template(QWEN_IMAGE), **video("Qwen3VLVideoProcessor")
    )
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True, "rope_theta": 1e6}
    vision = QWEN_VISION | {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = hf.Qwen3VLConfig(text_config=text_config(words, head_dim=16, rope_scaling=rope), vision_config=vision, **marks)
    return hf.Qwen3VLForConditionalGeneration(config), processor


def tiled(family: str, **more: Any) -> tuple[Any, Any]:
    """Return a model and processor of a family of Idefics3's kind: an image is cut into tiles."""
    import transformers as hf

    def part(name: str) -> Any:
        return getattr(hf, family + name)

    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    named = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    words = tokenizer("<end_of_utterance>", *tiles, **named)
    pictures = part("ImageProcessor")(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = part("Processor")(image_processor=pictures, tokenizer=words, image_seq_len=4, chat_template=template("<image>"), **more)
    config = part("Config")(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
        scale_factor=2,
        vision_config=VISION,
        text_config=text_config(words, model_type="llama"),
    )
    return part("ForConditionalGeneration")(config), processor


def idefics3() -> tuple[Any, Any]:
    """Idefics3: tiles."""
    return tiled("Idefics3")


def smolvlm() -> tuple[Any, Any]:
    """SmolVLM: Idefics3 with videos; its processor needs num2words."""
    return tiled("SmolVLM", **({"video_processor": None} | video("SmolVLMVideoProcessor")))


def gemma3() -> tuple[Any, Any]:
    """Gemma 3: image tokens see each other in both directions, attention slides."""
    import transformers as hf

    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(**named)
    pictures = hf.Gemma3ImageProcessor(size={"height": 32, "width": 32}, do_pan_and_scan=False)
    processor = hf.Gemma3Processor(
        image_processor=pictures, tokenizer=words, image_seq_length=4, chat_template=template("<start_of_image>")
    )
    soft, begin, end = words.convert_tokens_to_ids(list(named.values()))
    config = hf.Gemma3Config(
        vision_config=VISION | {"vision_use_head": False},
        text_config=text_config(words, head_dim=16, sliding_window=64),
        mm_tokens_per_image=4,
        image_token_index=soft,
        boi_token_index=begin,
        eoi_token_index=end,
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def internvl() -> tuple[Any, Any]:
    """InternVL: a tower of its own and a Qwen2 language model."""
    import transformers as hf

    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    words = tokenizer(**named)
    pictures = hf.GotOcr2ImageProcessor(size={"height": 32, "width": 32}, crop_to_patches=False)
    processor = hf.InternVLProcessor(
        image_processor=pictures,
        tokenizer=words,
        image_seq_length=4,
        chat_template=template("<IMG_CONTEXT>\n"),
        **video("InternVLVideoProcessor"),
    )
    config = hf.InternVLConfig(
        vision_config=VISION | {"image_size": [32, 32], "patch_size": [8, 8]},
        text_config=text_config(words, model_type="qwen2"),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return hf.InternVLForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "llava": llava,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "internvl": internvl,
}


def build(family: str, folder: Path, seed: int = 0, **sizes: int) -> Path:
    """Save a random model of the family in `folder`, the same one for the same seed and sizes, and return the folder."""
    import torch
    from transformers.utils import logging

    from dream_cli.engines.patches import allow_image_only_processors
    from tests.zoo_newer import BUILDERS

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    allow_image_only_processors()
    torch.manual_seed(seed)
    model, processor = BUILDERS[family](**sizes)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

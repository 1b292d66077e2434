"""The architecture of nano, an untrained LLaVA, and its input pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dream_cli.nano.pictures import GRID, PATCH, SIDE, Picture, draw

SEATS = GRID * GRID
TOWER = {"hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 3, "num_attention_heads": 5}
DECODER = {"hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 5, "num_attention_heads": 5}


def build_model(vocabulary: int, seat: int, pad: int, end: int) -> Any:
    """Return an untrained LLaVA of nano's size; `seat`, `pad` and `end` are token ids."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    special = {"pad_token_id": pad, "bos_token_id": None, "eos_token_id": end, "tie_word_embeddings": True}
    text = LlamaConfig(**DECODER, num_key_value_heads=5, vocab_size=vocabulary, max_position_embeddings=2048, **special)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER, image_size=SIDE, patch_size=PATCH),
        text_config=text,
        image_token_index=seat,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=SEATS,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, pad
    return model


def build_tower() -> Any:
    """Return an untrained vision tower of nano's size."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=SIDE, patch_size=PATCH))


def pixels(pictures: Sequence[Picture]) -> Any:
    """Return the pictures as the image processor returns them: (pictures, 3, SIDE, SIDE), from -1 to 1."""
    import numpy as np
    import torch

    drawn = np.stack([np.asarray(draw(picture), dtype=np.float32) for picture in pictures])
    return torch.from_numpy(drawn.transpose(0, 3, 1, 2) / 127.5 - 1)

"""Tiny random models of the families that came later, of kinds of their own, and of those that are refused."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from tests.zoo import FAMILIES, QWEN_IMAGE, QWEN_VISION, VISION, qwen, template, text_config, tokenizer, video
from tests.zoo_recent import RECENT, TORCHVISION


def llava_next() -> tuple[Any, Any]:
    """LLaVA-NeXT: an image in tiles of its own shape, with a token at the end of each line."""
    import transformers as hf

    words = tokenizer(image_token="<image>")
    shapes = [[32, 64], [64, 32], [64, 64]]
    crop = {"height": 32, "width": 32}
    pictures = hf.LlavaNextImageProcessor(size={"shortest_edge": 32}, crop_size=crop, image_grid_pinpoints=shapes)
    processor = hf.LlavaNextProcessor(pictures, words, 8, "default", template("<image>\n"), num_additional_image_tokens=1)
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=hf.LlamaConfig(**text_config(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=shapes,
        vision_feature_layer=-2,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    """LLaVA-OneVision: tiles, a SigLIP tower, a Qwen2 language model."""
    import transformers as hf

    words = tokenizer(image_token="<image>", video_token="<video>")
    shapes = [[32, 64], [64, 32], [64, 64]]
    pictures = hf.LlavaOnevisionImageProcessor(size={"height": 32, "width": 32}, image_grid_pinpoints=shapes)
    processor = hf.LlavaOnevisionProcessor(
        image_processor=pictures,
        tokenizer=words,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n"),
        **({"video_processor": None} | video("LlavaOnevisionVideoProcessor")),
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Qwen2Config(**text_config(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=shapes,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def idefics2() -> tuple[Any, Any]:
    """Idefics2: a resampler makes as many features of every image."""
    import transformers as hf

    words = tokenizer(image_token="<image>", image_boundary_token="<fake_token_around_image>")
    pictures = hf.Idefics2ImageProcessor(size={"shortest_edge": 24, "longest_edge": 32})
    processor = hf.Idefics2Processor(pictures, words, image_seq_len=4, chat_template=template("<image>"))
    resampler = {"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2}
    config = hf.Idefics2Config(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_config=VISION,
        perceiver_config=resampler | {"resampler_head_dim": 16, "num_key_value_heads": 1},
        text_config=text_config(words, model_type="mistral", sliding_window=None),
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


def glm4v() -> tuple[Any, Any]:
    """GLM-4.1V: as many patches as the image is large, positions in three directions."""
    import transformers as hf

    marks = {"image_token": "<|image|>", "video_token": "<|video|>"}
    ends = {
        f"{kind}_{end}_token_id": f"<|{verb}_of_{kind}|>"
        for kind in ("image", "video")
        for end, verb in (("start", "begin"), ("end", "end"))
    }
    words = tokenizer(*ends.values(), **marks)
    pictures = hf.Glm4vImageProcessor(patch_size=14, size={"shortest_edge": 28**2 * 2, "longest_edge": 56**2 * 2})
    processor = hf.Glm4vProcessor(
        image_processor=pictures,
        tokenizer=words,
        chat_template=template("<|begin_of_image|><|image|><|end_of_image|>"),
        **video("Glm4vVideoProcessor"),
    )
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "image_size": 56,
    }
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "partial_rotary_factor": 1.0, "rope_theta": 1e4}
    config = hf.Glm4vConfig(
        vision_config=vision,
        text_config=text_config(words, rope_parameters=rope),
        image_token_id=words.convert_tokens_to_ids("<|image|>"),
        video_token_id=words.convert_tokens_to_ids("<|video|>"),
        **{name: words.convert_tokens_to_ids(token) for name, token in ends.items()},
    )
    return hf.Glm4vForConditionalGeneration(config), processor


def show_pixtral() -> None:
    """Let transformers find Pixtral's processor, whose file imports torchvision for a function that its twin for PIL has too."""
    import sys
    from importlib import import_module

    place = "transformers.models.pixtral"
    if not find_spec("torchvision"):
        sys.modules[f"{place}.image_processing_pixtral"] = import_module(f"{place}.image_processing_pil_pixtral")
        processor = import_module(f"{place}.processing_pixtral").PixtralProcessor
        for package in ("transformers", place):
            setattr(import_module(package), processor.__name__, processor)


def mistral3() -> tuple[Any, Any]:
    """Mistral 3: a Pixtral tower for images of any shape, with a token at the end of each line."""
    import transformers as hf

    show_pixtral()
    words = tokenizer("[IMG_BREAK]", "[IMG_END]", image_token="[IMG]")
    pictures = hf.PixtralImageProcessor(size={"longest_edge": 48}, patch_size={"height": 8, "width": 8})
    processor = hf.PixtralProcessor(pictures, words, patch_size=8, spatial_merge_size=2, chat_template=template("[IMG]"))
    config = hf.Mistral3Config(
        vision_config=VISION | {"model_type": "pixtral", "image_size": 64, "head_dim": 16},
        text_config=text_config(words, model_type="mistral", head_dim=16, sliding_window=None),
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
    )
    return hf.Mistral3ForConditionalGeneration(config), processor


def qwen3_vl_moe() -> tuple[Any, Any]:
    """Qwen3-VL with experts, whose router has a loss of its own."""
    import transformers as hf

    words, pictures, marks = qwen(16)
    processor = hf.Qwen3VLProcessor(
        image_processor=pictures, tokenizer=words, chat_template=template(QWEN_IMAGE), **video("Qwen3VLVideoProcessor")
    )
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True, "rope_theta": 1e6}
    vision = QWEN_VISION | {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    text = text_config(words, head_dim=16, rope_parameters=rope, **experts)
    return hf.Qwen3VLMoeForConditionalGeneration(hf.Qwen3VLMoeConfig(text_config=text, vision_config=vision, **marks)), processor


def qwen3_5() -> tuple[Any, Any]:
    """Qwen3.5: linear attention in all layers but each fourth."""
    import transformers as hf

    words, pictures, marks = qwen(16)
    processor = hf.Qwen3VLProcessor(
        image_processor=pictures, tokenizer=words, chat_template=template(QWEN_IMAGE), **video("Qwen3VLVideoProcessor")
    )
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1e6, "partial_rotary_factor": 0.5}
    linear = {f"linear_{kind}_head_dim": 16 for kind in ("key", "value")} | {f"linear_num_{kind}_heads": 2 for kind in ("key", "value")}
    text = text_config(words, head_dim=16, rope_parameters=rope, layer_types=["linear_attention", "full_attention"], **linear)
    vision = QWEN_VISION | {"patch_size": 16, "num_position_embeddings": 64}
    return hf.Qwen3_5ForConditionalGeneration(hf.Qwen3_5Config(text_config=text, vision_config=vision, **marks)), processor


def vipllava() -> tuple[Any, Any]:
    """VipLLaVA: LLaVA with the features of several layers of its tower."""
    import transformers as hf

    words = tokenizer(image_token="<image>")
    pictures = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = hf.LlavaProcessor(pictures, words, 8, "default", template("<image>\n"), num_additional_image_tokens=1)
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=hf.LlamaConfig(**text_config(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=(-2, -1),
        image_seq_length=16,
    )
    return hf.VipLlavaForConditionalGeneration(config), processor


def aya_vision() -> tuple[Any, Any]:
    """Aya Vision: a SigLIP tower and a Cohere 2 language model with sliding windows."""
    import transformers as hf

    parts = ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL"]
    words = tokenizer(*parts, image_token="<image>")
    pictures = hf.GotOcr2ImageProcessor(size={"height": 32, "width": 32}, crop_to_patches=False)
    processor = hf.AyaVisionProcessor(pictures, words, 8, 32, downsample_factor=2, chat_template=template("<image>"))
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Cohere2Config(**text_config(words, sliding_window=64)),
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    return hf.AyaVisionForConditionalGeneration(config), processor


def mllama() -> tuple[Any, Any]:
    """Llama 3.2 Vision: images go into layers of cross-attention, not into the row of tokens."""
    import transformers as hf

    words = tokenizer("<|python_tag|>", "<bos>", image_token="<|image|>")
    words.bos_token = "<bos>"
    pictures = hf.MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=4)
    processor = hf.MllamaProcessor(pictures, words, template("<|image|>"))
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
    }
    vision |= {"vision_output_dim": 64, "image_size": 32, "patch_size": 8, "max_num_tiles": 4, "intermediate_layers_indices": [1]}
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = text_config(words, cross_attention_layers=[1], rope_parameters=rope, bos_token_id=words.bos_token_id)
    config = hf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=words.convert_tokens_to_ids("<|image|>"))
    return hf.MllamaForConditionalGeneration(config), processor


def qwen3_5_moe() -> tuple[Any, Any]:
    """Qwen3.5 with experts."""
    import transformers as hf

    words, pictures, marks = qwen(16)
    processor = hf.Qwen3VLProcessor(
        image_processor=pictures, tokenizer=words, chat_template=template(QWEN_IMAGE), **video("Qwen3VLVideoProcessor")
    )
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1e6, "partial_rotary_factor": 0.5}
    linear = {f"linear_{kind}_head_dim": 16 for kind in ("key", "value")} | {f"linear_num_{kind}_heads": 2 for kind in ("key", "value")}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    layers = ["linear_attention", "full_attention"]
    text = text_config(words, head_dim=16, rope_parameters=rope, layer_types=layers, **linear, **experts)
    vision = QWEN_VISION | {"patch_size": 16, "num_position_embeddings": 64}
    return hf.Qwen3_5MoeForConditionalGeneration(hf.Qwen3_5MoeConfig(text_config=text, vision_config=vision, **marks)), processor


def paligemma() -> tuple[Any, Any]:
    """PaliGemma: its processor reads no text without an image."""
    import transformers as hf

    places = [f"<loc{number:04d}>" for number in range(1024)] + [f"<seg{number:03d}>" for number in range(128)]
    words = tokenizer("<bos>", *places, image_token="<image>")
    words.bos_token = "<bos>"
    pictures = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(image_processor=pictures, tokenizer=words, chat_template=template("<image>"))
    vision = VISION | {"model_type": "siglip_vision_model", "projection_dim": 32, "vision_use_head": False}
    text = text_config(words, model_type="gemma", head_dim=16)
    mark = words.convert_tokens_to_ids("<image>")
    config = hf.PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=mark, projection_dim=32, hidden_size=32)
    return hf.PaliGemmaForConditionalGeneration(config), processor


BUILDERS = FAMILIES | {
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "vipllava": vipllava,
    "idefics2": idefics2,
    "glm4v": glm4v,
    "mistral3": mistral3,
    "qwen3_vl_moe": qwen3_vl_moe,
    "qwen3_5": qwen3_5,
    "qwen3_5_moe": qwen3_5_moe,
    "aya_vision": aya_vision,
    "mllama": mllama,
    "paligemma": paligemma,
    **RECENT,
    **(TORCHVISION if find_spec("torchvision") else {}),
}

"""Tiny random models of families of 2025 and 2026, and of known families with other parts."""

from __future__ import annotations

from typing import Any

from tests.zoo import VISION, template, text_config, tokenizer, video


def llava_pixtral() -> tuple[Any, Any]:
    """LLaVA with a Pixtral tower, as Pixtral 12B is."""
    import transformers as hf

    from tests.zoo_newer import show_pixtral

    show_pixtral()
    words = tokenizer("[IMG_BREAK]", "[IMG_END]", image_token="[IMG]")
    pictures = hf.PixtralImageProcessor(size={"longest_edge": 48}, patch_size={"height": 8, "width": 8})
    processor = hf.PixtralProcessor(pictures, words, patch_size=8, chat_template=template("[IMG]"))
    config = hf.LlavaConfig(
        vision_config=VISION | {"model_type": "pixtral", "image_size": 64, "head_dim": 16},
        text_config=text_config(words, model_type="mistral", head_dim=16, sliding_window=None),
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return hf.LlavaForConditionalGeneration(config), processor


def internvl_qwen3() -> tuple[Any, Any]:
    """InternVL with a Qwen3 language model, as InternVL3.5 is."""
    import transformers as hf

    from tests.zoo import internvl

    model, processor = internvl()
    config = model.config
    config.text_config = hf.Qwen3Config(**text_config(processor.tokenizer, head_dim=16))
    return hf.InternVLForConditionalGeneration(config), processor


def glm46v() -> tuple[Any, Any]:
    """GLM-4.6V: the tower of GLM-4.1V."""
    import transformers as hf

    from tests.zoo_newer import glm4v

    model, known = glm4v()
    size = {"shortest_edge": 28**2 * 2, "longest_edge": 56**2 * 2}
    pictures = hf.Glm46VImageProcessor(patch_size=14, size=size)
    processor = hf.Glm46VProcessor(
        image_processor=pictures, tokenizer=known.tokenizer, chat_template=known.chat_template, **video("Glm46VVideoProcessor")
    )
    own = {name: value for name, value in model.config.to_dict().items() if name.endswith(("_token_id", "_config"))}
    return hf.Glm46VForConditionalGeneration(hf.Glm46VConfig(**own)), processor


def glm4v_moe() -> tuple[Any, Any]:
    """GLM-4.5V: GLM-4.1V with experts."""
    import transformers as hf

    from tests.zoo_newer import glm4v

    model, processor = glm4v()
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5, "rope_theta": 1e4}
    vision = model.config.vision_config.to_dict() | {"model_type": "glm4v_moe_vision"}
    own = {name: value for name, value in model.config.to_dict().items() if name.endswith("_token_id")}
    text = text_config(processor.tokenizer, head_dim=16, rope_parameters=rope, **experts)
    return hf.Glm4vMoeForConditionalGeneration(hf.Glm4vMoeConfig(text_config=text, vision_config=vision, **own)), processor


def ovis2() -> tuple[Any, Any]:
    """Ovis2: each patch is a distribution over visual words."""
    import transformers as hf

    marks = [f"<IMG_{name}>" for name in ("START", "GRID", "COL", "ROW", "END")]
    words = tokenizer("<IMG_ATOM>", *marks, image_token="<image>")
    pictures = hf.Ovis2ImageProcessor(size={"height": 32, "width": 32})
    processor = hf.Ovis2Processor(image_processor=pictures, tokenizer=words, image_seq_length=16, chat_template=template("<image>"))
    config = hf.Ovis2Config(
        vision_config=VISION | {"vocab_size": 64, "hidden_stride": 1},
        text_config=text_config(words, model_type="qwen2"),
        image_token_id=words.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=words.convert_tokens_to_ids(marks),
        hidden_size=32,
        vocab_size=len(words),
    )
    return hf.Ovis2ForConditionalGeneration(config), processor


def gemma4() -> tuple[Any, Any]:
    """Gemma 4: layers of two widths, attention slides, images of any shape."""
    import transformers as hf

    named = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    named |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    words = tokenizer("<|video|>", **named)
    pictures = hf.Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    processor = hf.Gemma4Processor(
        feature_extractor=hf.Gemma4AudioFeatureExtractor(),
        image_processor=pictures,
        tokenizer=words,
        chat_template=template("<|image|>"),
        **({"video_processor": None} | video("Gemma4VideoProcessor")),
    )
    marks = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    vision = VISION | {"num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 2, "position_embedding_size": 64}
    text = text_config(
        words,
        head_dim=16,
        global_head_dim=16,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
        vocab_size_per_layer_input=len(words),
        hidden_size_per_layer_input=8,
    )
    config = hf.Gemma4Config(
        vision_config=vision,
        text_config=text,
        audio_config=None,
        image_token_id=marks["image_token"],
        boi_token_id=marks["boi_token"],
        eoi_token_id=marks["eoi_token"],
        video_token_id=words.convert_tokens_to_ids("<|video|>"),
        audio_token_id=marks["audio_token"],
        boa_token_id=marks["boa_token"],
        eoa_token_index=marks["eoa_token"],
    )
    return hf.Gemma4ForConditionalGeneration(config), processor


def minicpmv4_6() -> tuple[Any, Any]:
    """MiniCPM-V 4.6: slices of an image, and the language model of Qwen3.5."""
    import transformers as hf

    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    named |= {
        f"{name}_{end}_token": f"<{'/' * (end == 'end')}{name}>" for name in ("image", "slice", "image_id") for end in ("start", "end")
    }
    words = tokenizer(**named)
    pictures = hf.MiniCPMV4_6ImageProcessor(scale_resolution=56, patch_size=14, max_slice_nums=1)
    processor = hf.MiniCPMV4_6Processor(
        image_processor=pictures,
        tokenizer=words,
        chat_template=template("<|image_pad|>"),
        **({"video_processor": None} | video("MiniCPMV4_6VideoProcessor")),
    )
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1e6, "partial_rotary_factor": 0.5}
    linear = {f"linear_{kind}_head_dim": 16 for kind in ("key", "value")} | {f"linear_num_{kind}_heads": 2 for kind in ("key", "value")}
    text = text_config(words, head_dim=16, rope_parameters=rope, layer_types=["linear_attention", "full_attention"], **linear)
    config = hf.MiniCPMV4_6Config(
        vision_config=VISION | {"image_size": 56, "patch_size": 14},
        text_config=text,
        insert_layer_id=1,
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
    )
    return hf.MiniCPMV4_6ForConditionalGeneration(config), processor


def lfm2_vl() -> tuple[Any, Any]:
    """LFM2-VL: convolutions between layers of attention."""
    import transformers as hf

    named = {"image_token": "<image>", "image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>"}
    words = tokenizer("<|img_thumbnail|>", **named, image_thumbnail="<|img_thumbnail|>")
    pictures = hf.Lfm2VlImageProcessor(
        size={"height": 32, "width": 32},
        tile_size=32,
        encoder_patch_size=8,
        min_image_tokens=2,
        max_image_tokens=8,
        do_image_splitting=False,
    )
    processor = hf.Lfm2VlProcessor(pictures, words, chat_template=template("<image>"))
    config = hf.Lfm2VlConfig(
        vision_config=VISION | {"model_type": "siglip2_vision_model", "num_patches": 16, "vision_use_head": False},
        text_config=text_config(words, model_type="lfm2", layer_types=["conv", "full_attention"]),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projector_hidden_size=32,
    )
    return hf.Lfm2VlForConditionalGeneration(config), processor


def llama4() -> tuple[Any, Any]:
    """Llama 4: experts, and attention in chunks."""
    import transformers as hf

    marks = ["<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"]
    words = tokenizer(*marks, image_token="<|image|>")
    pictures = hf.Llama4ImageProcessor(size={"height": 32, "width": 32}, max_patches=1)
    processor = hf.Llama4Processor(pictures, words, patch_size=8, chat_template=template("<|image|>"))
    vision = VISION | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32, "intermediate_size": 128}
    text = text_config(words, head_dim=16, intermediate_size_mlp=64, num_local_experts=4, attention_chunk_size=64)
    mark = dict(zip(("boi_token_index", "eoi_token_index", "image_token_index"), words.convert_tokens_to_ids(marks[:3]), strict=True))
    return hf.Llama4ForConditionalGeneration(hf.Llama4Config(vision_config=vision, text_config=text, **mark)), processor


def cohere2_vision() -> tuple[Any, Any]:
    """Command A Vision: tiles, and a Cohere 2 language model with sliding windows."""
    import transformers as hf

    named = {"image_token": "<|IMG_PATCH|>", "boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>"}
    words = tokenizer(**named, img_line_break_token="<|IMG_LINE_BREAK|>")
    pictures = hf.Cohere2VisionImageProcessor(size={"height": 32, "width": 32}, patch_size=2, crop_to_patches=False)
    processor = hf.Cohere2VisionProcessor(pictures, words, chat_template=template("<|IMG_PATCH|>"))
    config = hf.Cohere2VisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Cohere2Config(**text_config(words, sliding_window=64)),
        image_token_id=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        alignment_intermediate_size=64,
    )
    return hf.Cohere2VisionForConditionalGeneration(config), processor


RECENT = {
    "llava_pixtral": llava_pixtral,
    "internvl_qwen3": internvl_qwen3,
    "glm46v": glm46v,
    "glm4v_moe": glm4v_moe,
    "ovis2": ovis2,
    "gemma4": gemma4,
    "minicpmv4_6": minicpmv4_6,
}
# Families whose image processors need torchvision.
TORCHVISION = {"lfm2_vl": lfm2_vl, "llama4": llama4, "cohere2_vision": cohere2_vision}

"""One builder per family: a configuration of a few thousand weights, and the files that a published model has.

What a published repository holds decides how a model loads, so models whose processor cannot be made without
torchvision are written as their repositories are: image processor, tokenizer, template and processor settings apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers as hf

from families import templates, tokenizers

TEXT: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
}
QWEN_VISION: dict[str, Any] = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        build: makes configuration, image processor, tokenizer and processor settings.
        template: its published chat template.
        end: what ends an answer: the template's marker, or the tokenizer's end of sequence where it has none.
        lead: white space of the template that the model has to say before the answer's first word.
        wrapping: tokens around images, which must go with them.
        processor: name of the processor class.
    """

    build: Callable[[], tuple[Any, Any, Any, dict[str, Any]]]
    template: str
    end: str
    processor: str
    lead: str = ""
    wrapping: tuple[str, ...] = ()


def _ids(tokenizer: Any, *names: str) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(name) for name in names]


def llava() -> tuple[Any, Any, Any, dict[str, Any]]:
    tokenizer = tokenizers.spaced(
        ["<unk>", "<s>", "</s>", "<image>", "<pad>"], "<s>", prepend=True, eos_token="</s>", pad_token="<pad>"
    )
    vision = {**SIGLIP, "model_type": "clip_vision_model", "patch_size": 14, "projection_dim": 32}
    text = {**TEXT, "model_type": "llama", "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config = hf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=_ids(tokenizer, "<image>")[0], vision_feature_layer=-2
    )
    images = hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return config, images, tokenizer, {
        "patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1
    }  # fmt: skip


def llava_onevision() -> tuple[Any, Any, Any, dict[str, Any]]:
    tokenizer = tokenizers.qwen(["<image>", "<video>"])
    image, video = _ids(tokenizer, "<image>", "<video>")
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56], [28, 84]]
    config = hf.LlavaOnevisionConfig(
        vision_config={**SIGLIP, "patch_size": 14, "vision_use_head": False},
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=pinpoints,
    )
    images = hf.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints)
    return config, images, tokenizer, {
        "num_image_tokens": 4, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"
    }  # fmt: skip


def _qwen(config_class: Any, patch: int, vision: dict[str, Any], text: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = tokenizers.qwen(marks)
    start, end, image, video = _ids(tokenizer, *marks)
    config = config_class(
        vision_config={**QWEN_VISION, "patch_size": patch, "out_hidden_size": TEXT["hidden_size"], **vision},
        text_config={**TEXT, "vocab_size": len(tokenizer), **text},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    side = 2 * patch
    images = hf.Qwen2VLImageProcessor(patch_size=patch, min_pixels=side * side * 2, max_pixels=side * side * 9)
    return config, images, tokenizer, {}


def qwen2_5_vl() -> tuple[Any, Any, Any, dict[str, Any]]:
    vision = {"window_size": 56, "fullatt_block_indexes": [1]}
    return _qwen(hf.Qwen2_5_VLConfig, 14, vision, {"rope_parameters": MROPE})


def qwen3_vl() -> tuple[Any, Any, Any, dict[str, Any]]:
    vision = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
    return _qwen(
        hf.Qwen3VLConfig, 16, vision, {"head_dim": 12, "rope_parameters": {**MROPE, "mrope_interleaved": True}}
    )


def _idefics(config_class: Any, images: Any, tokenizer: Any, vision_type: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    vision = {**SIGLIP, "model_type": vision_type, "patch_size": 7}
    config = config_class(
        vision_config=vision,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0},
        image_token_id=_ids(tokenizer, "<image>")[0],
        scale_factor=2,
    )
    return config, images, tokenizer, {"image_seq_len": 4}


IDEFICS_MARKS = [
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
]
TILES: dict[str, Any] = {"size": {"longest_edge": 84}, "max_image_size": {"longest_edge": 28}}


def smolvlm() -> tuple[Any, Any, Any, dict[str, Any]]:
    return _idefics(
        hf.SmolVLMConfig, hf.SmolVLMImageProcessor(**TILES), tokenizers.smol(IDEFICS_MARKS), "smolvlm_vision"
    )


def idefics3() -> tuple[Any, Any, Any, dict[str, Any]]:
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<end_of_utterance>", *IDEFICS_MARKS]
    split = [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    options = {"bos_token": "<|begin_of_text|>", "eos_token": "<end_of_utterance>", "pad_token": "<|end_of_text|>"}
    tokenizer = tokenizers.byte_level(names, split, **options)
    return _idefics(hf.Idefics3Config, hf.Idefics3ImageProcessor(**TILES), tokenizer, "idefics3_vision")


def gemma3() -> tuple[Any, Any, Any, dict[str, Any]]:
    marks = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", *marks]
    tokenizer = tokenizers.spaced(
        names,
        "<bos>",
        prepend=False,
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=dict(zip(("boi_token", "eoi_token", "image_token"), marks, strict=True)),
    )
    boi, eoi, image = _ids(tokenizer, *marks)
    text = {
        **TEXT,
        "model_type": "gemma3_text",
        "vocab_size": len(tokenizer),
        "head_dim": 12,
        "query_pre_attn_scalar": 12,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    config = hf.Gemma3Config(
        vision_config={**SIGLIP, "patch_size": 7, "vision_use_head": False},
        text_config=text,
        mm_tokens_per_image=4,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_index=image,
    )
    return config, hf.Gemma3ImageProcessor(size={"height": 28, "width": 28}), tokenizer, {"image_seq_length": 4}


def internvl() -> tuple[Any, Any, Any, dict[str, Any]]:
    marks = ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    keys = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    tokenizer = tokenizers.qwen(marks, extra_special_tokens=dict(zip(keys, marks, strict=True)))
    vision = {**SIGLIP, "model_type": "internvl_vision", "patch_size": 7}
    config = hf.InternVLConfig(
        vision_config=vision,
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=_ids(tokenizer, "<IMG_CONTEXT>")[0],
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    images = hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, min_patches=1, max_patches=4)
    return config, images, tokenizer, {"image_seq_length": 4}


IDEFICS_WRAPPING = ("<fake_token_around_image>", "<global-img>", "<row_1_col_1>")
QWEN_WRAPPING = ("<|vision_start|>", "<|vision_end|>")
FAMILIES: dict[str, Family] = {
    "llava-1.5": Family(llava, templates.LLAVA_1_5, "</s>", "LlavaProcessor", " "),
    "llava-onevision": Family(llava_onevision, templates.LLAVA_ONEVISION, "<|im_end|>", "LlavaOnevisionProcessor"),
    "qwen2.5-vl": Family(qwen2_5_vl, templates.QWEN2_5_VL, "<|im_end|>", "Qwen2_5_VLProcessor", wrapping=QWEN_WRAPPING),
    "qwen3-vl": Family(qwen3_vl, templates.QWEN3_VL, "<|im_end|>", "Qwen3VLProcessor", wrapping=QWEN_WRAPPING),
    "smolvlm": Family(
        smolvlm, templates.SMOLVLM, "<end_of_utterance>", "SmolVLMProcessor", " ", wrapping=IDEFICS_WRAPPING
    ),
    "idefics3": Family(
        idefics3, templates.IDEFICS3, "<end_of_utterance>", "Idefics3Processor", " ", wrapping=IDEFICS_WRAPPING
    ),
    "gemma3": Family(
        gemma3,
        templates.GEMMA3,
        "<end_of_turn>",
        "Gemma3Processor",
        wrapping=("<start_of_image>", "<end_of_image>"),
    ),
    "internvl": Family(internvl, templates.INTERNVL, "<|im_end|>", "InternVLProcessor", wrapping=("<img>", "</img>")),
}


def save_family(name: str, directory: Path) -> Path:
    """Write a family's tiny model as a published repository is laid out."""
    family = FAMILIES[name]
    config, images, tokenizer, settings = family.build()
    model = hf.AutoModelForImageTextToText.from_config(config)
    _randomise(model)
    ends = _ids(tokenizer, tokenizer.eos_token, family.end)
    model.generation_config.eos_token_id = list(dict.fromkeys(ends))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    images.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "chat_template.jinja").write_text(family.template)
    (directory / "processor_config.json").write_text(json.dumps({**settings, "processor_class": family.processor}))
    return directory


def _randomise(model: Any) -> None:
    """Weights large enough that every input and every layer matters."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                continue
            scale = 0.5 if "embed" in name and "patch" not in name else 1.2 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)

"""What extraction.py measures on: the demo's model and pool, and LLaVAs of several sizes with random weights."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from liit.config import load_config
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.data.sample import ImageRef, Message, Sample
from liit.demo.vlm.architecture import CHAT_TEMPLATE, IMAGE, make_tokenizer
from liit.lifelong.workbench import cache_directory
from liit.model.lora import attach_lora, lora_parameters
from liit.model.vlm import VLM, load_vlm

PATCH, IMAGE_PIXELS = 14, 168  # 144 image tokens
CPU = torch.device("cpu")
WORDS = (
    "the",
    "a",
    "cat",
    "dog",
    "box",
    "red",
    "blue",
    "left",
    "how",
    "many",
    "what",
    "is",
    "on",
    "it",
    "seven",
    "word",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with an adapter of random factors, and samples for it.

    Attributes:
        vlm: the model.
        samples: gives the first n of a fixed, shuffled list.
        facts: its size in words and numbers, for the table.
    """

    vlm: VLM
    samples: Callable[[int], list[Sample]]
    facts: dict[str, Any]


def demo(work: Path) -> Subject:
    """The built-in base with LoRA r = 16 on its language layers, and the built-in continuum's training rows."""
    from liit.demo.continuum import cached_continuum

    vlm = load_vlm("builtin:demo")
    _adapt(vlm, r=16)
    path = cached_continuum(cache_directory())
    pool = Pool.open_or_create(work / path.parent.name)
    continuum = load_config(path)
    for step in continuum.steps:
        for part in step.train:
            ingest(pool, part.path, part.format, part.source, image_root=part.images, key=f"{step.name}-{part.path}")
    order = np.random.default_rng(0).permutation(len(pool))
    ids = np.asarray(pool.ids())[order]
    return Subject(vlm, lambda n: pool.take(ids[:n].tolist()), _facts(vlm, "demo"))


def middle(_: Path) -> Subject:
    """Six layers of d = 256, LoRA r = 16: P = 77 312, as in the goals."""
    return _random_llava("middle", hidden=256, layers=6, intermediate=672, heads=4, r=16, tower=(64, 2))


def large(_: Path) -> Subject:
    """About 100 M parameters; head and tower have the shares of a forward pass that they have in LLaVA-1.5-7B."""
    return _random_llava("large", hidden=768, layers=12, intermediate=2048, heads=12, r=8, tower=(256, 5))


def toy(_: Path) -> Subject:
    """For the tests of the benchmark itself."""
    return _random_llava("toy", hidden=32, layers=3, intermediate=48, heads=2, r=2, tower=(16, 1), words=6)


def llava_7b(device: torch.device) -> Subject:
    """LLaVA-1.5-7B's shapes in bfloat16 with its training script's adapter, r = 128: P = 10 M, 576 image tokens."""
    return _random_llava(
        "llava-1.5-7b", hidden=4096, layers=32, intermediate=11008, heads=32, r=128, tower=(1024, 24), tower_heads=16,
        words=150, vocabulary=32064, pixels=336, dtype=torch.bfloat16, device=device,
    )  # fmt: skip


def small_card(device: torch.device) -> Subject:
    """The same on a small scale, for the test of what runs on a card."""
    return _random_llava(
        "small", hidden=32, layers=3, intermediate=48, heads=2, r=2, tower=(16, 1), words=6, dtype=torch.bfloat16,
        device=device,
    )  # fmt: skip


SUBJECTS: dict[str, Callable[[Path], Subject]] = {"demo": demo, "middle": middle, "large": large, "toy": toy}


def _adapt(vlm: VLM, r: int) -> None:
    """LoRA on the decoder's linear layers, both factors random: with B = 0 the gradient of A would be zero."""
    attach_lora(vlm, r=r, alpha=2 * r, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in lora_parameters(vlm).items():
            if ".lora_B" in name:
                parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
    vlm.adapter_id = "random-1"


def _random_llava(
    name: str,
    *,
    hidden: int,
    layers: int,
    intermediate: int,
    heads: int,
    r: int,
    tower: tuple[int, int],
    tower_heads: int = 4,
    words: int = 45,
    vocabulary: int = 2048,
    pixels: int = IMAGE_PIXELS,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Subject:
    from transformers import (
        AutoModelForImageTextToText,
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaProcessor,
    )

    tokenizer = make_tokenizer([" ".join(WORDS)])
    text = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=2048, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=tower[0], intermediate_size=4 * tower[0], num_hidden_layers=tower[1],
        num_attention_heads=tower_heads, image_size=pixels, patch_size=PATCH,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        tie_word_embeddings=True, vision_feature_layer=-1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]), device:
        torch.manual_seed(0)
        network: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model = network.eval().requires_grad_(False)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"height": pixels, "width": pixels}, do_center_crop=False
        ),
        tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token=IMAGE, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    vlm = VLM(model, processor, "random LLaVA", f"random-{hidden}-{layers}", 2048)
    _adapt(vlm, r)
    for parameter in lora_parameters(vlm).values():
        parameter.data = parameter.data.to(dtype)  # PEFT makes float32 of it, which is slow on a GPU
    return Subject(vlm, lambda n: [_conversation(number, words, pixels) for number in range(n)], _facts(vlm, name))


def _conversation(number: int, words: int, pixels: int) -> Sample:
    """Seeded words of lognormal length, a third of them the answer; every eighth sample has no image."""
    rng = np.random.default_rng(number)
    count = int(np.clip(rng.lognormal(np.log(words), 0.5), 4, 4 * words))
    said = rng.choice(WORDS, size=count).tolist()
    images = () if number % 8 == 7 else (_picture(rng, pixels),)
    question = ("<image>\n" if images else "") + " ".join(said[count // 3 :])
    return Sample(f"s{number}", (Message("user", question), Message("assistant", " ".join(said[: count // 3]))), images)


def _picture(rng: np.random.Generator, pixels: int) -> ImageRef:
    blocks = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(blocks).resize((pixels, pixels)).save(stream, "PNG")
    data = stream.getvalue()
    return ImageRef("", hashlib.sha256(data).hexdigest(), data)


def _facts(vlm: VLM, name: str) -> dict[str, Any]:
    layer = len(vlm.decoder_layers) // 2
    return {
        "name": name,
        "parameters": sum(p.numel() for p in vlm.base.parameters()),
        "hidden": vlm.text_config.hidden_size,
        "layers": len(vlm.decoder_layers),
        "layer": layer,
        "gradient_length": sum(p.numel() for p in lora_parameters(vlm, [layer]).values()),
    }

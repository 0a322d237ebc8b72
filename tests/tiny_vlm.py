"""The built-in model's architecture with random weights, small and quick, and conversations to feed it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from liit.data.sample import ImageRef, Message, Sample

if TYPE_CHECKING:
    from liit.model.vlm import VLM

WORDS = [
    "What is it? A cat, a dog, two red boxes and the number 42.",
    "How many pictures are there? Describe the first one in one sentence, please.",
    'これは何ですか。猫です。{"box": [1, 2, 3, 4]} yes no left right',
    "You are a helpful assistant. USER: ASSISTANT: user assistant system",
] * 8


def picture(seed: int, size: tuple[int, int] = (24, 16)) -> ImageRef:
    """A random picture held by value; different seeds differ in overall colour, not in noise only."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 64, (size[1], size[0], 3)) + rng.integers(0, 192, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    data = stream.getvalue()
    return ImageRef(f"{seed}.png", hashlib.sha256(data).hexdigest(), data)


def talk(id: str, *texts: str, images: Sequence[int] = (), system: str | None = None) -> Sample:
    """A conversation: user and assistant in turn; `images` are seeds of pictures."""
    messages = [] if system is None else [Message("system", system)]
    messages += [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return Sample(id, tuple(messages), tuple(picture(seed) for seed in images))


def mixed_samples() -> list[Sample]:
    """Every shape of row that traps padding, images and masks, in mixed lengths."""
    return [
        talk("one", "<image>\nWhat is it?", "A cat.", images=[1]),
        talk("text", "How many legs has a cat?", "4"),
        talk("two", "<image>\n<image>\nWhich is red?", "the first one, on the left", images=[2, 3]),
        talk("turns", "<image>\nWhat is it?", "A dog", "And its colour?", "brown and white", images=[4]),
        talk("long", "Say a lot. " * 12, "no " * 30),
        talk("日本", "<image>\nこれは何ですか。", "猫です。", images=[1]),
        talk("system", "Is it a dog?", "yes", system="You are a helpful assistant."),
        talk("late", "Look at this: <image>\nwhat is on it?", 'boxes\n{"box": [1, 2]}', images=[5]),
        talk("split", "First?", "no", "<image>\nNow?", "yes", "<image>\nAnd now?", "no, a box", images=[6, 7]),
    ]


def save_tiny(directory: Path, *, hidden: int = 48, layers: int = 4) -> Path:
    """Write the architecture with random weights (the vision tower's too), large enough that inputs matter."""
    import torch

    from liit.demo.vlm import architecture

    tokenizer = architecture.make_tokenizer(WORDS)
    with pytest.MonkeyPatch.context() as patch:  # the published vision weights are an optional package
        patch.setattr(architecture, "published_weights", dict)
        patch.setattr(architecture, "folded_weights", dict)
        model = architecture.make_model(tokenizer, 0, hidden=hidden, layers=layers, heads=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vision_tower" not in name and parameter.ndim == 2:
                scale = 0.5 if "embed" in name else 1.5 / parameter.shape[1] ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            elif "vision_tower" in name and parameter.ndim == 4:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
    model.save_pretrained(directory)
    architecture.make_processor(tokenizer).save_pretrained(directory)
    return directory


def randomise_lora(vlm: VLM, seed: int = 0, scale: float = 0.2) -> None:
    """Give both factors random values; with B = 0 the gradient of A would be zero."""
    import torch

    from liit.model.lora import lora_parameters

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora_parameters(vlm).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    vlm.adapter_id = f"random-{seed}"


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the tiny model; tests must not write there. One thread, so that the tests leave others alone."""
    import torch

    from liit.demo.vlm.tower import register

    torch.set_num_threads(1)
    register()
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def load_tiny(tiny_path: Path) -> Callable[..., VLM]:
    """Loads the tiny model, optionally with an adapter of random factors: `load_tiny(lora=True, **load options)`."""
    from liit.model.lora import attach_lora
    from liit.model.vlm import load_vlm

    def load(*, lora: bool = False, r: int = 3, modules: str | Sequence[str] = "language-linear", **more: Any) -> VLM:
        vlm = load_vlm(str(tiny_path), **more)
        if lora:
            attach_lora(vlm, r=r, alpha=2 * r, modules=modules)
            randomise_lora(vlm)
        return vlm

    return load


@pytest.fixture
def tiny(load_tiny: Callable[..., VLM]) -> VLM:
    """The tiny model without an adapter, one's own copy."""
    return load_tiny()


@pytest.fixture
def adapted(load_tiny: Callable[..., VLM]) -> VLM:
    """The tiny model with LoRA on attention and MLP, both factors random; one's own copy."""
    return load_tiny(lora=True)

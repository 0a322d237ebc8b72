"""Small tokenizers built as the families' own: same algorithm, pre-tokenisation, normalisation and special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiny_vlm import WORDS
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(specials: Sequence[str], split: Sequence[Any], **options: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE (GPT-2, Qwen2, SmolLM2) after some pre-tokenisers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()  # Qwen2's; changes nothing for text in composed form
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(split))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **options)


def qwen(specials: Sequence[str], **options: Any) -> PreTrainedTokenizerFast:
    """Qwen2's: ends of turns are its end of sequence, no beginning of sequence."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *specials)
    split = [
        pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return byte_level(names, split, eos_token="<|im_end|>", pad_token="<|endoftext|>", **options)


def smol(specials: Sequence[str]) -> PreTrainedTokenizerFast:
    """SmolLM2's as SmolVLM uses it: ``<end_of_utterance>`` ends sequences, ``<|im_start|>`` begins and is not added."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>", *specials)
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return byte_level(names, split, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>")


def spaced(specials: Sequence[str], bos: str, *, prepend: bool, **options: Any) -> PreTrainedTokenizerFast:
    """Llama-2's and Gemma's: BPE over text whose spaces are ``▁``, bytes as a last resort, a first token added.

    Llama-2's also puts a space before the text (`prepend`).
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prepend else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tail: list[Any] = [decoders.Strip(" ", 1, 0)] if prepend else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *tail])
    bytes_as_tokens = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=[*specials, *bytes_as_tokens], show_progress=False, max_token_length=8
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # as theirs, no token goes across words
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, unk_token="<unk>", clean_up_tokenization_spaces=False, **options
    )

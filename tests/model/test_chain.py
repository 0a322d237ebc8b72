"""Adapters that build on others: the weights hold exactly the earlier ones, in order, or loading is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_vlm import mixed_samples, randomise_lora

from liit.errors import InputError
from liit.model.batch import collate
from liit.model.chain import CHAIN, merge_adapter, read_chain, restore_weights, write_chain
from liit.model.chat import ChatEncoder
from liit.model.lora import WEIGHTS, attach_lora, save_adapter
from liit.model.vision import Pixels
from liit.model.vlm import VLM


def logits(vlm: VLM) -> torch.Tensor:
    encoder = ChatEncoder(vlm)
    rows = [encoder.encode(sample) for sample in mixed_samples()[:3]]
    with torch.no_grad():
        return vlm.model(**collate(vlm, rows, Pixels(vlm))).logits


def saved(vlm: VLM, directory: Path, modules: str = "language-linear", seed: int = 0) -> Path:
    attach_lora(vlm, r=2, alpha=4, modules=modules)
    randomise_lora(vlm, seed)
    save_adapter(vlm, directory)
    return directory


@pytest.mark.parametrize("modules", ["language-linear", "all-but-vision"])
def test_merged_model_answers_as_with_the_adapter_and_only_its_weights_change(
    tiny: VLM, load_tiny: Callable[..., VLM], tmp_path: Path, modules: str
) -> None:
    """With all-but-vision the head changes, which shares its weight with the embedding: the embedding must not."""
    assert tiny.lm_head.weight is tiny.base.get_input_embeddings().weight
    before = {name: value.clone() for name, value in tiny.base.state_dict().items()}
    plain = tiny.checkpoint_id
    adapter = saved(tiny, tmp_path / "a", modules)
    expected = logits(tiny)
    merge_adapter(tiny, adapter)
    torch.testing.assert_close(logits(tiny), expected, rtol=1e-3, atol=1e-3)
    after = tiny.base.state_dict()
    assert set(after) == set(before)
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert len(changed) == (28 if modules == "language-linear" else 31)
    assert not [name for name in changed if "embed" in name or "vision" in name]
    assert not any(p.requires_grad for p in tiny.base.parameters())
    assert tiny.checkpoint_id != plain
    restore_weights(tiny, load_tiny())
    assert tiny.checkpoint_id == plain
    assert tiny.lm_head.weight is tiny.base.get_input_embeddings().weight
    assert all(torch.equal(value, before[name]) for name, value in tiny.base.state_dict().items())


def test_checkpoint_ids_tell_chains_apart(load_tiny: Callable[..., VLM], tmp_path: Path) -> None:
    one, other = saved(load_tiny(), tmp_path / "a", seed=1), saved(load_tiny(), tmp_path / "b", seed=2)
    ids = []
    for chain in ([], [one], [other], [one, other], [other, one], [one, one]):
        vlm = load_tiny()
        for adapter in chain:
            merge_adapter(vlm, adapter)
        attach_lora(vlm, r=2, alpha=4)
        ids.append(vlm.checkpoint_id)
    assert len(set(ids)) == len(ids)


def test_a_chain_is_read_from_wherever_the_run_was_moved_to(tiny: VLM, tmp_path: Path) -> None:
    old = tmp_path / "old"
    first, second = saved(tiny, old / "steps/1/adapter"), old / "steps/2/adapter"
    save_adapter(tiny, second)
    assert write_chain(second, [], second) == []
    assert read_chain(second) == ()
    assert write_chain(second, [first], second) == [second / CHAIN]
    assert read_chain(second) == (first,)
    old.rename(tmp_path / "new")
    assert read_chain(tmp_path / "new/steps/2/adapter") == (tmp_path / "new/steps/1/adapter",)


@pytest.mark.parametrize(
    ("how", "message"),
    [("gone", "which is not there; move the adapters"), ("other", "not those it was trained on"),
     ("garbage", "cannot be read"), ("format", "its format is 'x'"), ("no-list", "cannot be read")],
)  # fmt: skip
def test_a_chain_that_is_not_whole_is_refused(tiny: VLM, tmp_path: Path, how: str, message: str) -> None:
    first, second = saved(tiny, tmp_path / "1"), tmp_path / "2"
    save_adapter(tiny, second)
    write_chain(second, [first], second)
    document = json.loads((second / CHAIN).read_text())
    if how == "gone":
        (first / WEIGHTS).unlink()
    elif how == "other":
        randomise_lora(tiny, 5)
        save_adapter(tiny, first)
    elif how == "garbage":
        (second / CHAIN).write_text("{")
    elif how == "format":
        (second / CHAIN).write_text(json.dumps({**document, "format": "x"}))
    else:
        (second / CHAIN).write_text(json.dumps([]))
    with pytest.raises(InputError, match=message) as error:
        read_chain(second)
    assert "\n" not in str(error.value)

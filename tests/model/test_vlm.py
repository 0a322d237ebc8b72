"""Loading a model: what is found in it, and one clear line when it cannot be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from families import save_family
from safetensors.torch import load_file, save_file
from tiny_vlm import talk

from liit.errors import InputError
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.processing import load_processor
from liit.model.vision import Pixels
from liit.model.vlm import VLM, load_vlm


def test_loaded_model_is_frozen_in_evaluation_mode_and_its_parts_are_found(tiny: VLM) -> None:
    assert not any(p.requires_grad for p in tiny.model.parameters())
    assert not any(m.training for m in tiny.model.modules())
    assert tiny.layers_name == "model.language_model.layers"
    assert len(tiny.decoder_layers) == 4
    assert tiny.image_token_id == tiny.tokenizer.convert_tokens_to_ids("<|image|>")


def test_head_of_the_backbone_gives_the_models_logits(adapted: VLM) -> None:
    """Extraction runs the backbone and the head apart; nothing may lie between them."""
    batch = collate(
        adapted, [ChatEncoder(adapted).encode(talk("a", "<image>\nIt?", "no", images=[1]))], Pixels(adapted)
    )
    batch.pop("labels")
    with torch.no_grad():
        hidden = adapted.backbone(**batch)[0]
        torch.testing.assert_close(adapted.lm_head(hidden), adapted.model(**batch).logits)


def test_images_and_their_order_change_the_loss(tiny: VLM) -> None:
    encoder = ChatEncoder(tiny)
    losses = set()
    for seeds in ([1, 2], [2, 1], [1, 1], [3, 4]):
        row = encoder.encode(talk("a", "<image>\n<image>\nWhich?", "the first", images=seeds))
        with torch.no_grad():
            losses.add(round(float(tiny.model(**collate(tiny, [row], Pixels(tiny))).loss), 4))
    assert len(losses) == 4


def test_base_id_follows_the_weights(tiny_path: Path, tmp_path: Path, tiny: VLM) -> None:
    copy = shutil.copytree(tiny_path, tmp_path / "copy")
    assert load_vlm(str(copy)).base_id == tiny.base_id
    weights = load_file(copy / "model.safetensors")
    weights[next(iter(weights))].flatten()[0] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_vlm(str(copy)).base_id != tiny.base_id


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_type_of_the_weights_is_the_one_asked_for(load_tiny: Callable[..., VLM], dtype: str) -> None:
    vlm = load_tiny(dtype=dtype)
    assert {p.dtype for p in vlm.model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("path", "options", "match"),
    [
        ("/nowhere/at/all", {}, r"model\.path: cannot load '/nowhere/at/all'"),
        ("builtin:dmo", {}, r"model\.path: got 'builtin:dmo'.*builtin:demo"),
        ("builtin:demo", {"dtype": "float8"}, r"model\.dtype: got 'float8', expected one of float32"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(path: str, options: dict[str, str], match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        load_vlm(path, **options)
    assert "\n" not in str(error.value)


def damage(directory: Path, how: str) -> None:
    if how == "empty":
        shutil.rmtree(directory)
        directory.mkdir()
    elif how == "no-template":
        (directory / "chat_template.jinja").unlink()
    elif how == "weights-gone":
        (directory / "model.safetensors").unlink()
    elif how == "weights-garbage":
        (directory / "model.safetensors").write_bytes(b"garbage")
    elif how == "weight-missing":
        weights = load_file(directory / "model.safetensors")
        del weights["language_model.model.layers.1.mlp.up_proj.weight"]
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    elif how == "weight-of-another-shape":
        weights = load_file(directory / "model.safetensors")
        weights["language_model.model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 5)
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    elif how == "config-garbage":
        (directory / "config.json").write_text("{")
    elif how == "text-only-model":
        (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))


DAMAGE = [
    "empty",
    "no-template",
    "weights-gone",
    "weights-garbage",
    "weight-missing",
    "weight-of-another-shape",
    "config-garbage",
    "text-only-model",
]


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_model_directory_is_said_in_one_line(tiny_path: Path, tmp_path: Path, how: str) -> None:
    copy = shutil.copytree(tiny_path, tmp_path / "copy")
    damage(copy, how)
    with pytest.raises(InputError, match=r"model\.path") as error:
        load_vlm(str(copy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("family", "gone"),
    [
        ("qwen2.5-vl", "preprocessor_config.json"),
        ("qwen2.5-vl", "tokenizer.json"),
        ("smolvlm", "chat_template.jinja"),
        ("smolvlm", "config.json"),
    ],
)
def test_family_that_lacks_a_file_is_said_in_one_line(tmp_path: Path, family: str, gone: str) -> None:
    path = save_family(family, tmp_path)
    (path / gone).unlink()
    with pytest.raises(InputError, match=r"model\.path") as error:
        load_vlm(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="needs an environment without torchvision")
def test_processor_that_cannot_do_without_torchvision_says_so(tmp_path: Path) -> None:
    """Pixtral's, which Mistral 3 uses, is the one current class that even imports it."""
    from transformers import Mistral3Config

    with pytest.raises(ImportError, match="Torchvision"):
        load_processor(str(tmp_path), Mistral3Config(), {})


def test_processor_without_video_keeps_its_settings_and_can_be_saved(tmp_path: Path) -> None:
    vlm = load_vlm(str(save_family("smolvlm", tmp_path / "a")))
    assert vlm.processor.image_seq_len == 4
    vlm.model.save_pretrained(tmp_path / "b")
    vlm.processor.save_pretrained(tmp_path / "b")
    again = load_vlm(str(tmp_path / "b"))
    sample = talk("a", "<image>\nWhat is it?", "A cat.", images=[1])
    first, second = ChatEncoder(vlm), ChatEncoder(again)
    assert first.encode(sample).input_ids.tolist() == second.encode(sample).input_ids.tolist()
    assert again.processor.image_seq_len == 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_model_that_does_not_fit_on_its_card_is_one_line(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full(self: torch.nn.Module, *_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(InputError, match=r"model.path: the 0\.0 GB of .* do not fit on cpu; expected a card with more"):
        load_vlm(str(tiny_path), device="cpu")

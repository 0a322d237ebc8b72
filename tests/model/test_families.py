"""One matrix: every family, from files as it publishes them to losses, gradients, kept features and answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, Family, save_family
from test_answer_mask import ANSWERS, answers
from tiny_vlm import mixed_samples, picture, randomise_lora, talk

from liit.config import FeatureSettings, TrainingSettings
from liit.data.sample import ImageRef, Message, Sample
from liit.errors import InputError
from liit.evaluation.generate import generate_answers
from liit.features.extraction import Extractor, Twin
from liit.features.sketch import SignedFold
from liit.model.batch import collate
from liit.model.chat import ChatEncoder, Encoded, RowRefusedError, without_images
from liit.model.image_tokens import ImageTokens
from liit.model.lora import attach_lora, lora_parameters, target_modules
from liit.model.pixels import BlankPixels, Pixels
from liit.model.vision import VisionCache
from liit.model.vlm import VLM, load_vlm
from liit.training import fit

SIZES = [(24, 16), (90, 30), (30, 90), (64, 64), (120, 11), (7, 5)]
TOLERANCE = 1e-4


def resized(sample: Sample, first: int) -> Sample:
    """The same conversation with pictures of other sizes, so that families with tiles and grids show theirs."""
    pictures = tuple(picture(first + i, SIZES[(first + i) % len(SIZES)]) for i in range(len(sample.images)))
    return Sample(sample.id, sample.messages, pictures)


SAMPLES = [resized(sample, 2 * i) for i, sample in enumerate(mixed_samples())]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("families")


def _marked(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow) if name == "idefics3" else name  # SmolVLM's code is a copy of it


@pytest.fixture(scope="module", params=map(_marked, FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture(scope="module")
def load(name: str, root: Path) -> Callable[..., VLM]:
    path = save_family(name, root / name)

    def load(*, lora: bool = False, modules: str = "language-linear", **options: Any) -> VLM:
        vlm = load_vlm(str(path), **options)
        if lora:
            attach_lora(vlm, r=2, alpha=4, modules=modules)
            randomise_lora(vlm)
        return vlm

    return load


@pytest.fixture(scope="module")
def vlm(load: Callable[..., VLM]) -> VLM:
    """Read only."""
    return load()


@pytest.fixture(scope="module")
def adapted(load: Callable[..., VLM]) -> VLM:
    """With both factors of LoRA random; read only."""
    return load(lora=True)


@pytest.fixture(scope="module")
def encoder(vlm: VLM) -> ChatEncoder:
    return ChatEncoder(vlm)


@pytest.fixture(scope="module")
def rows(encoder: ChatEncoder) -> list[Encoded]:
    return [encoder.encode(sample) for sample in SAMPLES]


def said(family: Family, text: str) -> str:
    """An answer as the family's template writes it."""
    if family.processor == "Gemma3Processor":
        text = text.strip()
    return family.lead + text + family.end


@torch.no_grad()
def run(vlm: VLM, rows: Sequence[Encoded], vision: Any, side: str = "right") -> tuple[np.ndarray, list[np.ndarray]]:
    """Losses (N,) and last hidden states of real tokens, row by row."""
    batch = collate(vlm, rows, vision, side=side)
    labels = batch.pop("labels")
    hidden = vlm.backbone(**batch, use_cache=False)[0]
    nll = torch.nn.functional.cross_entropy(
        vlm.lm_head(hidden)[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
    )
    losses = (nll.sum(1) / (labels[:, 1:] != -100).sum(1)).numpy()
    return losses, [h[m.bool()].float().numpy() for h, m in zip(hidden, batch["attention_mask"], strict=True)]


def test_loads_as_published_and_its_parts_are_found(family: Family, vlm: VLM) -> None:
    assert type(vlm.processor).__name__ == family.processor
    assert not any(p.requires_grad for p in vlm.model.parameters())
    assert len(vlm.decoder_layers) == vlm.text_config.num_hidden_layers == 3
    assert vlm.layers_name in ("model.language_model.layers", "model.text_model.layers")
    assert vlm.lm_head.weight.shape == (vlm.text_config.vocab_size, vlm.text_config.hidden_size)
    assert vlm.tokenizer.convert_tokens_to_ids(family.end) in ChatEncoder(vlm).stop_ids


def test_head_on_the_backbone_gives_the_models_logits(vlm: VLM, rows: list[Encoded]) -> None:
    batch = collate(vlm, rows[:3], Pixels(vlm))
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(vlm.lm_head(vlm.backbone(**batch)[0]), vlm.model(**batch).logits)


def test_every_answer_of_every_shape_of_row_is_masked(
    family: Family, encoder: ChatEncoder, rows: list[Encoded]
) -> None:
    for sample, row in zip(SAMPLES, rows, strict=True):
        expected = [said(family, m.text) for m in sample.messages if m.role == "assistant"]
        assert_says(family, answers(encoder, row), expected)


def test_masked_tokens_say_the_answer_and_the_end_marker(family: Family, encoder: ChatEncoder) -> None:
    for answer in ANSWERS.values():
        row = encoder.encode(talk("a", "<image>\nWhat?", answer, "And?", answer, images=[1]))
        assert_says(family, answers(encoder, row), [said(family, answer)] * 2)


def assert_says(family: Family, got: list[str], expected: list[str]) -> None:
    if family.processor == "LlavaProcessor":  # its decoder drops the first space
        expected = [text.removeprefix(" ") for text in expected]
    compose = partial(unicodedata.normalize, "NFC")  # as Qwen's tokenizer does
    assert list(map(compose, got)) == list(map(compose, expected))


def processor_inputs(vlm: VLM, messages: Sequence[Message], images: Sequence[ImageRef]) -> dict[str, torch.Tensor]:
    """A prompt's way through the family's own processor."""
    pictures = iter(images)
    turns = []
    for message in messages:
        content: list[dict[str, Any]] = []
        for piece in re.split(r"\n?(<image>)\n?", message.text):
            if piece == "<image>":
                content.append({"type": "image", "image": next(pictures).open()})
            elif piece:
                content.append({"type": "text", "text": piece})
        turns.append({"role": message.role, "content": content})
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return dict(vlm.processor.apply_chat_template(turns, **options))


def test_prompt_and_logits_are_those_of_the_families_own_processor(vlm: VLM, encoder: ChatEncoder) -> None:
    for sample in SAMPLES:
        if len(sample.messages) > 2:  # liit ends and begins earlier answers as they were trained
            continue
        prompt = encoder.encode_prompt(sample)
        own = processor_inputs(vlm, sample.messages[:-1], sample.images)
        np.testing.assert_array_equal(prompt.input_ids, own["input_ids"][0].numpy(), err_msg=sample.id)
        batch = collate(vlm, [prompt], Pixels(vlm))
        batch.pop("labels")
        with torch.no_grad():
            torch.testing.assert_close(vlm.model(**batch).logits, vlm.model(**own).logits)


def test_prompt_is_the_row_up_to_its_last_answer(encoder: ChatEncoder, rows: list[Encoded]) -> None:
    for sample, row in zip(SAMPLES, rows, strict=True):
        prompt = encoder.encode_prompt(sample)
        np.testing.assert_array_equal(prompt.input_ids, row.input_ids[: len(prompt)], err_msg=sample.id)
        starts = np.flatnonzero(np.diff(row.answer_mask.astype(int)) == 1) + 1
        assert len(prompt) == starts[-1]


def test_placeholders_are_as_many_as_vision_features(vlm: VLM, encoder: ChatEncoder) -> None:
    counts = set()
    for size in SIZES:
        for several in (1, 3):
            pictures = tuple(picture(seed, size) for seed in range(several))
            row = encoder.encode(
                Sample("a", (Message("user", "<image>" * several), Message("assistant", "x")), pictures)
            )
            inputs = Pixels(vlm).inputs(row.images, [several])
            wanted = {n: v for n, v in inputs.items() if n in ("pixel_values", "image_grid_thw", "image_sizes")}
            if "batch_num_images" in inputs:
                wanted["batch_num_images"] = inputs["batch_num_images"]
            with torch.no_grad():
                features = vlm.backbone.get_image_features(**wanted, return_dict=True).pooler_output
            flat = sum(f.numel() for f in features) // vlm.text_config.hidden_size
            assert (row.input_ids == vlm.image_token_id).sum() == flat
            counts.add(flat // several)
    assert len(counts) > 1 or not dynamic(vlm)


def dynamic(vlm: VLM) -> bool:
    return vlm.base.config.model_type not in ("llava", "gemma3")


def test_row_that_does_not_fit_is_refused_by_id_not_cut(load: Callable[..., VLM], rows: list[Encoded]) -> None:
    longest = max(range(len(rows)), key=lambda i: len(rows[i].images) and len(rows[i]))
    length = len(rows[longest])
    assert len(ChatEncoder(load(max_length=length)).encode(SAMPLES[longest])) == length
    match = rf"'{SAMPLES[longest].id}' takes {length} tokens, \d+ of them for images.* max_length is {length - 1}"
    with pytest.raises(RowRefusedError, match=match):
        ChatEncoder(load(max_length=length - 1)).encode(SAMPLES[longest])


def test_image_tokens_in_the_text_are_refused(vlm: VLM, encoder: ChatEncoder) -> None:
    words = {vlm.processor.image_token, encoder.image_tokens.placeholder} - {"<image>"}  # liit's own tag is not text
    for word in words:
        for images in ((), (1,)):
            with pytest.raises(RowRefusedError, match="'hostile'"):
                encoder.encode(talk("hostile", "<image>\n" * len(images) + f"Is {word} a word?", "no", images=images))
    if hasattr(vlm.processor, "video_token_id"):
        with pytest.raises(RowRefusedError, match="'hostile'"):
            encoder.encode(talk("hostile", f"Is {vlm.processor.video_token} a word?", "no"))


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (1, 1000)], ids=str)
def test_image_of_any_shape_is_taken_whole_or_refused_by_id(
    vlm: VLM, encoder: ChatEncoder, size: tuple[int, int]
) -> None:
    messages = (Message("user", "<image>\nWhat?"), Message("assistant", "no"))
    sample = Sample("thin", messages, (picture(1, size),))
    if size == (1, 1000) and "qwen" in vlm.base.config.model_type:
        with pytest.raises(RowRefusedError, match=r"sample 'thin': the processor of .* refuses image '1.png'"):
            encoder.encode(sample)
        return
    assert np.isfinite(run(vlm, [encoder.encode(sample)], Pixels(vlm))[0]).all()


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_gives_the_same_in_any_batch(vlm: VLM, rows: list[Encoded], side: str) -> None:
    """Text-only rows beside image rows, several images a row, all sizes; positions under either padding."""
    losses, hidden = run(vlm, rows, Pixels(vlm), side)
    for i, row in enumerate(rows):
        loss, alone = run(vlm, [row], Pixels(vlm))
        np.testing.assert_allclose(losses[i], loss[0], rtol=TOLERANCE, err_msg=row.id)
        np.testing.assert_allclose(hidden[i], alone[0], atol=TOLERANCE * np.abs(alone[0]).max(), err_msg=row.id)


def test_images_and_their_order_change_the_loss(vlm: VLM, encoder: ChatEncoder) -> None:
    losses = set()
    for seeds in ([1, 2], [2, 1], [1, 1], [3, 4]):
        row = encoder.encode(talk("a", "<image>\n<image>\nWhich?", "the first", images=seeds))
        losses.add(round(float(run(vlm, [row], Pixels(vlm))[0][0]), 4))
    assert len(losses) == 4


def test_no_image_twin_has_no_trace_of_the_image(family: Family, vlm: VLM, encoder: ChatEncoder) -> None:
    traces = [vlm.image_token_id, *vlm.tokenizer.convert_tokens_to_ids(list(family.wrapping))]
    for sample in SAMPLES:
        blind = encoder.encode(sample, images=False)
        assert blind.images == ()
        assert not np.isin(blind.input_ids, traces).any()
        words = Sample("words", without_images(sample.messages))
        np.testing.assert_array_equal(blind.input_ids, encoder.encode(words).input_ids)
        assert answers(encoder, blind) == answers(encoder, encoder.encode(sample))


def test_blank_images_have_the_places_of_real_ones_and_no_content(vlm: VLM, rows: list[Encoded]) -> None:
    seeing = [row for row in rows if row.images]
    real, _ = run(vlm, seeing, Pixels(vlm))
    blank, _ = run(vlm, seeing, BlankPixels(vlm))
    assert np.isfinite(blank).all()
    assert (np.abs(blank - real) > TOLERANCE).all()
    others = [replace(row, images=tuple(recoloured(image) for image in row.images)) for row in seeing]
    np.testing.assert_allclose(run(vlm, others, BlankPixels(vlm))[0], blank, rtol=TOLERANCE)
    pixels = BlankPixels(vlm).inputs(seeing[0].images)["pixel_values"]
    assert pixels.abs().max() < 1e-37


def recoloured(image: ImageRef) -> ImageRef:
    """Another picture of the same size."""
    return picture(int(image.path.removesuffix(".png")) + 100, image.open().size)


def test_adapter_goes_into_the_language_layers(vlm: VLM) -> None:
    names = target_modules(vlm, "language-linear")
    assert len(names) == 7 * 3
    assert all(name.startswith(f"{vlm.layers_name}.") for name in names)
    more = set(target_modules(vlm, "language-and-projector-linear")) - set(names)
    assert not any(re.search(r"layers|blocks", name) for name in more)
    assert bool(more) == (vlm.base.config.model_type != "gemma3")  # its projector is a bare matrix
    assert set(target_modules(vlm, "all-but-vision")) - set(names) - more == {"lm_head"}


def own_gradient(vlm: VLM, row: Encoded, layers: Sequence[int]) -> np.ndarray:
    """By autograd, of the model's own loss of one row."""
    parameters = list(lora_parameters(vlm, layers).values())
    loss = vlm.model(**collate(vlm, [row], Pixels(vlm))).loss
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double().numpy()


def relative_errors(vlm: VLM, rows: Sequence[Encoded], exact: Sequence[np.ndarray], batch_tokens: int) -> np.ndarray:
    """Of the extractor's gradients, row by row; the sketch is longer than the gradient, so it only permutes."""
    length = len(exact[0])
    settings = FeatureSettings(layers=(1,), dim=length, dtype="float32", batch_tokens=batch_tokens)
    out = Extractor(vlm, ["gradient", "grad_norm"], settings, seed=3)([Twin(row, None) for row in rows])
    expected = SignedFold(length, length, 3)([torch.from_numpy(np.stack(exact))]).numpy()
    sizes = np.linalg.norm(expected, axis=1)
    assert (sizes > 0).all()
    np.testing.assert_allclose(out["grad_norm"], sizes, rtol=0.05)
    return np.linalg.norm(out["gradient"] - expected, axis=1) / sizes


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_gradients_of_a_batch_equal_autograd_row_by_row(adapted: VLM, rows: list[Encoded], checkpointing: bool) -> None:
    if checkpointing:
        adapted.model.train()
        adapted.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        exact = [own_gradient(adapted, row, [1]) for row in rows]
        for batch_tokens in (200, 4000):
            assert relative_errors(adapted, rows, exact, batch_tokens).max() < TOLERANCE
    finally:
        adapted.base.gradient_checkpointing_disable()
        adapted.model.eval()


def test_gradients_in_bfloat16_are_those_of_bfloat16_autograd(load: Callable[..., VLM], rows: list[Encoded]) -> None:
    """Both round; together they stay within 8 % of each gradient's length, and of single precision's within 15 %."""
    half, single = load(lora=True, dtype="bfloat16"), load(lora=True)
    for target, source in zip(half.model.parameters(), single.model.parameters(), strict=True):
        source.data.copy_(target.data.float())
    for vlm, limit in ((half, 0.08), (single, 0.15)):
        assert relative_errors(half, rows, [own_gradient(vlm, row, [1]) for row in rows], 4000).max() < limit


def test_all_features_of_mixed_rows_are_there(adapted: VLM, encoder: ChatEncoder) -> None:
    """The whole engine runs on every family: blind by dropping and by zeros, hidden states, scalars."""
    names = ["log_perplexity", "blind_log_perplexity", "image_grounding", "el2n", "entropy", "grad_norm",
             "embedding", "last_hidden_weighted", "instructed_vision", "n_answer_tokens"]  # fmt: skip
    twins = [Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None) for s in SAMPLES]
    for blind in ("drop", "zeros"):
        large = Extractor(adapted, names, FeatureSettings(blind=blind, batch_tokens=4000, dtype="float32"))(twins)
        small = Extractor(adapted, names, FeatureSettings(blind=blind, batch_tokens=1, dtype="float32"))(twins)
        for column in names:
            scale = np.nanmax(np.abs(small[column]))
            np.testing.assert_allclose(large[column], small[column], rtol=TOLERANCE, atol=TOLERANCE * scale)
        seeing = np.array([bool(sample.images) for sample in SAMPLES])
        assert np.isfinite(large["blind_log_perplexity"]).tolist() == seeing.tolist()
        assert (np.abs(large["image_grounding"][seeing] - 1) > 1e-5).all()


def test_kept_features_stand_for_pixels_and_are_computed_once(
    vlm: VLM, encoder: ChatEncoder, rows: list[Encoded], tmp_path: Path
) -> None:
    seen = rows[2].images[0]  # here beside another image, then alone
    alone = Sample("alone", (Message("user", "<image>\nWhat is it?"), Message("assistant", "A cat.")), (seen,))
    rows = [*rows, encoder.encode(alone)]
    pixels, _ = run(vlm, rows, Pixels(vlm))
    cache = VisionCache(vlm, tmp_path)
    for side in ("right", "left"):
        np.testing.assert_allclose(run(vlm, rows, cache, side)[0], pixels, rtol=2e-3)
    tokens = ImageTokens(vlm)
    kinds = {(i.sha256, tokens.together(len(row.images))) for row in rows for i in row.images}
    assert cache.computed == len(cache) == len(kinds)
    again = VisionCache(vlm, tmp_path)  # another process, later
    assert again.fill_rows([row.images for row in rows]) == 0
    first, second = run(vlm, rows[:3], cache), run(vlm, rows[:3], again)
    np.testing.assert_array_equal(first[0], second[0])
    assert again.computed == 0
    assert not np.array_equal(run(vlm, rows, cache)[0], pixels)  # rounded to float16: the cache was used


def test_kept_features_of_a_bfloat16_model_are_exact(load: Callable[..., VLM], tmp_path: Path) -> None:
    vlm = load(dtype="bfloat16")
    row = ChatEncoder(vlm).encode(SAMPLES[0])
    kept, pixels = run(vlm, [row], VisionCache(vlm, tmp_path))[0], run(vlm, [row], Pixels(vlm))[0]
    np.testing.assert_allclose(kept, pixels, rtol=1e-6)


def test_a_trained_vision_path_gets_pixels(load: Callable[..., VLM], rows: list[Encoded], tmp_path: Path) -> None:
    vlm = load()
    cache = VisionCache(vlm, tmp_path)
    assert cache.frozen
    attach_lora(vlm, r=2, alpha=2)
    assert cache.frozen  # the language model's adapter changes nothing in it
    vision = [p for n, p in vlm.base.named_parameters() if re.search(r"vision|visual", n)]
    vision[0].requires_grad_(True)
    assert not cache.frozen
    assert cache.fill_rows([row.images for row in rows]) == 0
    real = run(vlm, rows, Pixels(vlm))[0]
    np.testing.assert_array_equal(run(vlm, rows, cache)[0], real)


@pytest.fixture
def settings() -> TrainingSettings:
    return TrainingSettings(batch_size=4, learning_rate=2e-2, epochs=20, schedule="constant", warmup_ratio=0.0)


def test_training_on_kept_features_is_training_on_pixels(
    load: Callable[..., VLM], rows: list[Encoded], tmp_path: Path, settings: TrainingSettings
) -> None:
    reports = []
    for make in (Pixels, lambda vlm: VisionCache(vlm, tmp_path)):
        vlm = load(lora=True)
        before = {n: p.clone() for n, p in lora_parameters(vlm).items()}
        reports.append(fit(vlm, rows, settings.model_copy(update={"epochs": 1}), vision=make(vlm), seed=0))
        assert all(not torch.equal(p, before[n]) for n, p in lora_parameters(vlm).items())
    assert reports[0].loss_first == pytest.approx(reports[1].loss_first, rel=2e-3)


def test_a_trained_model_says_its_answers_and_stops(
    family: Family, load: Callable[..., VLM], tmp_path: Path, settings: TrainingSettings
) -> None:
    """Learnt from its rows: the first word, the whole answer, and the end, told apart by the image alone."""
    vlm = load()
    attach_lora(vlm, r=8, alpha=16)
    encoder = ChatEncoder(vlm)
    wanted = ["A cat.", "A red box", "4", "yes"]
    asked = [
        talk("a", "<image>\nWhat is it?", wanted[0], images=[1]),
        talk("b", "<image>\nWhat is it?", wanted[1], images=[2]),
        talk("c", "How many?", wanted[2]),
        talk("d", "<image>\nWhat is it?", wanted[0], "Is it a cat?", wanted[3], images=[1]),
    ]
    fit(vlm, [encoder.encode(s) for s in asked], settings, vision=VisionCache(vlm, tmp_path), seed=0)
    for vision, size in ((Pixels(vlm), 4), (Pixels(vlm), 1), (VisionCache(vlm, tmp_path), 3)):
        assert generate_answers(vlm, asked, vision=vision, batch_size=size, max_new_tokens=12) == wanted
    prompt = collate(vlm, [encoder.encode_prompt(asked[0])], Pixels(vlm))
    prompt.pop("labels")
    out = vlm.model.generate(**prompt, max_new_tokens=12, do_sample=False, eos_token_id=encoder.stop_ids)
    assert int(out[0, -1]) == vlm.tokenizer.convert_tokens_to_ids(family.end)


def test_image_options_change_the_number_of_tokens(load: Callable[..., VLM]) -> None:
    vlm = load()
    option = {
        "llava_onevision": {"image_grid_pinpoints": [[28, 28]]},
        "qwen2_5_vl": {"max_pixels": 28 * 28 * 3},
        "qwen3_vl": {"max_pixels": 32 * 32 * 3},
        "smolvlm": {"do_image_splitting": False},
        "idefics3": {"size": {"longest_edge": 28}},
        "internvl": {"max_patches": 2},
    }.get(vlm.base.config.model_type)
    sample = Sample("a", talk("a", "<image>\nWhat?", "no", images=[1]).messages, (picture(1, (64, 60)),))
    if option is not None:
        small = ChatEncoder(load(image_options=option))
        assert len(small.encode(sample)) < len(ChatEncoder(vlm).encode(sample))
        assert small.template_id != ChatEncoder(vlm).template_id
    with pytest.raises(InputError, match=r"model\.image_options: .* has no setting 'max_pixel'"):
        load(image_options={"max_pixel": 3})


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)

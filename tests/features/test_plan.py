"""Fewer features run fewer passes, less deep: counted in calls of decoder layers, predicted by the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from tiny_vlm import mixed_samples, talk

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features import FEATURES, plan_passes
from liit.features.engine import Extractor, Twin
from liit.model.chat import ChatEncoder
from liit.model.lora import attach_lora
from liit.model.vlm import VLM

LAYERS = 4
WHOLE_BATCH = FeatureSettings(dim=8, batch_tokens=10**6)


def twins(vlm: VLM, count: int = 9) -> list[Twin]:
    encoder = ChatEncoder(vlm)
    return [
        Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None)
        for s in mixed_samples()[:count]
        if s.id != "long"
    ]


@contextmanager
def layer_calls(vlm: VLM) -> Iterator[list[tuple[int, bool]]]:
    """The number of each layer that runs, and whether autograd follows it."""
    calls: list[tuple[int, bool]] = []
    handles = [
        layer.register_forward_hook(lambda _m, _i, out, n=number: calls.append((n, out.requires_grad)))
        for number, layer in enumerate(vlm.decoder_layers)
    ]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("names", "settings", "with_images", "followed", "blind"),
    [
        (["n_tokens", "n_answer_tokens"], {}, [], [], []),
        (["instructed_vision"], {}, [0], [], []),
        (["embedding"], {"embedding_layer": 1}, [0, 1], [], []),
        (["embedding", "instructed_vision"], {"embedding_layer": (2, 0)}, [0, 1, 2], [], []),
        (["log_perplexity", "el2n", "entropy", "embedding"], {}, [0, 1, 2, 3], [], []),
        (["last_hidden_weighted"], {}, [0, 1, 2, 3], [], []),
        (["blind_log_perplexity"], {}, [], [], [0, 1, 2, 3]),
        (["blind_log_perplexity", "embedding"], {"embedding_layer": 0}, [0], [], [0, 1, 2, 3]),
        (["image_grounding"], {}, [0, 1, 2, 3], [], [0, 1, 2, 3]),
        (["gradient"], {}, [0, 1, 2, 3], [2, 3], []),
        (["grad_norm"], {"layers": -1}, [0, 1, 2, 3], [3], []),
        (["gradient"], {"layers": "all"}, [0, 1, 2, 3], [0, 1, 2, 3], []),
        (FEATURES, {"layers": (1, 3)}, [0, 1, 2, 3], [1, 2, 3], [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_layers_run_and_are_followed_no_more_than_the_features_need(
    adapted: VLM,
    names: Sequence[str],
    settings: dict[str, object],
    with_images: list[int],
    followed: list[int],
    blind: list[int],
) -> None:
    wanted = WHOLE_BATCH.model_copy(update=settings)
    plan = plan_passes(names, wanted, LAYERS)
    assert plan.forward_layers == len(with_images)
    assert plan.blind_layers == len(blind)
    assert plan.backward_layers == len(followed)
    assert plan.forwards == bool(with_images) + bool(blind)
    extractor = Extractor(adapted, names, wanted)
    rows = twins(adapted)
    with layer_calls(adapted) as calls:
        extractor(rows)
    assert calls == [(n, False) for n in blind] + [(n, n in followed) for n in with_images]
    report = extractor.report
    assert report.model_calls == plan.forwards
    assert report.layer_calls == len(calls)
    assert report.backward_calls == bool(followed)


def test_no_graph_and_no_backward_without_gradients(adapted: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("a backward pass"))
    names = [name for name in FEATURES if name not in ("gradient", "grad_norm")]
    for parameter in adapted.model.parameters():
        parameter.requires_grad_(True)
    extractor = Extractor(adapted, names, WHOLE_BATCH)
    with layer_calls(adapted) as calls:
        extractor(twins(adapted))
    assert not any(requires_grad for _, requires_grad in calls)


def test_features_without_gradients_need_no_adapter(tiny: VLM) -> None:
    out = Extractor(tiny, [n for n in FEATURES if n not in ("gradient", "grad_norm")], WHOLE_BATCH)(twins(tiny))
    assert len(out) == len(FEATURES) - 2
    with pytest.raises(InputError, match="attach an adapter"):
        Extractor(tiny, ["gradient"], WHOLE_BATCH)


def test_last_layer_runs_at_answer_positions_only_unless_all_its_states_are_wanted(adapted: VLM) -> None:
    rows = twins(adapted)
    most = max(twin.row.n_answer_tokens for twin in rows)
    longest = max(len(twin.row) for twin in rows)
    assert most < longest / 2
    widths: list[int] = []
    adapted.decoder_layers[-1].mlp.register_forward_hook(lambda _m, _i, out: widths.append(out.shape[1]))
    for names, settings, width in (
        (["log_perplexity", "gradient"], {}, most),
        (["log_perplexity", "last_hidden_weighted"], {}, longest),
        (["log_perplexity", "embedding"], {"embedding_layer": -1}, longest),
    ):
        extractor = Extractor(adapted, names, WHOLE_BATCH.model_copy(update=settings))
        widths.clear()
        extractor(rows)
        assert widths == [width], names
        assert not extractor.report.notes


def test_rows_that_are_the_same_without_their_images_share_the_no_image_pass(adapted: VLM) -> None:
    encoder = ChatEncoder(adapted)
    samples = [talk(f"a{i}", "<image>\nWhat is it?", "A cat.", images=[i]) for i in range(5)]
    samples += [talk("b", "<image>\nWhat is it?", "A dog.", images=[1]), talk("t", "What is it?", "A cat.")]
    rows = [Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None) for s in samples]
    settings = WHOLE_BATCH.model_copy(update={"share_beginnings": False})
    extractor = Extractor(adapted, ["blind_log_perplexity", "log_perplexity"], settings)
    out = extractor(rows)
    assert (extractor.report.blind_rows, extractor.report.shared_blind_rows) == (6, 4)
    assert extractor.report.blind_tokens == len(rows[0].blind) + len(rows[5].blind)  # type: ignore[arg-type]
    alone = [Extractor(adapted, ["blind_log_perplexity"], WHOLE_BATCH)([row])["blind_log_perplexity"] for row in rows]
    torch.testing.assert_close(
        torch.from_numpy(out["blind_log_perplexity"]), torch.tensor([float(a[0]) for a in alone]), equal_nan=True
    )
    assert out["blind_log_perplexity"][0] == out["blind_log_perplexity"][4] != out["blind_log_perplexity"][5]


def test_gradient_graph_is_no_larger_when_inputs_are_made_to_need_gradients(load_tiny: Callable[..., VLM]) -> None:
    """peft's `enable_input_require_grads` would otherwise have autograd follow every layer."""
    vlm = load_tiny()
    attach_lora(vlm, r=2, alpha=4)
    vlm.model.enable_input_require_grads()
    extractor = Extractor(vlm, ["gradient"], WHOLE_BATCH)
    received: list[bool] = []
    vlm.decoder_layers[2].register_forward_hook(lambda _m, inputs, _o: received.append(inputs[0].is_leaf))
    extractor(twins(vlm))
    assert received == [True]


def test_layers_that_do_not_exist_or_come_twice_are_refused() -> None:
    for settings, words in (
        ({"embedding_layer": 4}, "features.embedding_layer: got 4"),
        ({"embedding_layer": (1, -3)}, "names a layer twice"),
        ({"layers": (0, 9)}, "features.layers: got 9"),
    ):
        with pytest.raises(InputError, match=words):
            plan_passes(FEATURES, FeatureSettings(**settings), LAYERS)
    with pytest.raises(InputError, match="expected a list of names"):
        plan_passes("el2n", FeatureSettings(), LAYERS)
    with pytest.raises(InputError, match="expected a list of names"):
        plan_passes([], FeatureSettings(), LAYERS)

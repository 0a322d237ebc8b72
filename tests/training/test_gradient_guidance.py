"""DGG: what is added is the displacement, no longer than the gradient, as often as alpha says, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vlm import talk
from torch import Tensor, nn
from toy import Rows, context, give, move, parameters, slopes, update

from liit.config import TrainingSettings
from liit.errors import InputError
from liit.model.chat import ChatEncoder
from liit.model.lora import attach_lora, save_adapter
from liit.model.vision import Pixels
from liit.model.vlm import VLM
from liit.training import Place, fit
from liit.training.hooks import TaskContext, TrainingHook, make_hook

ALWAYS: dict[str, Any] = {"inject": "always"}


def guided(
    trained: dict[str, nn.Parameter], *, moved: float = 1.0, adapter: str = "continue", **options: Any
) -> TrainingHook:
    """A hook at its second step, after the parameters have moved away from where the first ended."""
    hook = make_hook("gradient-guidance", options)
    hook.task_start(context(trained, 1, first=True, adapter=adapter))
    hook.task_end(context(trained, 1, first=True, adapter=adapter))
    hook.task_start(context(trained, 2, adapter=adapter))
    if moved:
        move(trained, moved)
    return hook


def added(trained: dict[str, nn.Parameter], before: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.grad - before[name] for name, parameter in trained.items()}


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors.values()])


@pytest.mark.parametrize("moved", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_what_is_added_points_along_the_displacement_and_is_never_longer_than_the_gradient(
    scope: str, moved: float
) -> None:
    trained = parameters()
    start = {name: parameter.detach().clone() for name, parameter in trained.items()}
    hook = guided(trained, moved=moved, norm_scope=scope, **ALWAYS)
    before = give(trained)
    hook.gradients_ready(update(trained))
    extra = added(trained, before)
    delta = {name: parameter.detach() - start[name] for name, parameter in trained.items()}
    whole = ([extra], [delta], [before]) if scope == "global" else None
    parts = [(flat(e), flat(d), flat(g)) for (e,), (d,), (g,) in [whole]] if whole else [
        (extra[name].flatten(), delta[name].flatten(), before[name].flatten()) for name in trained
    ]  # fmt: skip
    for surrogate, displacement, gradient in parts:
        assert float(torch.cosine_similarity(surrogate, displacement, 0)) == pytest.approx(1, abs=1e-4)
        expected = min(float(displacement.norm()), float(gradient.norm()))
        assert float(surrogate.norm()) == pytest.approx(expected, rel=1e-4)
        assert float(surrogate.norm()) <= float(gradient.norm()) * (1 + 1e-4)


def test_without_scaling_the_displacement_itself_is_added() -> None:
    trained = parameters()
    start = {name: parameter.detach().clone() for name, parameter in trained.items()}
    hook = guided(trained, moved=100.0, scaling=False, **ALWAYS)
    before = give(trained)
    hook.gradients_ready(update(trained))
    for name, extra in added(trained, before).items():
        torch.testing.assert_close(extra, trained[name].detach() - start[name])


def test_nothing_is_added_before_the_first_update_of_a_step_nor_at_the_first_step() -> None:
    trained = parameters()
    still = guided(trained, moved=0.0, **ALWAYS)
    before = give(trained)
    still.gradients_ready(update(trained))
    assert all(torch.equal(parameter.grad, before[name]) for name, parameter in trained.items())
    first = make_hook("gradient-guidance", ALWAYS)
    first.task_start(context(trained, 1, first=True))
    move(trained)
    first.gradients_ready(update(trained))
    assert all(torch.equal(parameter.grad, before[name]) for name, parameter in trained.items())
    assert first.facts() == {"updates": 0, "injections": 0, "mean_norm_ratio": None}


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_without_a_data_gradient_parameters_do_not_move(scope: str) -> None:
    trained = parameters()
    hook = guided(trained, norm_scope=scope, **ALWAYS)
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1, weight_decay=0.0)
    start = flat(trained).clone()
    for number in range(3):
        give(trained, 0.0)
        hook.gradients_ready(update(trained, number))
        optimizer.step()
    assert torch.equal(flat(trained), start)


def test_a_step_against_what_is_added_leads_back() -> None:
    trained = parameters()
    start = flat(trained).clone()
    hook = guided(trained, scaling=False, **ALWAYS)
    far = float((flat(trained) - start).norm())
    give(trained, 0.0)
    hook.gradients_ready(update(trained))
    torch.optim.SGD(trained.values(), lr=0.5).step()
    assert float((flat(trained) - start).norm()) == pytest.approx(far / 2, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.7])
def test_injections_come_at_rate_alpha(alpha: float) -> None:
    trained, draws = parameters(), 2000
    hook = guided(trained, alpha=alpha)
    for number in range(draws):
        give(trained)
        hook.gradients_ready(update(trained, number))
    facts = hook.facts()
    assert facts["updates"] == draws
    assert abs(facts["injections"] / draws - alpha) < 4 * (alpha * (1 - alpha) / draws) ** 0.5


def injected(hook: TrainingHook, trained: dict[str, nn.Parameter], updates: int = 60) -> list[dict[str, bool]]:
    found = []
    for number in range(updates):
        before = give(trained, seed=number)
        hook.gradients_ready(update(trained, number))
        found.append({name: bool(extra.any()) for name, extra in added(trained, before).items()})
    return found


def test_every_process_draws_the_same_whatever_its_rows_and_generators() -> None:
    """The draw is a function of the seed and the number of the update, so it also survives a resumed training."""
    one, other = parameters(), parameters(9)
    first = injected(guided(one, alpha=0.5), one)
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    second = injected(guided(other, alpha=0.5), other)
    assert first == second
    assert all(len(set(drawn.values())) == 1 for drawn in first)  # all tensors together
    assert {drawn["a"] for drawn in first} == {True, False}


def test_tensors_can_draw_by_themselves() -> None:
    trained = parameters()
    drawn = injected(guided(trained, alpha=0.5, draw="tensor"), trained)
    assert any(len(set(each.values())) == 2 for each in drawn)
    assert drawn == injected(guided(trained, alpha=0.5, draw="tensor"), trained)


def test_only_matching_parameters_are_guided() -> None:
    trained = parameters()
    hook = guided(trained, parameters="^[ab]$", **ALWAYS)
    before = give(trained)
    hook.gradients_ready(update(trained))
    assert {name for name, extra in added(trained, before).items() if extra.any()} == {"a", "b"}
    assert set(hook.state().tensors) == {"a", "b"}


def test_reference_can_be_the_gradient_of_the_new_rows_alone() -> None:
    trained, rows = parameters(), Rows(slopes(4))
    hook = make_hook("gradient-guidance", {"reference": "new", **ALWAYS})
    for number, first in ((1, True), (2, False)):
        about = context(trained, number, first=first, new=(True, False, True, False), rows=rows)
        hook.task_start(about)
        if first:
            hook.task_end(about)
    move(trained, 100.0)
    before = give(trained)
    hook.gradients_ready(update(trained, rows=(0, 1, 2, 3)))
    assert rows.asked == [0, 2]
    for name, extra in added(trained, before).items():
        assert float(extra.norm()) == pytest.approx(float(rows.slopes[name][[0, 2]].mean(0).norm()), rel=1e-4)
    before = give(trained)
    hook.gradients_ready(update(trained, 1, rows=(1, 3)))  # a batch of replayed rows only
    assert all(torch.equal(parameter.grad, before[name]) for name, parameter in trained.items())


def test_alpha_can_have_a_number_for_each_step() -> None:
    trained = parameters()
    assert not any(any(d.values()) for d in injected(guided(trained, alpha=[0.9, 0.0]), trained))
    assert all(all(d.values()) for d in injected(guided(trained, alpha=[0.0, 1.0]), trained))
    with pytest.raises(InputError, match="alpha has 1 numbers, and none for step 2"):
        guided(trained, alpha=[0.5])


def test_counts_and_the_mean_ratio_are_facts() -> None:
    trained = parameters()
    start = flat(trained).clone()
    hook = guided(trained, norm_scope="global", moved=0.1, **ALWAYS)
    ratios = []
    for number in range(3):
        gradient = flat(give(trained, scale=10.0 ** (number - 1), seed=number))
        ratios.append(min(1.0, float((flat(trained) - start).norm() / gradient.norm())))
        hook.gradients_ready(update(trained, number))
    assert min(ratios) < 0.5 < max(ratios)
    facts = hook.facts()
    assert (facts["updates"], facts["injections"]) == (3, 3)
    assert facts["mean_norm_ratio"] == pytest.approx(sum(ratios) / 3, rel=1e-4)


def test_where_the_last_step_ended_survives_and_takes_no_gradient() -> None:
    trained = parameters()
    hook = guided(trained, **ALWAYS)
    state = hook.state()
    assert all(not tensor.requires_grad for tensor in state.tensors.values())
    again = make_hook("gradient-guidance", ALWAYS)
    again.load_state(state)
    again.task_start(context(trained, 2))
    again.load_state(state)
    for each in (hook, again):
        each.before = give(trained)  # type: ignore[attr-defined]
        each.gradients_ready(update(trained))
        each.extra = added(trained, each.before)  # type: ignore[attr-defined]
    assert all(torch.equal(hook.extra[name], again.extra[name]) for name in trained)  # type: ignore[attr-defined]
    assert hook.facts() == again.facts()


def test_a_state_of_other_parameters_is_refused() -> None:
    hook = make_hook("gradient-guidance", {})
    with pytest.raises(InputError, match="does not fit the trained parameters"):
        hook.task_start(context(parameters(), 2))
    hook = make_hook("gradient-guidance", {"parameters": "nothing"})
    with pytest.raises(InputError, match="'nothing' matches no trained parameter"):
        hook.task_start(context(parameters(), 1, first=True))


def test_after_a_merge_the_fresh_adapter_s_start_is_where_the_last_step_ended() -> None:
    trained = parameters()
    hook = guided(trained, adapter="merge", **ALWAYS)
    fresh = parameters(7)
    hook.task_end(context(trained, 2, adapter="merge"))
    assert hook.state().tensors == {}
    hook.task_start(context(fresh, 3, adapter="merge"))
    before = give(fresh)
    hook.gradients_ready(update(fresh))
    assert not flat(added(fresh, before)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1"),
        ({"alpha": []}, "alpha must be a number, or a list"),
        ({"alpha": "often"}, "alpha must be"),
        ({"inject": "sometimes"}, "inject must be one of random, always, never"),
        ({"scaling": 1}, "scaling must be True or False"),
        ({"norm_scope": "layer"}, "norm_scope must be one of tensor, global"),
        ({"reference": "old"}, "reference must be one of batch, new"),
        ({"draw": "rank"}, "draw must be one of step, tensor"),
        ({"place": "late"}, "place must be one of before-clipping, after-clipping"),
        ({"parameters": "("}, "not a regular expression"),
    ],
)
def test_options_are_checked_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"gradient-guidance: .*{message}"):
        make_hook("gradient-guidance", options)


def test_alpha_zero_is_replay_to_the_byte_and_another_alpha_is_not(
    load_tiny: Callable[..., VLM], tmp_path: Path
) -> None:
    settings = TrainingSettings(batch_size=4, epochs=2, learning_rate=2e-2, warmup_ratio=0.0)
    written = {}
    for name, options in {
        "replay": None,
        "zero": {"alpha": 0.0},
        "never": {"inject": "never"},
        "half": {"alpha": 0.5},
    }.items():
        vlm = load_tiny()
        attach_lora(vlm, r=2, alpha=4, dropout=0.1)
        rows = [ChatEncoder(vlm).encode(talk(f"row-{n}", "Say " * n + "it", "no " * n + "yes")) for n in range(9)]
        hooks = [] if options is None else [make_hook("gradient-guidance", options)]
        if hooks:
            hooks[0].task_end(_trained(vlm))
        place = Place(step=2, first=False)
        fit(vlm, rows, settings, vision=Pixels(vlm), seed=0, hooks=hooks, place=place)
        written[name] = save_adapter(vlm, tmp_path / name)
    assert written["zero"] == written["replay"] != written["half"]


def _trained(vlm: VLM) -> TaskContext:
    from liit.training.gradients import trained_parameters

    return context(trained_parameters(vlm), 1, first=True)

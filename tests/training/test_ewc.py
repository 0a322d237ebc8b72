"""EWC: the penalty is the closed form, from squares of each row's own gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_vlm import mixed_samples
from torch import Tensor, nn
from toy import Rows, context, give, move, parameters, slopes, update

from liit.config import TrainingSettings
from liit.errors import InputError
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.lora import lora_parameters
from liit.model.vision import Pixels
from liit.model.vlm import VLM
from liit.training import fit
from liit.training.hooks import TrainingHook, make_hook


def copy_of(trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained.items()}


def after_tasks(trained: dict[str, nn.Parameter], tasks: int, **options: Any) -> tuple[TrainingHook, list[Any]]:
    """A hook after some tasks, and for each the rows' gradients and where it ended; the parameters have moved on."""
    hook = make_hook("ewc", options)
    history = []
    for number in range(1, tasks + 1):
        rows = Rows(slopes(6, seed=number))
        about = context(trained, number, first=number == 1, rows=rows)
        if number > 1:
            hook.load_state(hook.state())
        hook.task_start(about)
        move(trained, 0.5, seed=number)
        hook.task_end(about)
        history.append((rows.slopes, copy_of(trained)))
    hook.load_state(hook.state())
    hook.task_start(context(trained, tasks + 1))
    move(trained, 0.7, seed=99)
    return hook, history


def pull(hook: TrainingHook, trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """What the hook adds to the gradient."""
    before = give(trained)
    hook.gradients_ready(update(trained))
    return {name: parameter.grad - before[name] for name, parameter in trained.items()}


@pytest.mark.parametrize("anchors", ["last", "each"])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_pull_is_the_gradient_of_the_penalty(anchors: str, gamma: float) -> None:
    """Against autograd on the penalty as it is written in the papers, over three tasks."""
    trained = parameters()
    hook, history = after_tasks(trained, 3, strength=2.0, anchors=anchors, gamma=gamma)
    here = {name: parameter.detach().double().requires_grad_() for name, parameter in trained.items()}
    penalty = torch.zeros((), dtype=torch.float64)
    for age, (rows, ended) in enumerate(reversed(history)):
        held = history[-1][1] if anchors == "last" else ended
        for name in trained:
            fisher = gamma**age * rows[name].double().square().mean(0)
            penalty = penalty + (2.0 / 2) * (fisher * (here[name] - held[name].double()).square()).sum()
    penalty.backward()
    for name, extra in pull(hook, trained).items():
        torch.testing.assert_close(extra.double(), here[name].grad, rtol=1e-4, atol=1e-4)


def test_nothing_pulls_at_the_first_step_nor_where_the_last_one_ended() -> None:
    trained = parameters()
    first = make_hook("ewc", {})
    first.task_start(context(trained, 1, first=True))
    assert not any(extra.any() for extra in pull(first, trained).values())
    first.task_end(context(trained, 1, first=True))
    first.task_start(context(trained, 2))
    assert not any(extra.any() for extra in pull(first, trained).values())
    move(trained)
    assert all(extra.any() for extra in pull(first, trained).values())


def test_squares_are_of_rows_not_of_their_mean() -> None:
    """Two rows that pull in opposite directions: their mean gradient, and its square, is zero."""
    trained = parameters()
    one = slopes(1)
    rows = Rows({name: torch.cat([slope, -slope]) for name, slope in one.items()})
    hook = make_hook("ewc", {})
    about = context(trained, 1, first=True, new=(True, True), rows=rows)
    hook.task_start(about)
    hook.task_end(about)
    for name, slope in one.items():
        torch.testing.assert_close(hook.state().tensors[f"fisher/{name}"], slope[0].square())


def test_rows_are_a_seeded_draw_from_the_new_ones() -> None:
    trained, new = parameters(), tuple(row % 3 > 0 for row in range(30))

    def asked(seed: int, **options: Any) -> list[int]:
        rows, hook = Rows(slopes(30)), make_hook("ewc", options)
        about = context(trained, 1, first=True, seed=seed, new=new, rows=rows)
        hook.task_start(about)
        hook.task_end(about)
        assert hook.facts()["fisher_rows"] == len(rows.asked)
        return rows.asked

    few = asked(0, samples=8)
    assert len(set(few)) == 8
    assert few == sorted(few) == asked(0, samples=8) != asked(1, samples=8)
    assert all(new[row] for row in few)
    assert asked(0, samples=500) == [row for row in range(30) if new[row]]
    assert asked(0, samples=500, rows="all") == list(range(30))


def test_a_step_without_new_rows_adds_no_information() -> None:
    trained = parameters()
    hook, _ = after_tasks(trained, 1)
    before = hook.state().tensors["fisher/a"].clone()
    hook.task_end(context(trained, 2, new=(False,) * 6))
    assert torch.equal(hook.state().tensors["fisher/a"], before)
    assert hook.facts()["fisher_rows"] == 0


def test_penalty_at_the_end_is_a_fact() -> None:
    trained = parameters()
    hook, [(rows, ended)] = after_tasks(trained, 1, strength=3.0)
    expected = sum(
        float((1.5 * rows[name].square().mean(0) * (parameter.detach() - ended[name]).square()).sum())
        for name, parameter in trained.items()
    )
    hook.task_end(context(trained, 2))
    assert hook.facts()["penalty"] == pytest.approx(expected, rel=1e-3)


def test_training_with_a_strong_penalty_stays_where_it_was() -> None:
    """Gradient descent on a pull to one side and the penalty ends where the two are equal: θ* − g / (λ F)."""
    trained = parameters()
    hook = make_hook("ewc", {"strength": 2.0})
    rows = Rows({name: torch.ones((1, *p.shape)) for name, p in trained.items()})  # F = 1
    about = context(trained, 1, first=True, new=(True,), rows=rows)
    hook.task_start(about)
    hook.task_end(about)
    start = copy_of(trained)
    hook.task_start(context(trained, 2))
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for number in range(100):
        gradient = give(trained)
        hook.gradients_ready(update(trained, number))
        optimizer.step()
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter.detach(), start[name] - gradient[name] / 2, rtol=1e-3, atol=1e-3)


def test_fisher_of_a_model_is_the_mean_square_of_each_answer_s_gradient(adapted: VLM) -> None:
    """Against one backward pass per row of the sum of log-probabilities, written out."""
    encoder = ChatEncoder(adapted)
    rows = [encoder.encode(sample) for sample in mixed_samples()]
    hook = make_hook("ewc", {"samples": 100})
    settings = TrainingSettings(batch_size=9, learning_rate=1e-12, warmup_ratio=0.0)
    fit(adapted, rows, settings, vision=Pixels(adapted), seed=0, hooks=[hook])
    trained = lora_parameters(adapted)
    expected = {name: torch.zeros_like(parameter) for name, parameter in trained.items()}
    for row in rows:
        batch = collate(adapted, [row], Pixels(adapted))
        labels = batch.pop("labels")
        logs = adapted.model(**batch).logits.log_softmax(-1)[0, :-1]
        answer = labels[0, 1:] != -100
        likelihood = logs[answer].gather(1, labels[0, 1:][answer][:, None]).sum()
        for name, gradient in zip(trained, torch.autograd.grad(likelihood, list(trained.values())), strict=True):
            expected[name] += gradient.square() / len(rows)
    state = hook.state().tensors
    for name, value in expected.items():
        torch.testing.assert_close(state[f"fisher/{name}"], value, rtol=2e-3, atol=1e-5 * float(value.max()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0}, "strength must be a number above 0"),
        ({"gamma": 1.5}, "gamma must be a number from 0 to 1"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"anchors": "first"}, "anchors must be one of last, each"),
        ({"rows": "old"}, "rows must be one of new, all"),
    ],
)
def test_options_are_checked_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"ewc: {message}"):
        make_hook("ewc", options)


def test_a_state_of_other_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit the trained parameters"):
        make_hook("ewc", {}).task_start(context(parameters(), 2))

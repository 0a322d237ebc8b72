"""The benchmarks around `liit compare` run what they say, and show what their JSON says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import ablation  # noqa: E402
import compare  # noqa: E402
import ewc_strength  # noqa: E402

from liit.config import Continuum, load_config  # noqa: E402
from liit.lifelong.methods import get_method, problem_with  # noqa: E402
from liit.selection import select  # noqa: E402

CONTINUUM = """
name: small
budget: 10
model: {path: "builtin:demo"}
steps:
- name: one
  train: [{path: train.json}]
  evaluation: [{skill: a, path: eval-a.json, metric: exact-match}]
  dev: [{skill: a, path: dev-a.json}]
- name: two
  train: [{path: more.json}]
  evaluation: [{skill: b, path: eval-b.json, metric: numeric}, {skill: c, path: eval-c.json, metric: exact-match}]
  dev: [{skill: c, path: dev-c.json}, {skill: b, path: dev-b.json}]
"""


@pytest.fixture
def continuum(tmp_path: Path) -> Continuum:
    file = tmp_path / "continuum.yaml"
    file.write_text(CONTINUUM, encoding="utf-8")
    return load_config(file, check_files=False)


def test_strengths_are_compared_on_development_rows_alone(continuum: Continuum) -> None:
    changed = ewc_strength.on_development_rows(continuum)
    asked = {task.skill: (task.path.name, task.metric) for step in changed.steps for task in step.evaluation}
    assert asked == {
        "a": ("dev-a.json", "exact-match"),
        "b": ("dev-b.json", "numeric"),
        "c": ("dev-c.json", "exact-match"),
    }
    assert not any(step.dev for step in changed.steps)


def test_a_strength_reaches_the_hook_of_its_method(continuum: Continuum) -> None:
    changed = ewc_strength.with_strengths(continuum, ["1", "1e4"])
    for name, strength in (("ewc-1", 1.0), ("ewc-1e4", 10_000.0)):
        method = get_method(name, changed)
        assert method.new_only
        assert method.hooks == (("ewc", {"strength": strength}),)
        assert problem_with(changed.model_copy(update={"method": name})) is None


def test_every_part_of_the_ablation_is_a_method_that_can_run(continuum: Continuum) -> None:
    changed = ablation.with_parts(continuum)
    assert set(ablation.PARTS) < set(ablation.WORDS)
    for name in ablation.PARTS:
        assert problem_with(changed.model_copy(update={"method": name})) is None
    assert "grad_norm" not in get_method("gradient-without-its-norm", changed).columns(changed)
    assert "gradient" not in get_method("experts-only", changed).columns(changed)


def test_clusters_only_leaves_no_row_less_likely_for_its_score() -> None:
    n = 200
    rng = np.random.default_rng(0)
    features: dict[str, Any] = {"id": np.arange(n), "embedding": np.ones((n, 4), np.float32)}
    selector, options = ablation.PARTS["embedding-clusters-only"]
    chosen = np.zeros(n)
    score = rng.normal(size=n) ** 3  # with outliers, which the method's own options would leave out
    for seed in range(400):
        chosen[select(selector, features | {"log_perplexity": score}, 50, seed, k=1, **options).rows] += 1
    extremes = chosen[np.argsort(score)][[0, 1, 2, -3, -2, -1]]
    assert abs(extremes.mean() / 400 - 0.25) < 0.06
    assert (chosen > 0).all()


def row(label: str, accuracy: float, low: float) -> dict[str, Any]:
    keys = {column.key for column in (*compare.QUALITY, *compare.RETENTION, *compare.COSTS)}
    numbers = {name: None for key in keys for name in (key, f"{key}_sd")}
    numbers |= {"average_accuracy": accuracy, "average_accuracy_sd": 0.01}
    versus = {"versus_random": accuracy - 0.4, "versus_random_low": low, "versus_random_high": 0.2}
    return {"label": label, "is_reference": False, "is_equal": False} | numbers | versus


def test_the_ablation_shows_its_rows_in_its_order_under_their_words() -> None:
    rows = [row(label, number / 10, -0.3) for number, label in enumerate(ablation.WORDS)]
    lines = ablation.table({"rows": rows[::-1]}).splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(ablation.WORDS.values())
    assert [line.split(" | ")[1] for line in lines] == [f"0.{n}00 ± 0.010" for n in range(len(rows))]


def test_more_seeds_say_how_many_and_the_interval() -> None:
    text = compare.more_markdown({"seeds": list(range(8)), "rows": [row("adapt-inf-embedding", 0.45, 0.01)]})
    assert text.startswith("8 seeds:")
    assert "+0.050 [+0.010, +0.200]" in text


def test_a_page_without_the_marks_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("words <!-- a --> old", encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks"):
        compare.between(("<!-- a -->", "<!-- b -->"), "new", page)
    assert page.read_text(encoding="utf-8") == "words <!-- a --> old"
    page.write_text("words <!-- a --> old <!-- b --> more", encoding="utf-8")
    compare.between(("<!-- a -->", "<!-- b -->"), "new", page)
    assert page.read_text(encoding="utf-8") == "words <!-- a -->\n\nnew\n\n<!-- b --> more"

"""What `lora.adapter` means: which weights a step starts from, and which ones answer afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import write_continuum

import liit
from liit.config import load_config
from liit.data.pool import Pool
from liit.lifelong.progress import Reporter
from liit.lifelong.stages import read_selection, train_step
from liit.lifelong.workbench import ADAPTER_RULES, Workbench, derived_seed
from liit.model.batch import collate
from liit.model.chain import read_chain

Run = Callable[[str], Path]


@pytest.fixture(scope="module")
def short(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_continuum(tmp_path_factory.mktemp("rules"), model, method="replay")


@pytest.fixture(scope="module")
def said() -> dict[str, list[str]]:
    """What runs said, by rule."""
    return {}


@pytest.fixture(scope="module")
def run(short: Path, said: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs by rule, each made once."""
    done: dict[str, Path] = {}

    class Listener(Reporter):
        def __init__(self, rule: str) -> None:
            self.heard = said.setdefault(rule, [])

        def say(self, text: str) -> None:
            self.heard.append(text)

    def call(rule: str) -> Path:
        if rule not in done:
            done[rule] = tmp_path_factory.mktemp(rule) / "out"
            liit.run(short, done[rule], overrides=[f"lora.adapter={rule}"], reporter=Listener(rule))
        return done[rule]

    return call


def adapters(out: Path) -> list[Path]:
    return sorted(out.glob("steps/*/adapter"))


def facts(adapter: Path) -> dict[str, object]:
    return json.loads((adapter.parent / "train.json").read_text())


@pytest.mark.parametrize("rule", ["continue", "merge", "new"])
def test_chains_and_facts_say_what_the_weights_hold(run: Run, rule: str) -> None:
    found = adapters(run(rule))
    assert len(found) == 3
    for number, adapter in enumerate(found):
        assert read_chain(adapter) == (tuple(found[:number]) if rule == "merge" else ())
        assert facts(adapter)["adapter_rule"] == rule
        assert facts(adapter)["merged_adapters"] == (number if rule == "merge" else 0)
    sizes = {(adapter / "adapter_model.safetensors").stat().st_size for adapter in found}
    assert len(sizes) == 1  # adapters stay small


def test_first_steps_are_equal_and_later_ones_start_from_other_weights(run: Run) -> None:
    weights = {
        rule: [(adapter / "adapter_model.safetensors").read_bytes() for adapter in adapters(run(rule))]
        for rule in ADAPTER_RULES
    }
    assert len({weights[rule][0] for rule in weights}) == 1
    assert len({weights[rule][1] for rule in weights}) == 3


def test_fresh_adapters_of_later_steps_have_a_start_of_their_own(short: Path, run: Run) -> None:
    out = run("new")
    bench = Workbench(load_config(short, ["lora.adapter=new"]))
    starts = []
    for step, adapter in ((1, None), (2, adapters(out)[0]), (3, adapters(out)[1])):
        vlm = bench.trainee(adapter, step)
        starts.append(vlm.checkpoint_id)
        assert all(not p.any() for n, p in vlm.base.named_parameters() if "lora_B" in n)
        bench.forget_adapter()
    assert len(set(starts)) == 3


def logits(bench: Workbench, out: Path, adapter: Path | None) -> torch.Tensor:
    """What the model says to four rows of a run's pool."""
    vlm = bench.with_adapter(adapter)
    rows = [bench.encoder.encode(sample) for sample in next(iter(Pool.open(out / "pool").scan()))[:4]]
    with torch.no_grad():
        result: torch.Tensor = vlm.model(**collate(vlm, rows, bench.vision)).logits
    return result


def test_a_chain_answers_as_the_sum_of_its_adapters(short: Path, run: Run) -> None:
    """Against the updates written out: W + Σ (alpha / r) B A over all three adapters."""
    out = run("merge")
    bench = Workbench(load_config(short, ["lora.adapter=merge"]))
    chained = logits(bench, out, adapters(out)[-1])
    plain = Workbench(load_config(short))
    vlm = plain.vlm
    for adapter in adapters(out):
        factors = load_file(adapter / "adapter_model.safetensors")
        for name, a in factors.items():
            if ".lora_A." in name:
                module = name.removeprefix("base_model.model.").partition(".lora_A.")[0]
                weight = vlm.base.get_submodule(module).weight
                weight.data += (8 / 4) * factors[name.replace("lora_A", "lora_B")] @ a
    torch.testing.assert_close(chained, logits(plain, out, None), rtol=1e-3, atol=1e-3)


def test_the_order_in_which_checkpoints_are_asked_for_does_not_matter(short: Path, run: Run) -> None:
    """Going back to an earlier chain needs the base model's own weights again."""
    out = run("merge")
    config, found = load_config(short, ["lora.adapter=merge"]), adapters(out)
    bench = Workbench(config)
    forth = {adapter: (logits(bench, out, adapter), bench.vlm.checkpoint_id) for adapter in (None, *found)}
    back = {adapter: (logits(bench, out, adapter), bench.vlm.checkpoint_id) for adapter in (*found[::-1], None)}
    for adapter, (answer, name) in forth.items():
        assert torch.equal(answer, back[adapter][0])
        assert name == back[adapter][1]
    assert len({name for _, name in forth.values()}) == 4


def test_training_a_step_again_from_the_chain_gives_the_same_adapter(short: Path, run: Run, tmp_path: Path) -> None:
    out = run("merge")
    bench = Workbench(load_config(short, ["lora.adapter=merge"]))
    samples = Pool.open(out / "pool").take(read_selection(out / "steps/03-gamma/selection.parquet"))
    again = tmp_path / "steps/03-gamma/adapter"
    shutil.copytree(out / "steps", tmp_path / "steps")
    shutil.rmtree(again)
    train_step(bench, tmp_path / "steps/02-beta/adapter", samples, again, seed=derived_seed(3, 3, "train"), step=3)
    for file in (out / "steps/03-gamma/adapter").iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_rule_is_said_at_the_start_of_the_run(run: Run, said: dict[str, list[str]]) -> None:
    for rule, words in ADAPTER_RULES.items():
        run(rule)
        assert said[rule] == [f"adapter: {rule}, {words}"]

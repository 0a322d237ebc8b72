"""What extraction costs below the bound of exact scoring, and what that changes: one setting at a time.

    python benchmarks/approximations.py                       every setting on the demo's third step
    python benchmarks/approximations.py --only rescore-25     one of them, beside exact scoring
    python benchmarks/approximations.py --gain rescore-25     a whole run with a setting or with `exact`, of one --seed
    python benchmarks/approximations.py --write-docs          the tables into docs/extraction.md

Two steps of adapt-inf are run on the built-in continuum; then the pool of the third, with the checkpoint after the
second, is scored in each way. Written down are CPU seconds of one thread over those of exact scoring (mean of a run
before and one after), operations counted while they run in forward passes per pool sample, rank correlation of the
scores that compete as experts, and the selection of adapt-inf beside that from exact features. A selection is random
within clusters and score bins, so even exact features give another one for another seed: those overlaps are the
measure for all others.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from approximations_table import write_page
from scipy.stats import spearmanr

from liit.config import Continuum, FeatureSettings, RescoreSettings, load_config
from liit.data.pool import Pool
from liit.demo.continuum import cached_continuum
from liit.features import ExtractionReport, FeatureStore
from liit.features.rescore import AGE
from liit.lifelong import run, stages
from liit.lifelong.choosing import Candidates, read_labels, read_selection
from liit.lifelong.cost import FlopCounter
from liit.lifelong.methods import get_method
from liit.lifelong.workbench import Workbench, cache_directory, derived_seed
from liit.model.quiet import quiet_libraries
from liit.model.vlm import load_vlm
from liit.report import summary_table, to_json

RESULTS = Path(__file__).parent / "results" / "approximations.json"
WORK = Path("runs/benchmark-approximations")
STEP, OTHER_SEEDS = 3, (1, 2, 3)
ALONE = 64  # rows whose forward pass, one by one, is the unit


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to score.

    Attributes:
        title: for the table.
        changes: of `FeatureSettings`.
        against: the way that it is compared with.
    """

    title: str
    changes: dict[str, Any]
    against: str = "exact"


TENTH = RescoreSettings(share=0.1)
SETTINGS: dict[str, Setting] = {
    "exact": Setting("every row, exactly", {}),
    "apart": Setting("the same without shared beginnings", {"share_beginnings": False}),
    "zeros-apart": Setting("blackened images, every row apart", {"blind": "zeros", "share_beginnings": False}),
    "zeros": Setting("blackened images, shared beginnings", {"blind": "zeros"}, "zeros-apart"),
    "share-images": Setting("`share_images: true`", {"share_images": True}),
    "last-layer": Setting("`layers: -1`", {"layers": -1}),
    "bfloat16": Setting("`autocast: bfloat16`", {"autocast": "bfloat16"}),
    "proxy-base": Setting("`proxy`: the base model, not trained", {"proxy": "builtin:demo"}),
    "proxy-half": Setting("`proxy`: its lower two of four layers", {"proxy": "HALF"}),
    "rescore-50": Setting("`rescore: {share: 0.5}`", {"rescore": RescoreSettings(share=0.5)}),
    "rescore-25": Setting("`rescore: {share: 0.25}`", {"rescore": RescoreSettings(share=0.25)}),
    "rescore-10": Setting("`rescore: {share: 0.1}`", {"rescore": TENTH}),
    "together": Setting(
        "`rescore: {share: 0.1}`, `layers: -1`, `share_images: true`",
        {"rescore": TENTH, "layers": -1, "share_images": True},
    ),
}


class Stage:
    """The demo's third step under adapt-inf, ready to be scored in many ways."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.continuum = load_config(cached_continuum(cache_directory()), ["seed=0", "method=adapt-inf"])
        self.method = get_method(self.continuum.method)
        self.bench = Workbench(self.continuum)
        self.pool = Pool.open_or_create(work / "pool")
        self.names = stages.feature_names(self.method, self.continuum)
        self.adapter: Path | None = None
        self.new: list[bool] = []
        known: set[str] = set()
        for number in range(1, STEP + 1):
            stages.ingest_step(self.pool, self.continuum.steps[number - 1], number)
            samples = [sample for batch in self.pool.scan() for sample in batch]
            refused = stages.refused_rows(self.bench, samples)
            self.samples = [sample for sample in samples if sample.id not in refused]
            self.new = [sample.id not in known for sample in self.samples]
            known |= {sample.id for sample in self.samples}
            if number < STEP:
                self._step(number)
        stages.fill_vision(self.bench, self.samples)

    def _step(self, number: int) -> None:
        folder = self.folder(number)
        stages.extract_step(self.bench, self.adapter, self.samples, self.names, folder / "features")
        self.choose(folder / "features", folder, number)
        chosen = self.pool.take(read_selection(folder / "selection.parquet"))
        seed = derived_seed(self.continuum.seed, number, "train")
        stages.train_step(self.bench, self.adapter, chosen, folder / "adapter", seed=seed, step=number)
        self.adapter = folder / "adapter"

    def folder(self, number: int) -> Path:
        """Of a step."""
        return self.work / f"step-{number}"

    def choose(self, features: Path, out: Path, number: int = STEP, seed: int = 0) -> None:
        """A selection of adapt-inf."""
        candidates = Candidates([s.id for s in self.samples], self.new, features)
        continuum = self.continuum.model_copy(update={"seed": seed})
        stages.select_step(self.method, continuum, self.pool, candidates, number, out)

    def score(self, setting: Setting, out: Path) -> dict[str, Any]:
        """Score the third step's pool; what it cost."""
        changes = dict(setting.changes)
        if changes.get("proxy") == "HALF":
            changes["proxy"] = str(half_model(self.work / "half"))
        needed = "rescore" in changes or "proxy" in changes
        last = self._last({n: value for n, value in changes.items() if n != "rescore"}) if needed else None
        self.use(FeatureSettings(**{**self.continuum.features.model_dump(), **changes}))
        report = ExtractionReport()
        start = time.process_time()
        with FlopCounter() as counter:
            stages.extract_step(self.bench, self.adapter, self.samples, self.names, out, report=report, last=last)
        seconds = time.process_time() - start
        return {
            "seconds": seconds,
            "operations": counter.total,
            "scored": report.scored,
            "predicted": report.predicted,
            "carried": report.carried,
            "model_calls": report.model_calls,
            "notes": report.notes,
        }

    def use(self, features: FeatureSettings) -> None:
        """Score with these settings from now on."""
        self.bench.continuum = self.continuum.model_copy(update={"features": features})
        scorer = self.bench.__dict__.get("scorer", self.bench)
        if scorer is self.bench or scorer.continuum.model.path != features.proxy:
            self.bench.__dict__.pop("scorer", None)

    def _last(self, changes: dict[str, Any]) -> Path:
        """The second step's folder as it would be had it been scored in this way, too."""
        last, before = self.folder(STEP - 1), self.folder(STEP - 2) / "adapter"
        if not changes:
            return last
        out = self.work / f"last-{len(list(self.work.glob('last-*')))}"
        out.mkdir()
        for name in ("labels.parquet", "selection.parquet"):
            shutil.copy(last / name, out / name)
        self.use(FeatureSettings(**{**self.continuum.features.model_dump(), **changes}))
        old = [sample for sample, new in zip(self.samples, self.new, strict=True) if not new]
        stages.extract_step(self.bench, before, old, self.names, out / "features")
        return out

    def unit(self) -> float:
        """Operations of one forward pass with images and head, averaged over some rows taken one by one."""
        self.use(self.continuum.features)
        vlm = self.bench.with_adapter(self.adapter)
        order = np.random.default_rng(0).permutation(len(self.samples))[:ALONE]
        rows = [self.bench.encoder.encode(self.samples[i]) for i in order]
        from liit.model.batch import collate

        with FlopCounter() as counter, torch.no_grad():
            for row in rows:
                batch = collate(vlm, [row], self.bench.vision)
                batch.pop("labels")
                vlm.base(**batch, use_cache=False)
        return counter.total / len(rows)


def half_model(path: Path) -> Path:
    """The demo's base without its upper two decoder layers, as a checkpoint of its own."""
    if not path.exists():
        vlm = load_vlm("builtin:demo")
        layers = vlm.decoder_layers
        del layers[len(layers) // 2 :]
        vlm.base.config.get_text_config().num_hidden_layers = len(layers)
        vlm.base.save_pretrained(path)
        vlm.processor.save_pretrained(path)
    return path


def compared(stage: Stage, folder: Path, exact: Path) -> dict[str, Any]:
    """Scores, gradients and selection beside those of another extraction."""
    ids = [sample.id for sample in stage.samples]
    ours, theirs = (FeatureStore(one / "features").view(ids) for one in (folder, exact))
    guessed = ours[AGE] > 0 if AGE in ours else np.zeros(len(ids), dtype=bool)
    scores = [name for name in stage.names if name != "gradient"]
    out: dict[str, Any] = {"spearman": {n: _spearman(ours[n], theirs[n]) for n in scores}}
    if guessed.any():
        out["spearman_predicted"] = {n: _spearman(ours[n][guessed], theirs[n][guessed]) for n in scores}
    out["gradient_cosine"] = _cosine(ours, theirs)
    return out | selections(folder, exact)


def selections(folder: Path, exact: Path) -> dict[str, float]:
    """Share of chosen rows in common, share of the budget given to other skills, and agreement of the clusters."""
    from sklearn.metrics import adjusted_mutual_info_score

    ours, theirs = (set(read_selection(one / "selection.parquet")) for one in (folder, exact))
    counts = [_counts(one) for one in (folder, exact)]
    skills = {*counts[0], *counts[1]}
    moved = sum(abs(counts[0].get(s, 0) - counts[1].get(s, 0)) for s in skills) / 2 / len(theirs)
    labels = [dict(zip(*read_labels(one / "labels.parquet"), strict=True)) for one in (folder, exact)]
    ids = sorted(labels[0])
    agreed = adjusted_mutual_info_score([labels[1][i] for i in ids], [labels[0][i] for i in ids])
    return {
        "overlap": round(len(ours & theirs) / len(theirs), 3),
        "moved_between_skills": round(moved, 3),
        "clusters_ami": round(float(agreed), 3),
    }


def _counts(folder: Path) -> dict[str, int]:
    column = pq.read_table(folder / "selection.parquet")["skill"].to_pylist()
    return {name: column.count(name) for name in set(column)}


def _spearman(ours: np.ndarray, theirs: np.ndarray) -> float:
    known = np.isfinite(ours) & np.isfinite(theirs)
    return round(float(spearmanr(ours[known], theirs[known]).statistic), 3)


def _cosine(ours: FeatureStore, theirs: FeatureStore) -> float | None:
    """Mean cosine of gradients; None where they are gradients of other parameters."""
    same = ("layers", "dim", "sketch", "seed")
    keys = [store.key.columns["gradient"] for store in (ours, theirs)]
    base = [store.key.model["checkpoint"].split("+")[0] for store in (ours, theirs)]
    if any(keys[0][name] != keys[1][name] for name in same) or base[0] != base[1]:
        return None
    one, other = (store["gradient"].astype(np.float32) for store in (ours, theirs))
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return round(float(np.nanmean((one * other).sum(1) / np.where(sizes > 0, sizes, np.nan))), 3)


def measure(only: list[str] | None = None) -> dict[str, Any]:
    """Every setting, or some."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    stage = Stage(WORK)
    wanted = [name for name in SETTINGS if only is None or name in only or name == "exact"]
    wanted += [a for name in wanted if (a := SETTINGS[name].against) not in wanted]
    costs: dict[str, Any] = {}
    for name in sorted(set(wanted), key=list(SETTINGS).index):
        folder = WORK / name
        costs[name] = stage.score(SETTINGS[name], folder / "features")
        stage.choose(folder / "features", folder)
        print(name, json.dumps(costs[name]), flush=True)
    twice = [costs["exact"]["seconds"], stage.score(SETTINGS["exact"], WORK / "again" / "features")["seconds"]]
    unit, rows = stage.unit(), len(stage.samples)
    found: dict[str, Any] = {}
    for name, cost in costs.items():
        seconds, operations = cost.pop("seconds"), cost.pop("operations")
        cost["cpu_ratio"] = round(2 * seconds / sum(twice), 3)
        cost["forwards_per_sample"] = round(operations / unit / rows, 3)
        against = SETTINGS[name].against
        beside = compared(stage, WORK / name, WORK / against) if against in costs and against != name else {}
        found[name] = {"title": SETTINGS[name].title, "against": against, **cost, **beside}
    return {
        "pool": rows,
        "new": int(sum(stage.new)),
        "budget": stage.continuum.budget,
        "step": STEP,
        "yardstick": yardstick(stage),
        "settings": found,
    }


def yardstick(stage: Stage) -> dict[str, Any]:
    """Selections from the same exact features with other seeds."""
    found = []
    for seed in OTHER_SEEDS:
        folder = WORK / f"seed-{seed}"
        stage.choose(WORK / "exact" / "features", folder, seed=seed)
        found.append(selections(folder, WORK / "exact"))
    return {name: [one[name] for one in found] for name in found[0]}


def gain(name: str, seed: int) -> dict[str, Any]:
    """Average accuracy after a whole run of adapt-inf with a setting."""
    out = WORK.parent / "benchmark-approximations-gain" / f"{name}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    continuum: Continuum = load_config(cached_continuum(cache_directory()), [f"seed={seed}", "method=adapt-inf"])
    changes = dict(SETTINGS[name].changes)
    if changes.get("proxy") == "HALF":
        changes["proxy"] = str(half_model(WORK.parent / "benchmark-approximations-half"))
    features = FeatureSettings(**{**continuum.features.model_dump(), **changes})
    start = time.process_time()
    directory = run(continuum.model_copy(update={"features": features}), out)
    seconds = time.process_time() - start
    row = json.loads(to_json(summary_table([directory.path], None)))[0]
    found = {name: round(row[name], 4) for name in ("average_accuracy", "average_low", "average_high")}
    return {**found, "cpu_seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(SETTINGS))
    parser.add_argument("--gain", choices=list(SETTINGS), help="run the whole continuum with one setting")
    parser.add_argument("--seed", type=int, default=0, help="of --gain")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/extraction.md")
    chosen = parser.parse_args()
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if chosen.write_docs:
        write_page(known)
        return
    quiet_libraries()
    torch.set_num_threads(1)
    if chosen.gain:
        known.setdefault("gain", {}).setdefault(chosen.gain, {})[str(chosen.seed)] = gain(chosen.gain, chosen.seed)
    else:
        found = measure(chosen.only)
        found["settings"] = {**known.get("settings", {}), **found["settings"]} if chosen.only else found["settings"]
        known |= {"machine": platform.machine(), "torch": torch.__version__, **found}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The stages: each goes from what lies on disk to what lies on disk, and is a command of its own.

A stage gives back its facts, a small JSON-serialisable dict that goes into ``run.json`` or is printed.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from liit.config import Continuum, Step
from liit.data import checksums
from liit.data.ingest import ingest
from liit.data.leaks import find_leaks
from liit.data.pool import Pool
from liit.data.sample import Sample
from liit.errors import InputError
from liit.evaluation.evaluate import SkillTask, evaluate
from liit.features import ExtractionReport, FeatureStore, extract
from liit.features.carrying import carried_rows
from liit.features.rescore import AGE, Earlier
from liit.lifelong.choosing import Candidates, QueryFeatures, read_labels, read_selection, select_step, write_selection
from liit.lifelong.methods import Method
from liit.lifelong.queries import QueryRows
from liit.lifelong.rundir import new_directory, write_json, write_jsonl, write_table
from liit.lifelong.saved_skills import SavedSkills, forget_saved_skills
from liit.lifelong.tasks import read_tasks
from liit.lifelong.workbench import Workbench, derived_seed
from liit.model.chain import write_chain
from liit.model.chat import RowRefusedError
from liit.model.lora import CONFIG, WEIGHTS, save_adapter
from liit.model.vision import VisionCache
from liit.pruning import prune_semantically
from liit.training import Place, fit
from liit.training.hooks import load_states, make_hooks, save_states

__all__ = [
    "Candidates",
    "QueryFeatures",
    "evaluate_step",
    "extract_queries",
    "extract_step",
    "feature_names",
    "fill_vision",
    "forget_saved_skills",
    "increments",
    "ingest_step",
    "leaks",
    "prune_step",
    "read_labels",
    "read_selection",
    "read_tasks",
    "refused_rows",
    "select_step",
    "train_step",
    "write_selection",
]

Facts = dict[str, Any]
Progress = Callable[[int], None]


def ingest_step(pool: Pool, step: Step, number: int, progress: Progress | None = None) -> Facts:
    """Take a step's datasets into the pool; doing it again changes nothing.

    Args:
        pool: where to.
        step: what arrives.
        number: of the step, part of the commits' keys.
        progress: called with the number of rows just read.
    """
    total: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    same_content_in: Counter[str] = Counter()
    for index, part in enumerate(step.train):
        report = ingest(
            pool,
            part.path,
            part.format,
            part.source,
            image_root=part.images,
            skill_key=part.skill_key,
            allow_outside=part.allow_outside,
            embed_images=part.embed_images,
            message=f"step {number} ({step.name}): {part.path.name}",
            key=f"step-{number}-{index}",
            progress=increments(progress),
        )
        reasons.update(report.reasons)
        same_content_in.update(report.same_content_in)
        for name in ("rows", "added", "quarantined", "duplicates", "same_content", "pruned"):
            total[name] += getattr(report, name)
    table = pool.columns(["source", "skill"])
    return {
        **total,
        "reasons": dict(sorted(reasons.items())),
        "same_content_in": dict(sorted(same_content_in.items())),
        "pool_version": pool.version,
        "pool_size": len(pool),
        "sources": dict(sorted(Counter(table["source"].to_pylist()).items())),
        "skills": dict(sorted(Counter(table["skill"].to_pylist()).items())),
    }


def leaks(pool: Pool, tasks: Sequence[SkillTask]) -> Facts:
    """Overlap between training and evaluation rows, by content hash and by image hash."""
    found = find_leaks(pool, {task.skill: task.samples for task in tasks})
    return {"leaked_rows": found["leaked_rows"], "leaked_images": found["leaked_images"], "leaks": found}


def refused_rows(bench: Workbench, samples: Iterable[Sample]) -> dict[str, str]:
    """Rows that cannot be given to the model whole, by id, with the reason."""
    refused: dict[str, str] = {}
    for sample in samples:
        try:
            bench.encoder.encode(sample)
        except RowRefusedError as error:
            refused[sample.id] = str(error)
    return refused


def fill_vision(bench: Workbench, samples: Iterable[Sample], progress: Progress | None = None) -> int:
    """Compute the frozen vision tower's outputs that are not kept yet; how many that were."""
    if not isinstance(bench.vision, VisionCache):
        return 0
    return bench.vision.fill_rows((sample.images for sample in samples), progress)


def feature_names(method: Method, continuum: Continuum) -> tuple[str, ...]:
    """Columns that a method needs under these settings."""
    return method.columns(continuum)


def extract_step(
    bench: Workbench,
    adapter: Path | None,
    samples: Sequence[Sample],
    names: Sequence[str],
    out: Path,
    progress: Progress | None = None,
    report: ExtractionReport | None = None,
    *,
    optimizer_state: Path | None = None,
    refresh: bool = False,
    last: Path | None = None,
) -> Facts:
    """Score the samples with one checkpoint, or with the proxy; what is there already is not computed again.

    Args:
        bench: the model.
        adapter: to score with; None for the run's fresh one.
        samples: that the model can take.
        names: standard feature names.
        out: the feature store.
        progress: called with the number of rows just finished.
        report: is counted into.
        optimizer_state: Adam's state, for gradients along which it would step.
        refresh: compute everything anew when the store is another checkpoint's.
        last: folder of the last step, for ``features.rescore`` and ``features.proxy``.

    Returns:
        The features and the checkpoint; rows in the store, and of these how many are predicted and how many keep the
        last step's features. The model scored the others.
    """
    continuum = bench.continuum
    if bench.scorer is not bench:
        bench, adapter = bench.scorer, None
        if optimizer_state is not None:
            raise InputError("optimizer_state: it belongs to the model in training, not to features.proxy; give one")
    filled = fill_vision(bench, samples)
    if report is not None:
        report.tower_images += filled
    vlm = bench.with_adapter(adapter)
    earlier = earlier_features(continuum, last)
    store = extract(
        vlm,
        samples,
        names,
        out,
        continuum.features,
        seed=derived_seed(continuum.seed, 0, "sketch"),
        vision=bench.vision,
        encoder=bench.encoder,
        progress=progress,
        report=report,
        optimizer_state=optimizer_state,
        refresh=refresh,
        earlier=earlier,
    )
    return {
        "rows": len(store.stored_ids()),
        "features": list(names),
        "checkpoint": vlm.checkpoint_id,
        "predicted": int((store[AGE] > 0).sum()) if AGE in store else 0,  # the column is there when some are
        "carried": 0 if earlier is None else carried_rows(out, earlier.features),
    }


def earlier_features(continuum: Continuum, last: Path | None) -> Earlier | None:
    """What the last step leaves to an extraction that does not score every row; None when every row is scored."""
    settings = continuum.features
    if last is None or (settings.rescore is None and settings.proxy is None):
        return None
    labels = last / "labels.parquet"  # of a method that clusters; for others the pool is one cluster
    clusters = {} if not labels.exists() else dict(zip(*read_labels(labels), strict=True))
    return Earlier(last / "features", clusters, frozenset(read_selection(last / "selection.parquet")))


def extract_queries(
    bench: Workbench, adapter: Path | None, queries: QueryRows, names: Sequence[str], out: Path,
    progress: Progress | None = None,
) -> Facts:  # fmt: skip
    """Score the queries with the checkpoint that scores the pool, in a store of their own.

    Args:
        bench: the model.
        adapter: to score with; None for the run's fresh one.
        queries: of the step.
        names: feature columns that the selectors compare.
        out: the feature store.
        progress: called with the number of rows just finished.

    Raises:
        InputError: a query that cannot be given to the model whole.
    """
    refused = refused_rows(bench, queries.samples)
    if refused:
        first, reason = next(iter(refused.items()))
        raise InputError(f"queries: {len(refused)} rows cannot be given to the model, first {first!r}: {reason}")
    extract_step(bench, adapter, queries.samples, names, out, progress)
    groups = len(set(queries.groups))
    return {"queries": len(queries.samples), "query_groups": groups, "queries_left_out": queries.left_out}


def train_step(
    bench: Workbench,
    adapter: Path | None,
    samples: Sequence[Sample],
    out: Path,
    *,
    seed: int,
    epochs: int | None = None,
    progress: Progress | None = None,
    optimizer_state: Path | None = None,
    hooks: Sequence[tuple[str, Mapping[str, Any]]] = (),
    hook_state: Path | None = None,
    step: int = 1,
    new: Container[str] | None = None,
) -> Facts:
    """Train the adapter on some samples and write it, and beside it, in ``hooks``, what hooks keep for the next step.

    Args:
        bench: the model.
        adapter: where to go on from; None starts with a fresh adapter.
        samples: what to train on.
        out: directory of the new adapter.
        seed: of the order of rows and of dropout.
        epochs: instead of ``training.epochs``.
        progress: called with the number of optimizer steps just done.
        optimizer_state: file that gets Adam's moments, for `extract_step`.
        hooks: names of training hooks with their options, in the order in which they are called.
        hook_state: the ``hooks`` folder of the step before; None at the first step that trains.
        step: number of the step, from 1.
        new: ids of the samples that came with the step; None: all of them did.
    """
    settings = bench.continuum
    made = make_hooks(hooks, settings.lora.adapter)
    if hook_state is not None:
        load_states(made, hook_state)
    fill_vision(bench, samples)
    vlm = bench.trainee(adapter, step)
    bench.forget_adapter()
    rows = [bench.encoder.encode(sample) for sample in samples]
    step_done = increments(progress)
    checkpoints = out.with_name(out.name + ".training")
    report = fit(
        vlm,
        rows,
        settings.training,
        vision=bench.vision,
        seed=seed,
        epochs=epochs,
        progress=lambda done, _total: step_done(done),
        optimizer_state=optimizer_state,
        hooks=made,
        place=Place(
            step=step,
            first=hook_state is None,
            adapter=settings.lora.adapter,
            new=None if new is None else tuple(sample.id in new for sample in samples),
            checkpoints=checkpoints,
            logs=out.with_name(out.name + ".logs"),
            name=f"{settings.name}-{step:02d}",
        ),
    )
    if made:
        with new_directory(out.with_name("hooks")) as part:
            save_states(made, part)
    with new_directory(out) as part:
        save_adapter(vlm, part)
        checksums.record(part, [part / WEIGHTS, part / CONFIG, *write_chain(part, bench.merged, out)])
    shutil.rmtree(checkpoints, ignore_errors=True)
    facts: Facts = {**asdict(report), "adapter_rule": settings.lora.adapter, "merged_adapters": len(bench.merged)}
    return facts | ({"hooks": {hook.name: hook.facts() for hook in made}} if made else {})


def evaluate_step(
    bench: Workbench, adapter: Path | None, tasks: Sequence[SkillTask], step: int, out: Path,
    progress: Progress | None = None,
) -> Facts:  # fmt: skip
    """Answer all evaluation questions with one checkpoint and write scores and predictions.

    Skills that are answered are kept in `out` until `forget_saved_skills`, so that a killed evaluation goes on.
    """
    settings = bench.continuum.evaluation
    vlm = bench.with_adapter(adapter)
    how = {
        "checkpoint": vlm.checkpoint_id,
        "template": bench.encoder.template_id,
        "dtype": bench.continuum.model.dtype,
        "max_new_tokens": settings.max_new_tokens,
    }
    saved = SavedSkills(out, tasks, how)
    fill_vision(bench, [sample for task in tasks if task.skill not in saved.known for sample in task.samples])
    if progress is not None:
        progress(sum(len(skill.predictions) for skill in saved.known.values()))
    result = evaluate(
        vlm,
        tasks,
        vision=bench.vision,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        encoder=bench.encoder,
        progress=progress,
        known=saved.known,
        save=saved.save,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "predictions.jsonl", result.predictions)
    write_json(out / "evaluation.json", {"step": step, "skills": result.skills})
    mean = sum(skill["score"] for skill in result.skills.values()) / max(1, len(result.skills))
    return {"skills": len(result.skills), "mean_score": mean}


def prune_step(pool: Pool, features: Path, labels: Path, keep: int, step: int, out: Path) -> Facts:
    """Cut the pool to size by removing, in each cluster, what is most like an older sample that stays or stayed.

    Args:
        pool: the pool; gets a commit and ledger entries.
        features: the feature store with ``embedding`` of every sample in the pool.
        labels: labels.parquet with the cluster of every sample.
        keep: samples that stay.
        step: who prunes.
        out: directory that gets prune.json and pruned.parquet.
    """
    ids, clusters = read_labels(labels)
    columns = FeatureStore(features).view(ids)
    if "embedding" not in columns:
        raise InputError(f"features: {features} has no embedding, only {', '.join(columns)}; pruning needs it")
    pruning = prune_semantically(columns["embedding"], clusters, keep)
    neighbours = [ids[n] if n >= 0 else None for n in pruning.neighbour[pruning.pruned]]
    similarity = pruning.similarity[pruning.pruned]
    pruned = pa.table(
        {
            "id": pa.array([ids[row] for row in pruning.pruned], pa.string()),
            "cluster": pa.array(clusters[pruning.pruned], pa.int64()),
            "neighbour": pa.array(neighbours, pa.string()),
            "similarity": pa.array(similarity, pa.float64(), mask=~np.isfinite(similarity)),
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "pruned.parquet", pruned)
    before = len(ids)
    version = pool.version
    if len(pruned):
        version = pool.remove(
            pruned["id"].to_pylist(), step=step, neighbours=pruned, message=f"step {step}: cut to {keep} samples"
        )
    facts = {"before": before, "pruned": len(pruned), "pool_size": len(pool), "pool_version": version, "keep": keep}
    write_json(out / "prune.json", facts)
    return facts


def increments(progress: Progress | None) -> Progress:
    """Turn calls with a running count into calls with what was just done."""
    last = 0

    def call(count: int) -> None:
        nonlocal last
        if progress is not None:
            progress(count - last)
        last = count

    return call

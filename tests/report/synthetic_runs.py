"""Made-up run directories that look like real ones: several methods on one continuum of six steps.

Run as a script to look at the report: `python tests/report/synthetic_runs.py OUT [ROWS]`.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw

from liit.data.pool import Pool
from liit.data.sample import ImageRef, Message, Sample

# step -> skill -> share of all rows
CONTINUUM = {
    "pictures": {"naming": 0.24, "category": 0.05, "colour": 0.04},
    "drawings": {"naming": 0.16, "describing": 0.10},
    "counting": {"count": 0.09, "existence": 0.07, "compare": 0.004},
    "reading": {"words": 0.06, "digits": 0.05, "spelling": 0.003},
    "boxes": {"box": 0.045, "boxes": 0.006},
    "languages": {"naming-ja": 0.03, "naming-es": 0.03, "same-or-different": 0.018, "knowledge": 0.0035},
}
METHODS = ("adapt-inf", "lite-adapt-inf", "replay", "sequential", "multitask")
EXPERTS = ("log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm")
_QUESTIONS = {
    "naming": ("What is this?", "a violet square"),
    "describing": (
        "Describe the drawing in one short sentence, please.",
        "A violet square on white ground, a little left.",
    ),
    "box": ("Where is the square?", '{"box": [12, 20, 48, 56]}'),
    "boxes": ("Where are the circles?", '{"boxes": [[1, 2, 20, 22], [30, 31, 50, 52]]}'),
    "naming-ja": ("これは何ですか。", "むらさきの四角"),
    "naming-es": ("¿Qué es esto?", "un cuadrado violeta"),
    "same-or-different": ("<image> <image> Same or different?", "different"),
    "knowledge": ("ペルーの首都はどこですか。", "リマ"),
}


def write_runs(
    root: Path, rows: int = 700, methods: tuple[str, ...] = METHODS, seed: int = 0, hostile: str = ""
) -> list[Path]:
    """Write one run directory per method and return them; `hostile` is appended to every text a data set controls."""
    samples = _samples(rows, np.random.default_rng(seed), hostile)
    return [_write_run(root / method, method, samples, rows // 12, seed, hostile) for method in methods]


def _samples(rows: int, rng: np.random.Generator, hostile: str) -> dict[str, list[Sample]]:
    pictures = [_picture(rng) for _ in range(40)]
    samples: dict[str, list[Sample]] = {}
    for source, skills in CONTINUUM.items():
        members = []
        for skill, share in skills.items():
            for i in range(max(2, round(share * rows))):
                question, answer = _QUESTIONS.get(
                    skill, (f"{skill.capitalize()}: what do you see?", f"{skill} {i % 9}")
                )
                images = (
                    () if skill == "knowledge" else tuple(rng.choice(len(pictures), 1 + (skill == "same-or-different")))
                )
                members.append(
                    Sample(
                        id=f"{source}-{skill}-{i}{hostile}",
                        messages=(
                            Message(
                                "user",
                                f"{'' if skill == 'same-or-different' else '<image>' * len(images)}{question}{hostile}",
                            ),
                            Message("assistant", answer + hostile),
                        ),
                        images=tuple(pictures[j] for j in images),
                        source=source + hostile,
                        skill=skill + hostile,
                    )
                )
        samples[source] = members
    return samples


def _picture(rng: np.random.Generator) -> ImageRef:
    picture = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.integers(4, 50, size=2)
        colour = tuple(int(v) for v in rng.integers(30, 230, size=3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x) + 38, int(y) + 38), fill=colour)
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return ImageRef("", hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())


def _write_run(path: Path, method: str, samples: dict[str, list[Sample]], budget: int, seed: int, hostile: str) -> Path:
    rng = np.random.default_rng([seed, METHODS.index(method)])
    path.mkdir(parents=True)
    pool = Pool.create(path / "pool")
    names = list(CONTINUUM)
    _write_heads(path, method, budget, seed, hostile)
    timings = [{"step": 0, "stage": "evaluate", "seconds": 4.1}]
    extractions = []
    accuracy = {skill: 0.08 + 0.2 * rng.random() for skill in _skills()}
    _write_evaluation(path / "steps" / "00-base", 0, accuracy, rng, hostile)
    for number, name in enumerate(names, start=1):
        step = path / "steps" / f"{number:02d}-{name}"
        step.mkdir(parents=True)
        report = pool.add(samples[name])
        _write_ingest(step, pool, report.added, number)
        timings.append({"step": number, "stage": "ingest", "seconds": 0.8})
        if method == "multitask" and number < len(names):
            continue
        clusters = _clusters(pool, rng) if "adapt" in method else None
        chosen = _choose(pool, method, name + hostile, budget, clusters, rng)
        _write_selection(step, pool, method, chosen, clusters, budget, rng, hostile)
        _learn(accuracy, method, pool, chosen, number, hostile)
        _write_evaluation(step, number, accuracy, rng, hostile)
        _dump(step / "train.json", {"samples": len(chosen), "epochs": 1, "loss_first": 2.1, "loss_last": 0.6})
        size = len(pool)
        if clusters is not None:
            timings.append({"step": number, "stage": "extract", "seconds": size / 900})
            facts = {"rows": size, "features": list(EXPERTS), "checkpoint": "x", "predicted": 0, "carried": 0}
            extractions.append({"step": number, "stage": "extract", **facts})
        timings += [{"step": number, "stage": "select", "seconds": 0.3}]
        timings += [{"step": number, "stage": "train", "seconds": len(chosen) / (budget / 11)}]
        timings += [{"step": number, "stage": "evaluate", "seconds": 4.4}]
        if method == "lite-adapt-inf" and clusters is not None and size > 6 * budget:
            _prune(step, pool, clusters, size - 6 * budget, number, rng)
            timings.append({"step": number, "stage": "prune", "seconds": 0.5})
    (path / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timings))
    _dump(path / "run.json", {**json.loads((path / "run.json").read_text()), "stages": extractions})
    return path


def _write_heads(path: Path, method: str, budget: int, seed: int, hostile: str) -> None:
    seen: set[str] = set()
    steps = []
    for name, skills in CONTINUUM.items():
        new = [skill for skill in skills if skill not in seen]
        seen.update(new)
        steps.append(
            {"name": name, "evaluation": [{"skill": skill + hostile, "metric": "exact-match"} for skill in new]}
        )
    config = {
        "name": f"demo{hostile}",
        "seed": seed,
        "budget": budget,
        "method": method,
        "model": {"path": "builtin:demo"},
        "steps": steps,
        "unseen": [{"skill": "riddles" + hostile, "metric": "exact-match"}],
    }
    (path / "continuum.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    state = {"liit": "0.1.0", "format": 1, "name": f"demo{hostile}", "method": method, "seed": seed}
    _dump(path / "run.json", {**state, "steps": [name + hostile for name in CONTINUUM], "stages": []})


def _skills() -> list[str]:
    return [*dict.fromkeys(skill for skills in CONTINUUM.values() for skill in skills), "riddles"]


def _write_ingest(step: Path, pool: Pool, added: int, number: int) -> None:
    bad = {"image missing": number, "no answer": 1} if number % 2 else {}
    document = {"added": added, "quarantined": sum(bad.values()), "reasons": bad, "duplicates": 3 * (number == 2)}
    document |= {"refused": {"x": "too long"} if number == 4 else {}, "leaked_rows": 0, "leaked_images": 2}
    _dump(step / "ingest.json", {**document, "pool_version": pool.version, "pool_size": len(pool)})


def _clusters(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """Clusters that mostly follow skills, as good gradient clusters do."""
    skills = np.unique(pool.columns(["skill"])["skill"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    labels = skills * 2 + rng.integers(0, 2, len(skills))
    noise = rng.random(len(labels)) < 0.15
    labels[noise] = rng.permutation(labels)[noise]
    return np.unique(labels, return_inverse=True)[1]


def _choose(
    pool: Pool, method: str, source: str, budget: int, clusters: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    rows = np.arange(len(pool))
    if method == "multitask":
        return rows
    if method == "sequential":
        rows = rows[np.array(pool.columns(["source"])["source"].to_pylist()) == source]
    if clusters is None:
        return np.sort(rng.permutation(rows)[:budget])
    queues = [list(rng.permutation(np.flatnonzero(clusters == c))) for c in range(clusters.max() + 1)]
    chosen: list[int] = []
    while len(chosen) < min(budget, len(rows)):
        chosen += [queue.pop() for queue in queues if queue][: budget - len(chosen)]
    return np.sort(chosen)


def _write_selection(
    step: Path,
    pool: Pool,
    method: str,
    chosen: np.ndarray,
    clusters: np.ndarray | None,
    budget: int,
    rng: np.random.Generator,
    hostile: str,
) -> None:
    entries = pool.columns(["id", "source", "skill"])
    info: dict[str, Any] = {"method": method, "budget": budget, "pool_size": len(pool), "trained": len(chosen)}
    experts = [None] * len(pool)
    if clusters is not None:
        info |= {"selector": "adapt-inf", "expert": "entropy", "without_gradient": 0}
        info |= {"k": 20, "curve": [{"k": k, "inertia": 900 / k**0.4 + 40} for k in range(5, 51, 5)], "clusters": []}
        for c in range(clusters.max() + 1):
            entropies = dict(zip(EXPERTS, (3 + 2 * rng.random(5)).round(3).tolist(), strict=True))
            expert = max(entropies, key=lambda name: entropies[name])
            loser = min(entropies, key=lambda name: entropies[name])
            entropies[loser] = None if c == 0 else entropies[loser]  # an expert that was not offered to this cluster
            members = np.flatnonzero(clusters == c)
            kept = int(np.isin(members, chosen).sum())
            info["clusters"].append(
                {"cluster": c, "size": len(members), "budget": kept, "expert": expert, "entropies": entropies}
            )
            for row in members:
                experts[row] = expert
        ids = entries["id"]
        pq.write_table(pa.table({"id": ids, "cluster": pa.array(clusters)}), step / "labels.parquet")
    scores = rng.normal(size=len(chosen)).round(3)
    reasons = [
        f"cluster 3 keeps 34 of 95; {experts[row] or 'random'} spreads most; drawn from stratum 7 of 50{hostile}"
        for row in chosen
    ]
    table = pa.table(
        {
            "id": entries["id"].take(pa.array(chosen)),
            "row": pa.array(chosen),
            "cluster": pa.array([-1] * len(chosen) if clusters is None else clusters[chosen]),
            "expert": pa.array([experts[row] for row in chosen], pa.string()),
            "score": pa.array(scores if clusters is not None else [None] * len(chosen), pa.float64()),
            "rank": pa.array(np.arange(len(chosen))),
            "reason": pa.array(reasons),
            "source": entries["source"].take(pa.array(chosen)),
            "skill": entries["skill"].take(pa.array(chosen)),
        }
    )
    pq.write_table(table, step / "selection.parquet")
    head = {name: info.pop(name) for name in ("method", "budget", "pool_size", "trained")}
    _dump(step / "selection.json", {**head, "selector": info})


def _learn(accuracy: dict[str, float], method: str, pool: Pool, chosen: np.ndarray, number: int, hostile: str) -> None:
    skills = [skill.removesuffix(hostile) for skill in pool.columns(["skill"])["skill"].to_pylist()]
    rows = [skills[row] for row in chosen]
    for skill in accuracy:
        share = rows.count(skill) / len(rows)
        reach = 0.97 * share**0.5 / (share**0.5 + (0.03 if method == "multitask" else 0.1))
        if share and reach > accuracy[skill]:
            accuracy[skill] += 0.8 * (reach - accuracy[skill])
        elif not share and number > 1:
            accuracy[skill] *= 0.62 if method == "sequential" else 0.9


def _write_evaluation(
    step: Path, number: int, accuracy: dict[str, float], rng: np.random.Generator, hostile: str
) -> None:
    step.mkdir(parents=True, exist_ok=True)
    skills, lines = {}, []
    for skill, mean in accuracy.items():
        right = rng.random(40) < mean
        wrong_form = int(rng.integers(0, 3)) if skill in {"box", "boxes"} else 0
        skills[skill + hostile] = {"metric": "exact-match", "score": right.mean(), "n": 40, "wrong_format": wrong_form}
        for i, ok in enumerate(right):
            row = {"skill": skill + hostile, "id": f"{skill}-{i}", "prediction": "x", "reference": "y"}
            lines.append(json.dumps({**row, "score": float(ok), "wrong_format": False}))
    _dump(step / "evaluation.json", {"step": number, "skills": skills})
    (step / "predictions.jsonl").write_text("\n".join(lines) + "\n")


def _prune(step: Path, pool: Pool, clusters: np.ndarray, count: int, number: int, rng: np.random.Generator) -> None:
    ids = pool.ids()
    largest = np.argsort(-np.bincount(clusters)[clusters], kind="stable")
    gone = largest[:count]
    neighbours = [ids[int(rng.choice(largest[count:]))] for _ in gone]
    table = pa.table(
        {
            "id": [ids[row] for row in gone],
            "cluster": pa.array(clusters[gone].astype(np.int64)),
            "neighbour": neighbours,
            "similarity": np.sort(1 - 0.3 * rng.random(count) ** 2)[::-1].copy(),
        }
    )
    pq.write_table(table, step / "pruned.parquet")
    pool.remove(table["id"].to_pylist(), step=number, neighbours=table)
    _dump(step / "prune.json", {"pruned": count, "pool_size": len(pool)})


def _dump(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))


if __name__ == "__main__":
    import shutil

    from liit.report import summary_table, to_text, write_report

    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    runs = write_runs(out, rows=int(sys.argv[2]) if len(sys.argv) > 2 else 12_000)
    print(to_text(summary_table(runs)))
    page = write_report(runs, out / "report.html")
    print(page, page.stat().st_size)

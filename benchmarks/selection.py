"""Speed and memory of selection and pruning, against scikit-learn and against the matrix-multiply rate of the machine.

    python benchmarks/selection.py                            100 000 rows, half a minute
    python benchmarks/selection.py --rows 100000 1000000 --prune-rows 200000         the size of the claim to be tested

Every measurement runs in a process of its own, so that its peak memory is its own. Ratios are taken inside one run, and
only ratios are claimed: absolute times depend on the machine and on who else uses it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GRID = tuple(range(5, 55, 5))
EXPERTS = ("log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm")
DIM = 512
SKILLS = 12
CLUSTERS = 20


def sketches(rows: int, seed: int = 0) -> np.ndarray:
    """Planted skills of uneven size in noise, float32, made in blocks so that making them is not the memory peak."""
    rng = np.random.default_rng(seed)
    centres = 0.5 * rng.standard_normal((SKILLS, DIM), dtype=np.float32)
    weights = 1.0 / np.arange(1, SKILLS + 1)
    skill = rng.choice(SKILLS, size=rows, p=weights / weights.sum())
    out = np.empty((rows, DIM), dtype=np.float32)
    for start in range(0, rows, 8192):
        part = slice(start, start + 8192)
        rng.standard_normal(out=out[part], dtype=np.float32)
        out[part] += centres[skill[part]]
    return out


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    before, wall, cpu = peak_mb(), time.perf_counter(), time.process_time()
    result = function()
    return result, {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_above_input_mb": peak_mb() - before,
    }


def run_select(rows: int) -> dict[str, Any]:
    """Adapt-infinity from sketches and scores to rows and reasons."""
    from liit.selection import select

    rng = np.random.default_rng(1)
    features: dict[str, Any] = {"gradient": sketches(rows), "id": np.arange(rows)}
    features |= {name: rng.gamma(2.0, 1.0, rows).astype(np.float32) for name in EXPERTS}
    select("adapt-inf", {name: column[:2000] for name, column in features.items()}, 10)  # imports and first touches
    selection, cost = measured(lambda: select("adapt-inf", features, min(25_000, rows // 4), k_grid=GRID))
    return cost | {"rows": rows, "k": selection.info["k"], "selected": len(selection)}


def run_grid(rows: int) -> dict[str, Any]:
    """The whole grid of k by liit."""
    from liit.selection.blocks import UnitRows
    from liit.selection.kmeans import cluster

    x = sketches(rows)
    cluster(UnitRows(x[:2000], "x"), grid=(2, 3))
    found, cost = measured(lambda: cluster(UnitRows(x, "x"), grid=GRID))
    return cost | {"rows": rows, "inertia": [point["inertia"] for point in found.curve]}


def run_sklearn(rows: int) -> dict[str, Any]:
    """One MiniBatchKMeans fit per k on normalised rows, as the official code of Adapt-infinity does it."""
    from sklearn.cluster import MiniBatchKMeans

    x = sketches(rows)
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def fits() -> list[float]:
        return [float(MiniBatchKMeans(k, batch_size=10_240, random_state=0).fit(x).inertia_) for k in GRID]

    inertia, cost = measured(fits)
    return cost | {"rows": rows, "inertia": inertia}


def run_prune(rows: int) -> dict[str, Any]:
    """Semantic pruning to half, and the float32 matrix-multiply rate of the same process."""
    from liit.pruning import semantic_prune

    x = sketches(rows)
    labels = np.random.default_rng(2).integers(CLUSTERS, size=rows)
    a = np.random.default_rng(3).standard_normal((2048, 2048), dtype=np.float32)
    a @ a
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        rates.append(2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    kept, cost = measured(lambda: semantic_prune(x, labels, rows // 2))
    sizes = np.bincount(labels).astype(float)
    rate = float((sizes**2).sum()) * DIM / cost["seconds"] / 1e9  # pairs i < j, two operations each
    return cost | {
        "rows": rows,
        "kept": len(kept),
        "gflops": rate,
        "gemm_gflops": float(np.median(rates)),
        "of_gemm": rate / float(np.median(rates)),
    }


def run_leverage(rows: int) -> dict[str, Any]:
    """Streaming leverage, and its distance from the full SVD on the first 4 000 rows."""
    from liit.selection import leverage

    x = sketches(rows)
    part = x[:4000].astype(np.float64)
    scores, k = leverage(x[:4000])
    u = np.linalg.svd(part - part.mean(axis=0), full_matrices=False)[0]
    worst = float(np.abs(scores - (u[:, :k] ** 2).sum(axis=1)).max())
    _, cost = measured(lambda: leverage(x))
    return cost | {"rows": rows, "worst_difference_from_svd": worst}


MEASUREMENTS = {
    "select": run_select,
    "grid": run_grid,
    "sklearn": run_sklearn,
    "prune": run_prune,
    "leverage": run_leverage,
}


def in_own_process(name: str, rows: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, "--rows", str(rows)]
    result: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{name:9} {rows:>9,} rows  {result['seconds']:8.2f} s  {result['peak_above_input_mb']:7.0f} MB above input")
    return result


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    first, last = results["select"][0], results["select"][-1]
    out: dict[str, Any] = {}
    if last["rows"] > first["rows"]:
        out["growth_exponent"] = math.log(last["seconds"] / first["seconds"]) / math.log(last["rows"] / first["rows"])
    out["select_peak_mb"] = max(r["peak_above_input_mb"] for r in results["select"])
    pairs = list(zip(results["grid"], results["sklearn"], strict=True))
    out["grid_speedup"] = [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]
    out["worst_inertia_ratio"] = [
        max(a / b for a, b in zip(ours["inertia"], theirs["inertia"], strict=True)) for ours, theirs in pairs
    ]
    out["prune_of_gemm"] = results["prune"][0]["of_gemm"]
    out["prune_peak_mb"] = results["prune"][0]["peak_above_input_mb"]
    out["leverage_worst_difference"] = max(r["worst_difference_from_svd"] for r in results["leverage"])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="pool sizes, rising")
    parser.add_argument("--prune-rows", type=int, default=40_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASUREMENTS[options.measure](options.rows[0])))
        return
    results = {
        name: [in_own_process(name, rows) for rows in options.rows]
        for name in ("select", "grid", "sklearn", "leverage")
    }
    results["prune"] = [in_own_process("prune", options.prune_rows)]
    claims = summary(results)
    for name, value in claims.items():
        print(f"{name:26} {value if not isinstance(value, list) else ', '.join(f'{v:.3f}' for v in value)}")
    machine = {"cpu_count": os.cpu_count(), "machine": platform.machine(), "numpy": np.__version__, "dim": DIM}
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ}
    record = {"machine": machine | threads, "summary": claims, "measurements": results}
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()

"""Speed and memory of selection and pruning, against scikit-learn and against the matrix-multiply rate of the machine.

    python benchmarks/selection.py                            20 000 and 100 000 rows, some minutes
    python benchmarks/selection.py --rows 100000 1000000 --prune-rows 200000 --rounds 3 --write     what the page shows

Linux only (it reads memory from /proc). Every measurement runs in a process of its own, so that its peak memory is its
own, and everything that is compared with something runs beside it: in the same process, or in the next one of the same
round. Wall time and CPU time are kept; ratios of medians over the rounds are claimed and no absolute times, which
depend on the machine and on who else uses it. With --write the table goes into docs/selection.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "selection.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "selection.md"
BEGIN, END = "<!-- measured by benchmarks/selection.py -->", "<!-- end -->"

GRID = tuple(range(5, 55, 5))
EXPERTS = ("log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm")
DIM = 512
SKILLS = 12
CLUSTERS = 20
MEMORY = (64 << 20, 256 << 20)
REFERENCE_ROWS = 5000
SVD_ROWS = 10_000

Measurement = dict[str, Any]


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


def memory_mb(field: str) -> float:
    """VmRSS, what the process holds now, or VmHWM, the most it held since the last reset."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) / 1024


def measured(function: Callable[[], Any]) -> tuple[Any, Measurement]:
    """The result, and what it cost; the peak is what the process held at most, above what it held before the call."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is used now
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, wall, cpu = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    result = function()
    return result, {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_above_input_mb": memory_mb("VmHWM") - before,
    }


def run_select(rows: int) -> Measurement:
    """Adapt-infinity in one call: k-means for every k, experts, allocation, sampling, and the reasons."""
    from liit.selection import select

    rng = np.random.default_rng(1)
    features: dict[str, Any] = {"gradient": sketches(rows), "id": np.arange(rows)}
    features |= {name: rng.gamma(2.0, 1.0, rows).astype(np.float32) for name in EXPERTS}
    select("adapt-inf", {name: column[:2000] for name, column in features.items()}, 10)  # imports and first touches
    selection, cost = measured(lambda: select("adapt-inf", features, min(25_000, rows // 4), k_grid=GRID))
    return cost | {"k": selection.info["k"], "selected": len(selection)}


def run_grid(rows: int) -> Measurement:
    """The whole grid of k by liit, then one MiniBatchKMeans fit per k as Adapt-infinity's official code has it."""
    from sklearn.cluster import MiniBatchKMeans

    from liit.selection.blocks import UnitRows
    from liit.selection.kmeans import cluster

    x = sketches(rows)
    cluster(UnitRows(x[:2000], "x"), grid=(2, 3))
    found, ours = measured(lambda: cluster(UnitRows(x, "x"), grid=GRID))
    x /= np.linalg.norm(x, axis=1, keepdims=True)  # theirs is given unit rows, at no cost to it
    MiniBatchKMeans(3, batch_size=10_240, random_state=0).fit(x[:2000])
    inertia, theirs = measured(
        lambda: [float(MiniBatchKMeans(k, batch_size=10_240, random_state=0).fit(x).inertia_) for k in GRID]
    )
    return ours | {
        "inertia": [point["inertia"] for point in found.curve],
        "sklearn_seconds": theirs["seconds"],
        "sklearn_cpu_seconds": theirs["cpu_seconds"],
        "sklearn_inertia": inertia,
    }


def multiply_rate(seconds: float = 2.0) -> dict[str, float]:
    """float32 matrix products of 4096 x 512 by 512 x 4096 for a while: GFLOP per second of wall and of CPU time."""
    a = np.random.default_rng(3).standard_normal((4096, DIM), dtype=np.float32)
    a @ a.T
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        a @ a.T
        count += 1
    flop = count * 2 * 4096**2 * DIM / 1e9
    return {"wall": flop / (time.perf_counter() - wall), "cpu": flop / (time.process_time() - cpu)}


def kept_by_the_quadratic_rule(x: np.ndarray, labels: np.ndarray, keep: int) -> np.ndarray:
    """SemDeDup's rule with the whole table of cosines of each cluster, float64."""
    from liit.selection import allocate

    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept = []
    for c, share in enumerate(allocate(np.bincount(labels), keep)):
        rows = np.flatnonzero(labels == c)
        cosine = np.where(np.tri(len(rows), k=-1, dtype=bool), unit[rows] @ unit[rows].T, -np.inf)
        kept.append(rows[np.argsort(cosine.max(axis=1), kind="stable")[:share]])
    return np.sort(np.concatenate(kept))


def run_prune(rows: int) -> Measurement:
    """Semantic pruning to half under two memory settings, between runs of plain matrix products."""
    from liit.pruning import semantic_prune

    x = sketches(rows)
    labels = np.random.default_rng(2).integers(CLUSTERS, size=rows)
    flop = float((np.bincount(labels).astype(float) ** 2).sum()) * DIM / 1e9  # pairs i < j, two operations each
    semantic_prune(x[:2000], labels[:2000], 1000)
    rates, out, kept = [multiply_rate()], [], []
    for memory in MEMORY:
        rows_kept, cost = measured(lambda memory=memory: semantic_prune(x, labels, rows // 2, memory=memory))
        rates.append(multiply_rate())
        kept.append(rows_kept)
        around = [(rates[-2][clock] + rates[-1][clock]) / 2 for clock in ("wall", "cpu")]
        shares = {
            "of_multiply": flop / cost["seconds"] / around[0],
            "of_multiply_cpu": flop / cost["cpu_seconds"] / around[1],
        }
        out.append(cost | shares | {"memory_mb": memory / 2**20})
    few, small = REFERENCE_ROWS, labels[:REFERENCE_ROWS]
    expected = kept_by_the_quadratic_rule(x[:few], small, few // 2)
    return {
        "kept": len(kept[0]),
        "settings": out,
        "settings_agree": bool(np.array_equal(*kept)),
        "equals_reference": bool(np.array_equal(semantic_prune(x[:few], small, few // 2), expected)),
    }


def run_leverage(rows: int) -> Measurement:
    """Streaming leverage, and its distance from the full SVD on the first 10 000 rows."""
    from liit.selection import leverage

    x = sketches(rows)
    part = x[:SVD_ROWS].astype(np.float64)
    scores, k = leverage(x[:SVD_ROWS])
    u = np.linalg.svd(part - part.mean(axis=0), full_matrices=False)[0]
    worst = float(np.abs(scores - (u[:, :k] ** 2).sum(axis=1)).max())
    _, cost = measured(lambda: leverage(x))
    return cost | {"worst_difference_from_svd": worst}


MEASUREMENTS = {"select": run_select, "grid": run_grid, "prune": run_prune, "leverage": run_leverage}


def in_own_process(name: str, rows: int, threads: int) -> Measurement:
    command = [sys.executable, __file__, "--measure", name, "--rows", str(rows)]
    count = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(command, env=os.environ | count, stdout=subprocess.PIPE, text=True, check=True)
    result: Measurement = {"rows": rows, "threads": threads} | json.loads(done.stdout)
    shown = {k: f"{v:.2f}" for k, v in result.items() if isinstance(v, float)}
    print(f"{name:9} {rows:>9,} rows, {threads} threads  {shown or result}", flush=True)
    return result


def summary(results: dict[str, list[Measurement]]) -> dict[str, Any]:
    """What is claimed: medians over the rounds, CPU time of one thread and wall time of the most threads."""
    most = max(m["threads"] for m in results["select"])
    sizes = sorted({m["rows"] for m in results["select"]})

    def of(name: str, key: str, rows: int, threads: int) -> float:
        return median(m[key] for m in results[name] if m["rows"] == rows and m["threads"] == threads)

    def growth(key: str, threads: int) -> float:
        times = [of("select", key, n, threads) for n in (sizes[0], sizes[-1])]
        return math.log(times[1] / times[0]) / math.log(sizes[-1] / sizes[0])

    def ratio(key: str, rows: int, threads: int) -> float:
        return of("grid", f"sklearn_{key}", rows, threads) / of("grid", key, rows, threads)

    def worst_inertia(rows: int) -> float:
        pairs = [zip(m["inertia"], m["sklearn_inertia"], strict=True) for m in results["grid"] if m["rows"] == rows]
        return max(ours / theirs for pair in pairs for ours, theirs in pair)

    def setting(i: int) -> dict[str, float]:
        runs = [(m["threads"], m["settings"][i]) for m in results["prune"]]
        return {
            "memory_mb": runs[0][1]["memory_mb"],
            "peak_above_input_mb": max(run["peak_above_input_mb"] for _, run in runs),
            "of_multiply_cpu": median(run["of_multiply_cpu"] for threads, run in runs if threads == 1),
            "of_multiply_wall": median(run["of_multiply"] for threads, run in runs if threads == most),
        }

    out = {
        "rows": sizes,
        "prune_rows": results["prune"][0]["rows"],
        "threads": most,
        "rounds": sum(m["threads"] == most and m["rows"] == sizes[-1] for m in results["grid"]),
        "select_peak_mb": {
            n: max(m["peak_above_input_mb"] for m in results["select"] if m["rows"] == n) for n in sizes
        },
        "growth_exponent": {"cpu": growth("cpu_seconds", 1), "wall": growth("seconds", most)},
        "speedup": {n: {"cpu": ratio("cpu_seconds", n, 1), "wall": ratio("seconds", n, most)} for n in sizes},
        "worst_inertia_ratio": {n: worst_inertia(n) for n in sizes},
        "prune": [setting(i) for i in range(len(MEMORY))],
        "prune_equals_reference": all(m["equals_reference"] and m["settings_agree"] for m in results["prune"]),
        "leverage_worst_difference": max(m["worst_difference_from_svd"] for m in results["leverage"]),
    }
    return dict(json.loads(json.dumps(out)))  # keys become strings, as they are read back


def spaced(rows: int) -> str:
    return f"{rows:,}".replace(",", " ")


def markdown(claims: dict[str, Any]) -> str:
    """The table of docs/selection.md."""
    small, large = spaced(claims["rows"][0]), spaced(claims["rows"][-1])

    def both(cpu: str, wall: str) -> str:
        """Wall time of one thread says nothing beside its CPU time."""
        return f"{cpu} (CPU)" + (f", {wall} (wall, {claims['threads']} threads)" if claims["threads"] > 1 else "")

    grown, peak = claims["growth_exponent"], claims["select_peak_mb"][str(claims["rows"][-1])]
    lines = [
        ("what, on rows of 512 float32", "measured", "wanted"),
        ("---", "---", "---"),
        (f"`adapt-inf` in one call, {large} rows: peak memory above the input", f"{peak:.0f} MB", "1 GB"),
        (
            f"its time from {small} to {large} rows grows with N to the power of",
            both(f"{grown['cpu']:.2f}", f"{grown['wall']:.2f}"),
            "1.1",
        ),
    ]
    for n in claims["rows"]:
        faster, inertia = claims["speedup"][str(n)], claims["worst_inertia_ratio"][str(n)]
        lines += [
            (
                f"k-means for 10 values of k, {spaced(n)} rows: faster than 10 `MiniBatchKMeans` fits",
                both(f"{faster['cpu']:.1f} times", f"{faster['wall']:.1f} times"),
                "5 times",
            ),
            (f"its inertia over theirs, worst k, {spaced(n)} rows", f"{inertia:.3f}", "1.02"),
        ]
    for setting in claims["prune"]:
        what = f"`semantic_prune` of {spaced(claims['prune_rows'])} rows in {CLUSTERS} clusters to half"
        memory = f"`memory` {setting['memory_mb']:.0f} MB"
        cpu, wall = (f"{100 * setting[f'of_multiply_{clock}']:.0f} %" for clock in ("cpu", "wall"))
        lines += [
            (f"{what}, {memory}: of the rate of matrix products", both(cpu, wall), "50 %"),
            (f"its peak memory above the input, {memory}", f"{setting['peak_above_input_mb']:.0f} MB", "bounded"),
        ]
    same = "yes" if claims["prune_equals_reference"] else "no"
    far = f"{claims['leverage_worst_difference']:.0e}"
    lines += [
        (f"its rows are those of the quadratic rule on {spaced(REFERENCE_ROWS)} rows, in every run", same, "yes"),
        (f"`leverage` in two passes: largest difference from the full SVD of {spaced(SVD_ROWS)} rows", far, "1e-06"),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000], help="pool sizes, rising")
    parser.add_argument("--prune-rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, help="where to put the JSON; default: nowhere, with --write the results")
    parser.add_argument("--write", action="store_true", help="keep the JSON and put the table into the page")
    parser.add_argument("--add", action="store_true", help="add to the measurements that the JSON holds")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASUREMENTS[options.measure](options.rows[0])))
        return
    out = RESULTS if options.write else options.out
    results: dict[str, list[Measurement]] = {name: [] for name in MEASUREMENTS}
    if options.add and out:
        results = json.loads(out.read_text())["measurements"]
    for _ in range(options.rounds):
        for threads in options.threads:
            for name in ("select", "grid", "leverage"):
                results[name] += [in_own_process(name, rows, threads) for rows in options.rows]
            results["prune"].append(in_own_process("prune", options.prune_rows, threads))
    claims = summary(results)
    print(markdown(claims))
    machine = {"cpu_count": os.cpu_count(), "machine": platform.machine(), "numpy": np.__version__, "dim": DIM}
    record = json.dumps({"machine": machine, "summary": claims, "measurements": results}, indent=2) + "\n"
    if out:
        out.write_text(record)
        print(f"written to {out}")
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{markdown(claims)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()

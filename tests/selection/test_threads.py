"""The number of BLAS threads decides nothing: each method run in a fresh process with one thread and with two."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import hashlib
import numpy as np
from liit.pruning import prune_semantically
from liit.selection.blocks import product
from liit.selection import select, spherical_kmeans

rng = np.random.default_rng(0)
# plain ones depend on it, in part
for n, m, d in ((300, 300, 700), (600, 30, 700), (30, 600, 700), (100, 100, 64), (40, 9, 3000)):
    for dtype in (np.float32, np.float64):
        a, b = (rng.normal(size=(rows, d)).astype(dtype) for rows in (n, m))
        print(hashlib.sha256(product(a, b).tobytes()).hexdigest())
n, d = 300, 700
x = (rng.normal(size=(8, d))[rng.integers(8, size=n)] + 2 * rng.normal(size=(n, d))).astype(np.float32)
features = {name: x for name in ("gradient", "embedding", "last_hidden_weighted", "instructed_vision")}
features |= {"id": np.arange(n), "el2n": rng.normal(size=n), "entropy": rng.normal(size=n)}
queries = rng.normal(size=(9, d)).astype(np.float32)
for name in ("adapt-inf", "semdedup", "density", "coincide", "scalselect"):
    print(name, hashlib.sha256(select(name, features, 90).rows.tobytes()).hexdigest())
for name in ("rds-plus", "gist", "less"):
    print(name, hashlib.sha256(select(name, features, 90, queries=queries).rows.tobytes()).hexdigest())
print(spherical_kmeans(x).labels.sum(), hashlib.sha256(spherical_kmeans(x, 7).labels.tobytes()).hexdigest())
for name in ("scalselect", "coincide", "density"):
    print(hashlib.sha256(select(name, features, 90, compat="official").rows.tobytes()).hexdigest())
print(hashlib.sha256(prune_semantically(x, rng.integers(4, size=n), 150).similarity.tobytes()).hexdigest())
"""


def run(threads: int) -> str:
    count = str(threads)
    environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), count)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_thread_count_does_not_matter() -> None:
    assert run(1) == run(2)

"""Random, balanced over sources: the baseline that the RDS+ paper shows to beat most methods at scale."""

from __future__ import annotations

import numpy as np

from liit.selection.arrays import numbered_labels
from liit.selection.budget import allocate
from liit.selection.clusters import cluster_members
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector("random-balanced", needs=("source",), description="even budgets over sources, uniform inside each")
def random_balanced(problem: Problem) -> Choice:
    """Even budgets over the sources (`features["source"]`, N labels), a uniform draw inside each.

    Raises:
        InputError: `source` is not one label per row.
    """
    labels, found = numbered_labels(problem.column("source"), "source", problem.n)
    names = [str(name) for name in found]
    sizes = np.bincount(labels, minlength=len(names))
    shares = allocate(sizes, problem.budget)
    draws = problem.draws(0)
    chosen = [m[np.argsort(draws[m], kind="stable")][:s] for m, s in zip(cluster_members(labels), shares, strict=True)]
    texts = [f"source {n} keeps {s} of {size}" for n, s, size in zip(names, shares, sizes, strict=True)]
    return Choice(
        chosen=np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64),
        why=lambda at: [f"{texts[labels[p]]}; drawn uniformly" for p in at],
        why_not=lambda at: [f"{texts[labels[p]]}; not drawn" for p in at],
        info={"budgets": dict(zip(names, shares.tolist(), strict=True))},
    )

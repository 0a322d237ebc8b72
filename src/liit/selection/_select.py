"""`select`: one call for every method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from liit.errors import InputError
from liit.selection.options import one_of
from liit.selection.problem import Problem
from liit.selection.registry import check_options, find_selector
from liit.selection.result import Selection, finish


def select(
    name: str, features: Mapping[str, Any], budget: int, seed: int = 0, *, explain: str = "kept", **options: Any
) -> Selection:
    """Choose rows from their features; no model, no disk.

    The same features, budget, seed and options give the same rows whatever the order of the rows, the width of the
    floats or the number of threads: everything random and every tie follows the ids. Without ids randomness follows the
    content of the rows and ties follow the row number.

    Args:
        name: the method; `selectors()` lists them.
        features: columns by name, N rows each: scalars [N], vectors [N, d], optionally `id` (strings or whole numbers,
            unique). float16, float32 or float64; NaN marks a missing value (for a vector: anywhere in it).
        budget: rows to select, 0 or more; one above N selects all.
        seed: seed of everything random.
        explain: "kept" explains the selected rows in `Selection.table`; "all" also those left out.
        **options: the method's own, see `selectors()[name].options` and its documentation.

    Returns:
        A `Selection` of exactly min(budget, N) unique rows.

    Raises:
        InputError: (a `ValueError`) unknown method or option, missing features, or malformed input; one line that says
            what was given and what was expected.
    """
    selector = find_selector(name)
    check_options(selector, options)
    one_of(explain, "explain", ("kept", "all"))
    problem = Problem(features, budget, seed)
    missing = [need for need in selector.needs if need not in problem]
    if missing:
        given = ", ".join(map(str, features)) or "none"
        raise InputError(f"{name} needs the features {', '.join(missing)}, which are not there; features has {given}")
    choice = selector.function(problem, **options)
    if len(choice.chosen) != problem.budget or len(np.unique(choice.chosen)) != problem.budget:
        raise RuntimeError(f"selector {name} returned {len(choice.chosen)} rows for a budget of {problem.budget}")
    choice.info = {"selector": name, "budget": problem.budget, "rows": problem.n, "seed": problem.seed} | choice.info
    return finish(problem, choice, explain == "all")

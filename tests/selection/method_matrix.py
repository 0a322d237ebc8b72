"""Every selector with the options under which it is tested; a new one joins by itself, or by a row with its options."""

from __future__ import annotations

from typing import Any

import numpy as np

from liit.selection import selectors

QUERIES = {name: np.random.default_rng(9).normal(size=(5, 6)) * 2 for name in ("gradient", "last_hidden_weighted")}

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "rds-plus": [
        {"queries": QUERIES},
        {"queries": QUERIES, "groups": [0, 0, 1, 1, 2]},
        {"queries": QUERIES, "spend_turn": False, "memory": 1},
        {"queries": QUERIES, "mode": "max"},
        {"queries": QUERIES, "mode": "mean-max", "groups": list("aabbc")},
    ],
    "gist": [{"queries": QUERIES}, {"queries": QUERIES, "groups": list("aabbc"), "aggregate": "subtask", "rank": 2}],
    "less": [{"queries": QUERIES}, {"queries": QUERIES, "groups": list("aabbc")}],
    "scalselect": [{}, {"energy": 1.0}, {"compat": "official"}],
    "semdedup": [{}, {"k": 2, "memory": 1}, {"k": 3, "order": "centroid"}],
    "density": [{}, {"k": 3, "compat": "official"}],
    "coincide": [{}, {"k": 4}, {"k": 3, "compat": "official"}],
    "replay": [{}, {"share": 0.25}],
    "perplexity": [{}, {"where": "middle"}, {"where": "bottom"}, {"stratified": True}],
    "adapt-inf-embedding": [{}, {"expert": "mixture", "k": 3}],
    "adapt-inf": [{}, {"expert": "rank-average"}, {"expert": "mixture", "k": 3}, {"compat": "official", "k": 2}],
}
CASES = [(name, options) for name in tuple(selectors()) for options in VARIANTS.get(name, [{}])]

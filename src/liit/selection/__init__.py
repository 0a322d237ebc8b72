"""Selection: pure functions from features and a budget to rows and reasons."""

from __future__ import annotations

from liit.selection import (  # noqa: F401  (importing a module registers its selectors)
    adapt_inf_embedding,
    adapt_infinity,
    all_rows,
    coincide,
    density,
    el2n,
    entropy,
    grad_norm,
    image_grounding,
    length,
    new_only,
    perplexity,
    random_balanced,
    random_draw,
    replay,
    semdedup,
)
from liit.selection._experts import ExpertInfo, experts, register_expert
from liit.selection._select import select
from liit.selection.budget import allocate
from liit.selection.clusters import spherical_kmeans
from liit.selection.gist import gist_scores
from liit.selection.kmeans import Clustering
from liit.selection.less import adam_direction
from liit.selection.problem import Problem
from liit.selection.rds_plus import round_robin
from liit.selection.registry import SelectorInfo, register_selector, selectors
from liit.selection.result import Choice, Selection
from liit.selection.sampling import score_entropy, stratified_sample
from liit.selection.scalselect import leverage

__all__ = [
    "Choice",
    "Clustering",
    "ExpertInfo",
    "Problem",
    "Selection",
    "SelectorInfo",
    "adam_direction",
    "allocate",
    "experts",
    "gist_scores",
    "leverage",
    "register_expert",
    "register_selector",
    "round_robin",
    "score_entropy",
    "select",
    "selectors",
    "spherical_kmeans",
    "stratified_sample",
]

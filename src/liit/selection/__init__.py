"""Selection: pure functions from features and a budget to rows and reasons."""

from __future__ import annotations

from liit.selection import adapt_infinity, uniform  # noqa: F401  (importing a module registers its selectors)
from liit.selection._experts import ExpertInfo, experts, register_expert
from liit.selection._select import select
from liit.selection.budget import allocate
from liit.selection.problem import Problem
from liit.selection.registry import SelectorInfo, register_selector, selectors
from liit.selection.result import Choice, Selection
from liit.selection.sampling import score_entropy, stratified_sample

__all__ = [
    "Choice",
    "ExpertInfo",
    "Problem",
    "Selection",
    "SelectorInfo",
    "allocate",
    "experts",
    "register_expert",
    "register_selector",
    "score_entropy",
    "select",
    "selectors",
    "stratified_sample",
]

"""Selection: pure functions from features and a budget to rows and reasons."""

from __future__ import annotations

from liit.selection import adapt_infinity, uniform
from liit.selection.budget import allocate
from liit.selection.experts import ExpertInfo, experts, register_expert
from liit.selection.problem import Problem
from liit.selection.registry import SelectorInfo, register_selector, selectors
from liit.selection.result import Choice, Selection
from liit.selection.sampling import score_entropy, stratified_sample
from liit.selection.select import select

__all__ = [
    "Choice",
    "ExpertInfo",
    "Problem",
    "Selection",
    "SelectorInfo",
    "adapt_infinity",
    "allocate",
    "experts",
    "register_expert",
    "register_selector",
    "score_entropy",
    "select",
    "selectors",
    "stratified_sample",
    "uniform",
]

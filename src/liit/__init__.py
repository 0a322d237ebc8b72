"""Lifelong instruction tuning of vision-language models.

Names are imported when they are first used, so that `import liit` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "InputError": "liit.errors",
    "select": "liit.selection",
    "selectors": "liit.selection",
    "Selection": "liit.selection",
    "register_selector": "liit.selection",
    "register_expert": "liit.selection",
    "allocate": "liit.selection",
    "stratified_sample": "liit.selection",
    "score_entropy": "liit.selection",
    "leverage": "liit.selection",
    "round_robin": "liit.selection",
    "gist_scores": "liit.selection",
    "semantic_prune": "liit.pruning",
    "Sample": "liit.data",
    "Pool": "liit.data.pool",
    "extract": "liit.features",
    "FeatureStore": "liit.features",
    "load_vlm": "liit.model.vlm",
    "Continuum": "liit.config",
    "load_config": "liit.config",
    "run": "liit.lifelong",
    "compare": "liit.lifelong.compare",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from liit.config import Continuum as Continuum
    from liit.config import load_config as load_config
    from liit.data import Sample as Sample
    from liit.data.pool import Pool as Pool
    from liit.errors import InputError as InputError
    from liit.features import FeatureStore as FeatureStore
    from liit.features import extract as extract
    from liit.lifelong import run as run
    from liit.lifelong.compare import compare as compare
    from liit.model.vlm import load_vlm as load_vlm
    from liit.pruning import semantic_prune as semantic_prune
    from liit.selection import Selection as Selection
    from liit.selection import allocate as allocate
    from liit.selection import gist_scores as gist_scores
    from liit.selection import leverage as leverage
    from liit.selection import register_expert as register_expert
    from liit.selection import register_selector as register_selector
    from liit.selection import round_robin as round_robin
    from liit.selection import score_entropy as score_entropy
    from liit.selection import select as select
    from liit.selection import selectors as selectors
    from liit.selection import stratified_sample as stratified_sample


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'liit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

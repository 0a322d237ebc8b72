"""Evaluation rows for what the base model knows and no step teaches: does it survive the continuum?"""

from __future__ import annotations

from liit.demo.continuum import base_mix
from liit.demo.continuum.plan import UNSEEN, quota
from liit.demo.continuum.rows import Row, Split, stream
from liit.demo.continuum.store import ImageStore


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return evaluation rows made as the base mix makes its own, from other random numbers.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: Which rows to make.
    """
    rng = stream(seed, split, "unseen")
    want = quota(split)
    makers = {
        "general-naming": base_mix.naming,
        "general-caption": base_mix.caption,
        "general-reading": base_mix.reading,
        "general-count": base_mix.counting,
    }
    return [
        row for skill in UNSEEN for row in makers[skill.name](store, rng, split, want[skill.name], want[skill.name])
    ]

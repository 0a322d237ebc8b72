"""Adapt-infinity's rule on hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from liit.errors import InputError
from liit.selection import select


def test_it_is_adapt_inf_with_the_embedding_in_the_gradient_s_place(make_features: Callable[..., Any]) -> None:
    features = make_features(300)
    ours = select("adapt-inf-embedding", features, 60, k=4, experts=["el2n", "entropy"])
    swapped = select("adapt-inf", features | {"gradient": features["embedding"]}, 60, k=4, experts=["el2n", "entropy"])
    assert ours.rows.tolist() == swapped.rows.tolist()
    assert ours.table.equals(swapped.table)
    assert ours.rows.tolist() != select("adapt-inf", features, 60, k=4, experts=["el2n", "entropy"]).rows.tolist()


def test_it_reads_no_gradient_and_counts_rows_without_an_embedding(make_features: Callable[..., Any]) -> None:
    features = make_features(100)
    del features["gradient"]
    features["embedding"][:7] = np.nan
    selection = select("adapt-inf-embedding", features, 30)
    assert len(selection) == 30
    assert selection.info["without_embedding"] == 7
    del features["embedding"]
    with pytest.raises(InputError, match="needs the features embedding"):
        select("adapt-inf-embedding", features, 30)

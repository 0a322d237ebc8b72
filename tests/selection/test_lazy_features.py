"""Features may be any mapping; one that reads from disk, as a feature store does, is asked only for what is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from method_matrix import CASES

from liit.selection import select, selectors

Features = dict[str, np.ndarray]


class Shelf(Mapping[str, np.ndarray]):
    """Remembers which columns were read, and how often."""

    def __init__(self, columns: Features) -> None:
        self.columns, self.read = columns, list[str]()

    def __getitem__(self, name: str) -> np.ndarray:
        self.read.append(name)
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_each_column_that_a_method_needs_is_read_once_and_no_other(
    name: str, options: dict[str, Any], make_features: Callable[..., Features]
) -> None:
    features = make_features(40, 2, "missing")
    shelf = Shelf(features)
    assert select(name, shelf, 15, **options).table.equals(select(name, features, 15, **options).table)
    assert len(shelf.read) == len(set(shelf.read))
    assert set(shelf.read) <= {"id", *selectors()[name].needs, *selectors()[name].reads}
    with pytest.raises(ValueError, match="el2n must have 40 rows"):
        select("el2n", Shelf(features | {"el2n": features["el2n"][:7]}), 5)


def test_a_selection_from_a_memory_mapped_matrix_is_that_from_memory(tmp_path: Any) -> None:
    x = np.random.default_rng(0).normal(size=(300, 9)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    ids = np.random.default_rng(1).permutation(300)
    for name in ("semdedup", "density", "coincide"):
        first, second = (select(name, {"id": ids, "embedding": m}, 120).rows for m in (x, mapped))
        assert np.array_equal(first, second)

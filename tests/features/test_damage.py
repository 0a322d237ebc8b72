"""A feature store whose bytes have changed on the disk is refused, and goes on once they are put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liit.errors import InputError
from liit.features import FeatureStore
from liit.features.key import FeatureKey
from liit.features.table import FeatureTable

KEY = FeatureKey({"checkpoint": "a"}, {"el2n": {}})


def fill(path: Path) -> FeatureTable:
    table = FeatureTable(path, KEY)
    for first in range(0, 200, 100):
        ids = [str(number) for number in range(first, first + 100)]
        table.append(ids, ids, {"el2n": np.arange(first, first + 100, dtype=np.float32)})
    return table


def test_a_changed_byte_of_a_page_or_a_version_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "f")
    before = FeatureStore(tmp_path / "f")["el2n"]
    files = [*sorted((tmp_path / "f/data").iterdir()), min((tmp_path / "f/_versions").glob("*.manifest"))]
    assert len(files) == 3
    for file in files:
        data = file.read_bytes()
        for at in (0, len(data) // 8, len(data) // 2):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(InputError, match=f"{file.name}' is damaged"):
                FeatureStore(tmp_path / "f")["el2n"]
        file.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match="damaged"):
            FeatureStore(tmp_path / "f")["el2n"]
        file.write_bytes(data)
    assert FeatureStore(tmp_path / "f")["el2n"].tobytes() == before.tobytes()


def test_a_table_that_is_made_anew_has_sums_of_its_own(tmp_path: Path) -> None:
    fill(tmp_path / "f").destroy()
    fill(tmp_path / "f").delete(["3"])
    assert len(FeatureStore(tmp_path / "f")["el2n"]) == 199

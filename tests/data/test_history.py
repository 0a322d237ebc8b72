from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from liit.data.history import whereabouts
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.data.sample import Message, Sample
from liit.errors import InputError


def samples(*names: str, source: str = "s") -> list[Sample]:
    return [Sample(n, (Message("user", f"{n}?"), Message("assistant", "a")), source=source) for n in names]


@pytest.fixture
def changed(pool: Pool) -> Pool:
    """Versions 2: a b c; 3: and d of another source; 4: without b and d."""
    pool.add(samples("a", "b", "c"), message="first")
    pool.add(samples("d", source="t"), message="second")
    why = pa.table({"id": ["b", "d"], "cluster": [4, 5], "neighbour": ["a", None], "similarity": [0.75, None]})
    pool.remove(["b", "d"], step=1, neighbours=why, message="cut")
    return pool


def test_the_difference_names_what_came_and_what_went_and_why(changed: Pool) -> None:
    found = changed.difference(2, 4)
    assert (found.rows, found.added.to_pylist()) == ((3, 2), [])
    assert found.removed.to_pylist() == [
        {"id": "b", "source": "s", "step": "1", "cluster": 4, "neighbour": "a", "similarity": 0.75, "reason": None}
    ]
    back = changed.difference(4, 3)
    assert back.added["id"].to_pylist() == ["b", "d"]
    assert back.by_source("added") == {"s": 1, "t": 1}
    assert changed.difference(1, 3).by_source("added") == {"s": 3, "t": 1}
    same = changed.difference(3, 3)
    assert (same.added.num_rows, same.removed.num_rows) == (0, 0)


def test_a_restore_is_seen_as_rows_that_came_back(changed: Pool) -> None:
    changed.restore(3)
    assert changed.difference(4, 5).added["id"].to_pylist() == ["b", "d"]
    assert changed.difference(3, 5).added.num_rows == changed.difference(3, 5).removed.num_rows == 0


def test_versions_that_are_not_there_are_named(changed: Pool) -> None:
    for pair in ((0, 1), (1, 9)):
        with pytest.raises(InputError, match="expected 1 to 4"):
            changed.difference(*pair)


def test_where_a_sample_is_or_went(changed: Pool, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps([{"id": "bad", "conversations": []}]))
    ingest(changed, tmp_path / "d.json", "llava-json", "s")
    here = whereabouts(changed, "a")
    assert (here["state"], here["row"], here["messages"][1]) == ("in the pool", 0, {"role": "assistant", "text": "a"})
    gone = whereabouts(changed, "b")
    assert (gone["state"], gone["step"], gone["neighbour"], gone["version"]) == ("removed", "1", "a", 4)
    aside = whereabouts(changed, "bad")
    assert (aside["state"], aside["reason"], aside["line"]) == ("set aside", "bad-messages", 1)
    with pytest.raises(InputError, match="'nobody'"):
        whereabouts(changed, "nobody")

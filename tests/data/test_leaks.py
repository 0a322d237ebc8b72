from __future__ import annotations

import json
from pathlib import Path

from liit.data.ingest import Dataset, ingest, read_samples
from liit.data.leaks import EXAMPLES, find_leaks
from liit.data.pool import Pool
from liit.data.sample import Message, Sample


def test_the_same_row_in_another_format_and_under_another_name_is_found(pool, tmp_path: Path, talks, pictures) -> None:
    pool.add(talks("one", "two", "text"))
    (tmp_path / "renamed.png").write_bytes(pictures[0].read_bytes())
    talk = [{"role": "user", "content": "<image>\nWhat is it?"}, {"role": "assistant", "content": "a cat"}]
    rows = [
        {"id": "same", "messages": talk, "images": ["renamed.png"]},
        {"id": "image", "messages": [{**talk[0], "content": "<image>Why?"}, talk[1]], "images": ["renamed.png"]},
        {"id": "bad", "messages": talk, "images": []},
    ]
    (tmp_path / "eval.json").write_text(json.dumps(rows))
    samples, bad = read_samples(Dataset(tmp_path / "eval.json", "messages", "eval"))
    assert ([s.id for s in samples], bad) == (["same", "image"], 1)
    new = Sample("new", (Message("user", "new"), Message("assistant", "a")))
    found = find_leaks(pool, {"colour": samples, "count": [new]})
    assert found == {
        "evaluation_rows": 3, "evaluation_images": 1, "leaked_rows": 1, "leaked_images": 1,
        "by_skill": {"colour": {"rows": 2, "leaked_rows": 1, "images": 1, "leaked_images": 1}},
        "examples": [
            {"what": "row", "skill": "colour", "evaluation": "same", "training": "one", "source": "s"},
            {"what": "image", "skill": "colour", "evaluation": "same", "training": "one", "source": "s"},
        ],
    }  # fmt: skip


def test_nothing_shared_is_no_leak_and_an_empty_pool_has_none(pool, talks) -> None:
    samples = talks("two")
    assert find_leaks(pool, {"a": samples})["by_skill"] == {}
    pool.add(talks("text"))
    found = find_leaks(pool, {"a": samples, "b": []})
    assert (found["leaked_rows"], found["leaked_images"], found["examples"]) == (0, 0, [])
    assert find_leaks(pool, {})["evaluation_rows"] == 0


def test_a_row_two_evaluation_sets_share_counts_in_both_and_examples_are_few(pool: Pool) -> None:
    many = [Sample(str(n), (Message("user", f"{n}?"), Message("assistant", "a")), source="s") for n in range(500)]
    pool.add(many)
    found = find_leaks(pool, {"a": many[:100], "b": many[50:120]})
    assert {name: skill["leaked_rows"] for name, skill in found["by_skill"].items()} == {"a": 100, "b": 70}
    assert (found["leaked_rows"], len(found["examples"])) == (170, EXAMPLES)


def test_pruned_rows_are_no_leak(pool: Pool, llava_dataset) -> None:
    ingest(pool, llava_dataset(6), "llava-json", "s")
    samples = pool.take(pool.ids())
    pool.remove(["2"], step=1)
    assert find_leaks(pool, {"a": samples})["leaked_rows"] == 5

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import liit.data.pool
import liit.data.writer
from liit.data.ingest import ingest
from liit.data.lock import write_lock
from liit.data.pool import AddReport, Pool
from liit.data.sample import ImageRef, Message, Sample
from liit.errors import InputError


def sample(id: str, text: str | None = None, source: str = "s") -> Sample:
    messages = (Message("user", f"What is {text or id}?"), Message("assistant", "é"))
    return Sample(id, messages, source=source, skill="naming")


def samples(*numbers: int) -> list[Sample]:
    return [sample(str(number)) for number in numbers]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool")


def test_what_is_added_is_read_back(pool: Pool) -> None:
    data = b"image bytes"
    image = ImageRef("/a/b.png", hashlib.sha256(data).hexdigest())
    whole = replace(
        sample("1"),
        messages=(Message("system", ""), Message("user", "<image> and <image>"), Message("assistant", "c")),
        images=(image, replace(image, path="", data=data)),
        raw='{"a": 1}',
        format="llava-json",
    )
    assert pool.add([whole, sample("2")], message="first") == AddReport(2, 0, pool.version)
    assert Pool.open(pool.path).take(["1", "2"]) == [whole, sample("2")]
    assert pool.log()[-1]["message"] == "first"


def test_order_is_that_of_ingestion(pool: Pool) -> None:
    pool.add(samples(3, 1))
    pool.add(samples(2, 0), source="other")
    assert pool.ids() == ["3", "1", "2", "0"]
    table = pool.columns(["source", "id", "row"])
    assert table.column_names == ["source", "id", "row"]
    assert table["row"].to_pylist() == [0, 1, 2, 3]
    assert table["source"].to_pylist() == ["s", "s", "other", "other"]
    assert [[s.id for s in batch] for batch in pool.scan(3)] == [["3", "1", "2"], ["0"]]
    assert [s.id for s in pool.take(["0", "3", "0"])] == ["0", "3", "0"]


def test_scan_and_take_cross_fragments_and_deleted_rows(pool: Pool) -> None:
    for start in range(0, 50, 10):
        pool.add(samples(*range(start, start + 10)))
    pool.remove([str(n) for n in range(0, 50, 3)], step=1)
    left = [str(n) for n in range(50) if n % 3]
    assert pool.ids() == left
    assert [s.id for batch in pool.scan(7) for s in batch] == left
    assert {len(batch) for batch in list(pool.scan(7))[:-1]} == {7}
    assert [s.id for s in pool.take(reversed(left))] == left[::-1]


def test_known_samples_are_skipped_and_counted(pool: Pool) -> None:
    pool.add(samples(1, 2))
    report = pool.add([*samples(1, 2, 3), sample("4", text="1")])
    assert report == AddReport(added=2, duplicates_exact=2, version=3, same_content=1)
    assert pool.add(samples(1)).version == 3


def test_an_id_with_other_content_refuses_the_whole_add(pool: Pool) -> None:
    pool.add(samples(1))
    with pytest.raises(InputError, match=r"number 2: id '1'.*other content"):
        pool.add([sample("2"), sample("1", text="other")])
    assert (pool.ids(), pool.version) == (["1"], 2)


@pytest.mark.parametrize(
    "bad",
    [
        replace(sample("x"), id=""),
        replace(sample("x"), messages=()),
        replace(sample("x"), source="\ud800"),
        replace(sample("x"), images=(ImageRef("/a.png", "0" * 64),)),
        replace(sample("x"), messages=(Message("bot", "a"), Message("assistant", "b"))),  # type: ignore[arg-type]
        replace(
            sample("x"),
            messages=(Message("user", "<image>"), Message("assistant", "b")),
            images=(ImageRef("a", "0" * 64),),
        ),
    ],
)
def test_a_malformed_sample_is_named_and_nothing_is_added(pool: Pool, bad: Sample) -> None:
    with pytest.raises(InputError, match="samples: number 2"):
        pool.add([sample("1"), bad])
    assert len(Pool.open(pool.path)) == 0


def test_versions_stay_readable_and_cannot_be_changed(pool: Pool) -> None:
    pool.add(samples(1, 2))
    pool.add(samples(3))
    pool.remove(["1"], step=1)
    assert [pool.at(version).ids() for version in range(1, 5)] == [[], ["1", "2"], ["1", "2", "3"], ["2", "3"]]
    old = pool.at(2)
    for change in (lambda: old.add(samples(9)), lambda: old.remove(["1"], step=1), lambda: old.restore(1)):
        with pytest.raises(InputError, match="old version"):
            change()
    for version in (0, 5, -1, "2"):
        with pytest.raises(InputError, match="expected 1 to 4"):
            pool.at(version)  # type: ignore[arg-type]


def neighbours(*ids: str) -> pa.Table:
    return pa.table(
        {
            "id": list(ids),
            "cluster": pa.array(range(len(ids)), pa.int32()),
            "neighbour": [None if id == "1" else "3" for id in ids],
            "similarity": pa.array([0.5 + n / 8 for n in range(len(ids))], pa.float32()),
        }
    )


def test_the_ledger_says_when_by_which_step_and_near_which_neighbour(pool: Pool) -> None:
    pool.add(samples(1, 2, 3))
    version = pool.remove(["2", "1"], step="step 1", neighbours=neighbours("9", "1", "2"))
    by_id = {row["id"]: row for row in pool.ledger().to_pylist()}
    assert sorted(by_id) == ["1", "2"]
    assert by_id["2"] == {
        "id": "2",
        "step": "step 1",
        "cluster": 2,
        "neighbour": "3",
        "similarity": 0.75,
        "reason": None,
        "version": version,
        "row": 1,
        "source": "s",
        "content_hash": sample("2").content_hash,
    }
    assert (by_id["1"]["neighbour"], by_id["1"]["cluster"]) == (None, 1)


def test_removing_again_changes_nothing_and_strangers_are_refused(pool: Pool) -> None:
    pool.add(samples(1, 2, 3))
    assert pool.remove(["1"], step=1) == pool.remove(["1", "1"], step=1) == 3
    assert pool.remove(["1", "2"], step=1) == 4
    with pytest.raises(InputError, match="'1' is not in the pool"):
        pool.remove(["3", "1"], step=2)
    assert (pool.ids(), pool.ledger().num_rows) == (["3"], 2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (neighbours("2"), "no row for '1'"),
        (neighbours("1", "1"), "two rows"),
        (neighbours("1").drop_columns(["similarity"]), "'similarity' is missing"),
        (neighbours("1").set_column(1, "cluster", pa.array(["x"])), "wrong type"),
        ({"id": ["1"]}, "pyarrow Table"),
    ],
)
def test_incomplete_neighbours_are_refused(pool: Pool, table: pa.Table, message: str) -> None:
    pool.add(samples(1, 2))
    with pytest.raises(InputError, match=f"neighbours: .*{message}"):
        pool.remove(["1"], step=1, neighbours=table)
    assert (len(pool), pool.ledger().num_rows) == (2, 0)


def test_pruned_samples_stay_out_until_restored(pool: Pool) -> None:
    pool.add(samples(1, 2))
    pool.remove(["1"], step=1)
    assert pool.add(samples(1, 2, 3)) == AddReport(added=1, duplicates_exact=1, version=4, pruned=1)
    assert pool.restore(2, "bring 1 back") == 5
    assert (pool.ids(), pool.ledger().num_rows) == (["1", "2"], 0)
    assert pool.at(4).ids() == ["2", "3"]
    pool.add(samples(3))
    assert pool.columns(["row"])["row"].to_pylist() == [0, 1, 3]  # 2 was the other life of sample 3
    assert [commit["kind"] for commit in pool.log()] == ["create", "add", "remove", "add", "restore", "add"]


def test_opening_what_is_no_pool_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, what in (("none", "does not exist"), ("file", "not a directory"), ("folder", "no pool in it")):
        with pytest.raises(InputError, match=what) as caught:
            Pool.open(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_create_refuses_other_peoples_directories_and_leaves_them_alone(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a pool already"):
        Pool.create(pool.path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        Pool.create(tmp_path / "folder")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["thesis.tex"]
    assert Pool.open_or_create(pool.path).version == 1
    assert Pool.open_or_create(tmp_path / "new").version == 1


def test_damage_and_newer_layouts_are_named(pool: Pool) -> None:
    pool.add(samples(1))
    commit = pool.path / "commits" / "00000002.json"
    text = commit.read_text()
    commit.write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(InputError, match=r"newer liit.*upgrade liit"):
        Pool.open(pool.path)
    commit.write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(InputError, match=r"older liit.*make it anew: `liit ingest`"):
        Pool.open(pool.path)
    commit.write_text(text[:40])
    with pytest.raises(InputError, match="damaged"):
        Pool.open(pool.path)
    commit.write_text(text)
    for manifest in (pool.path / "samples.lance" / "_versions").iterdir():
        manifest.unlink()
    with pytest.raises(InputError, match="'samples'"):
        Pool.open(pool.path)


def test_unknown_columns_ids_and_batch_sizes_are_named(pool: Pool) -> None:
    with pytest.raises(InputError, match=r"'colour'.*skill"):
        pool.columns(["colour"])
    with pytest.raises(InputError, match="'7' is not in the pool"):
        pool.take(["7"])
    with pytest.raises(InputError, match="batch_size"):
        list(pool.scan(0))


def test_a_snapshot_sees_other_writers_after_refresh_and_builds_on_them(pool: Pool) -> None:
    other = Pool.open(pool.path)
    other.add(samples(1))
    assert (len(pool), pool.ids()) == (0, [])
    assert pool.refresh() == 2
    assert pool.ids() == ["1"]
    other.add(samples(2))
    pool.add(samples(3))
    assert pool.ids() == ["1", "2", "3"]


def test_a_second_writer_waits_and_then_says_why(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liit.data.lock.LOCK_SECONDS", 0.2)
    with write_lock(pool.path), pytest.raises(InputError, match="another process"):
        pool.add(samples(1))
    assert pool.add(samples(1)).added == 1


class Killed(BaseException):
    pass


def killed(*args: object, **more: object) -> None:
    raise Killed


CHANGES: list[Callable[[Pool], object]] = [
    lambda pool: pool.add(samples(7, 8)),
    lambda pool: pool.remove(["1", "2"], step=1, neighbours=neighbours("1", "2")),
    lambda pool: pool.restore(2),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_dies_before_its_commit_is_not_there_and_can_be_repeated(
    pool: Pool, change: Callable[[Pool], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.add(samples(1, 2, 3))
    pool.add(samples(4))
    state = contents(pool)
    with monkeypatch.context() as patch:
        patch.setattr(liit.data.pool, "write_commit", killed)
        patch.setattr(liit.data.writer, "write_commit", killed)
        for _ in range(2):
            with pytest.raises(Killed):
                change(Pool.open(pool.path))
            assert contents(Pool.open(pool.path)) == state
    undisturbed = Pool.create(pool.path.parent / "undisturbed")
    undisturbed.add(samples(1, 2, 3))
    undisturbed.add(samples(4))
    for each in (Pool.open(pool.path), undisturbed):
        change(each)
    assert contents(Pool.open(pool.path)) == contents(undisturbed) != state


def contents(pool: Pool) -> object:
    return (
        pool.version,
        pool.columns(["row", "id", "source", "content_hash"]).to_pylist(),
        pool.ledger().to_pylist(),
        pool.quarantine().to_pylist(),
    )


def test_a_killed_creation_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(liit.data.pool, "write_commit", killed)
        with pytest.raises(Killed):
            Pool.create(tmp_path / "pool")
    with pytest.raises(InputError, match="no pool"):
        Pool.open(tmp_path / "pool")
    assert Pool.open_or_create(tmp_path / "pool").add(samples(1)).added == 1


def test_the_users_rows_come_back_to_the_letter_in_the_order_of_ingestion(pool: Pool, tmp_path: Path) -> None:
    rows = [
        '{"id": 5, "conversations": [{"from":"human","value":"\\u00e9?"},{"from":"gpt","value":"1"}], "extra": 1.50}',
        '{\n  "conversations": [\n {"from": "human", "value": "é"}, {"value": "2", "from": "gpt"}], "id": "x"}',
        '{"id":"y","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"3"}]}',
    ]
    (tmp_path / "in.json").write_text("[" + ",".join(rows) + "]", encoding="utf-8")
    ingest(pool, tmp_path / "in.json", "llava-json", "s", strict=True)
    pool.add([sample("made")])
    pool.to_llava_json(tmp_path / "out.json", ["x", "5"])
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == "[\n" + ",\n".join(rows[:2]) + "\n]\n"
    pool.to_llava_json(tmp_path / "out.jsonl", pool.ids())
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(map(json.loads, lines[:3])) == list(map(json.loads, rows))
    assert json.loads(lines[3])["conversations"][1] == {"from": "gpt", "value": "é"}
    pool.to_llava_json(tmp_path / "none.json", [])
    assert json.loads((tmp_path / "none.json").read_text()) == []
    for path, ids in ((tmp_path / "bad.json", ["no"]), (tmp_path / "no" / "bad.json", ["x"])):
        with pytest.raises(InputError):
            pool.to_llava_json(path, ids)
    assert not list(tmp_path.glob("*bad*"))


def test_columns_of_fifteen_thousand_rows_take_well_under_a_second(pool: Pool) -> None:
    pool.add(sample(str(n)) for n in range(15_000))
    reader = Pool.open(pool.path)
    start = time.process_time()  # whoever else is at work on the machine
    assert reader.columns(["id", "source", "skill"]).num_rows == 15_000
    assert time.process_time() - start < 0.5


def test_importing_the_light_parts_does_not_import_lance() -> None:
    heavy = "{'lance', 'torch', 'pyarrow'}"
    code = f"import sys, liit.data.formats, liit.data.containers; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

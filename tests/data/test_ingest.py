"""Ingest beyond one format: which files a path names, duplicates inside and across sources, bounds, progress."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from liit.data import ingest as module
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.errors import InputError

datasets = pytest.importorskip("datasets")


def save(path: Path, rows: list[object]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_llava_files_of_datasets(pool, tmp_path: Path, talks, suffix: str) -> None:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    samples = talks()
    rows = [
        {"id": s.id, "image": [os.path.relpath(i.path, tmp_path) for i in s.images],
         "conversations": [{"from": names[m.role], "value": m.text} for m in s.messages]} for s in samples
    ]  # fmt: skip
    data, path = datasets.Dataset.from_list(rows), tmp_path / f"d{suffix}"
    data.to_parquet(path) if suffix == ".parquet" else data.to_json(path, lines=suffix == ".jsonl")
    assert ingest(pool, path, "llava-json", "s", strict=True).added == 4
    found = pool.take(pool.ids())
    assert [(s.id, s.messages, s.content_hash) for s in found] == [(s.id, s.messages, s.content_hash) for s in samples]


def test_a_folder_and_a_pattern_name_files_in_the_order_of_their_names(pool, tmp_path: Path, llava_row) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.json"):
        save(tmp_path / "d" / name, [llava_row(name[0])])
    for name in (".hidden.jsonl", "README.md"):
        (tmp_path / "d" / name).write_text("not rows")
    assert ingest(pool, tmp_path / "d" / "[ab].jsonl", "llava-json", "s").added == 2
    assert ingest(pool, tmp_path / "d", "llava-json", "s").duplicates == 2
    assert pool.ids() == ["a", "b", "c"]


def test_a_bad_row_is_found_by_file_and_line(pool, tmp_path: Path, llava_row) -> None:
    save(tmp_path / "d" / "a.jsonl", [llava_row("1")])
    save(tmp_path / "d" / "b.jsonl", [llava_row("2"), llava_row("3", "no.png")])
    with pytest.raises(InputError, match=r"b\.jsonl' line 2 .row 2.: image-missing"):
        ingest(pool, tmp_path / "d", "llava-json", "s", strict=True)
    assert (len(pool), pool.version) == (0, 1)
    assert ingest(pool, tmp_path / "d", "llava-json", "s").reasons == {"image-missing": 1}
    [row] = pool.quarantine().to_pylist()
    assert (row["file"], row["line"], row["source"]) == ("b.jsonl", 2, "s")


@pytest.mark.parametrize(
    ("name", "what"),
    [("empty", "no dataset file in it"), ("no-*.jsonl", "no file is named like"), ("no.jsonl", "does not exist"),
     ("d.jsonl.gz", "compressed; unpack"), ("d.tar", "llava-json comes as json, parquet")],
)  # fmt: skip
def test_a_path_that_names_nothing_readable_is_refused(pool, tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "empty").mkdir()
    for packed in ("d.jsonl.gz", "d.tar"):
        (tmp_path / packed).write_bytes(b"x")
    with pytest.raises(InputError, match=what):
        ingest(pool, tmp_path / name, "llava-json", "s")


def test_duplicates_inside_and_across_sources_are_found_by_content(pool, tmp_path: Path, make_image, llava_row) -> None:
    make_image(tmp_path / "a.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    ingest(pool, save(tmp_path / "1.jsonl", [llava_row("1", "a.png"), llava_row("2")]), "llava-json", "first")
    rows = [
        llava_row("x", "copy.png"),  # what the other source has, under another id and another name of the image
        llava_row("y", None, "New?"),
        llava_row("z", None, "New?"),  # what this source has
        llava_row("2"),  # the same row again
        llava_row("w", "a.png", "Other?"),
    ]
    report = ingest(pool, save(tmp_path / "2.jsonl", rows), "llava-json", "second")
    assert (report.rows, report.added, report.duplicates) == (5, 4, 1)
    assert (report.same_content, report.same_content_in) == (2, {"first": 1, "second": 1})
    assert pool.log()[-1]["report"]["same_content_in"] == {"first": 1, "second": 1}


def test_the_pool_does_not_depend_on_how_rows_are_batched(
    tmp_path: Path, llava_dataset, llava_row, monkeypatch
) -> None:
    rows = json.loads(llava_dataset(30).read_text())
    rows += [rows[3], llava_row("5", None, "clash"), llava_row("4", None, "clash"), llava_row("n", "no.png"), rows[0]]
    rows += [dict(rows[7], id="again"), llava_row("5", None, "clash")]
    path = save(tmp_path / "rows.jsonl", rows)
    states = []
    for size in (1, 2, 7, 1024):
        monkeypatch.setattr(module, "_BATCH_ROWS", size)
        pool = Pool.create(tmp_path / f"pool-{size}")
        report = ingest(pool, path, "llava-json", "s", id_conflict="rename")
        columns = pool.columns(["row", "id", "content_hash", "raw"]).to_pylist()
        states.append((report, columns, pool.quarantine().to_pylist()))
    assert states[1:] == states[:1] * 3
    assert states[0][0].renamed == 2


def test_progress_ends_with_all_rows_and_all_bytes(pool, tmp_path: Path, llava_row) -> None:
    for part in range(3):
        save(tmp_path / "d" / f"{part}.jsonl", [llava_row(f"{part}-{n}") for n in range(1500)])
    rows: list[int] = []
    read: list[int] = []
    ingest(pool, tmp_path / "d", "llava-json", "s", progress=rows.append, progress_bytes=read.append)
    assert (rows[-1], read[-1]) == (4500, sum(f.stat().st_size for f in (tmp_path / "d").iterdir()))
    assert (rows, read) == (sorted(rows), sorted(read))
    assert len(rows) >= 6


def test_a_killed_ingest_leaves_its_files_to_gc_and_no_rows(pool, tmp_path: Path, llava_dataset, monkeypatch) -> None:
    path = llava_dataset(10)
    monkeypatch.setattr("liit.data.writer.PoolWriter.commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ingest(pool, path, "llava-json", "s")
    monkeypatch.undo()
    assert len(Pool.open(pool.path)) == 0
    assert ingest(pool, path, "llava-json", "s").added == 10

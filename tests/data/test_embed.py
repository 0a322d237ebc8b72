"""Images by value: a pool that is one directory, wherever it is moved."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from liit.data.image_table import held_images
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.errors import InputError


@pytest.fixture
def dataset(tmp_path: Path, llava_dataset) -> Path:
    """Twelve rows on seven images, in a folder of their own."""
    (tmp_path / "data").mkdir()
    llava_dataset(12)
    for name in ("d.json", "images"):
        shutil.move(tmp_path / name, tmp_path / "data" / name)
    return tmp_path / "data" / "d.json"


def test_a_moved_pool_opens_its_images_when_the_originals_are_gone(pool, tmp_path: Path, dataset: Path) -> None:
    ingest(pool, dataset, "llava-json", "s", embed_images=True, strict=True)
    wanted = {path.name: path.read_bytes() for path in (dataset.parent / "images").iterdir()}
    shutil.move(pool.path, tmp_path / "moved")
    shutil.rmtree(dataset.parent)
    moved = Pool.open(tmp_path / "moved")
    found = moved.take(moved.ids())
    assert [i.read() for s in found for i in s.images] == [wanted[f"{n % 7}.png"] for n in range(12)]
    assert all(i.open().size == (8, 8) for s in found for i in s.images)
    assert moved._table("images").count_rows() == 7  # each once


def test_rows_of_a_moved_pool_are_written_back_with_their_images(pool, tmp_path: Path, dataset: Path) -> None:
    ingest(pool, dataset, "llava-json", "s", embed_images=True, strict=True)
    text = dataset.read_text()
    shutil.rmtree(dataset.parent)
    (tmp_path / "out").mkdir()
    report = pool.write(tmp_path / "out" / "d.json", pool.ids(), "llava-json", copy_images=True)
    assert (report.verbatim, report.images) == (12, 7)
    assert json.loads((tmp_path / "out" / "d.json").read_text()) == json.loads(text)
    other = Pool.create(tmp_path / "other")
    assert ingest(other, tmp_path / "out" / "d.json", "llava-json", "s", strict=True).added == 12
    assert pool.write(tmp_path / "out" / "d.json", pool.ids(), "llava-json", copy_images=True).images == 0
    (tmp_path / "out" / "images" / "0.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="another image"):
        pool.write(tmp_path / "out" / "d.json", pool.ids(), "llava-json", copy_images=True)
    assert (tmp_path / "out" / "images" / "0.png").read_bytes() == b"mine"


def test_copying_images_never_leaves_the_folder_of_the_file(pool, tmp_path: Path, make_image, llava_row) -> None:
    for name in ("data/a.png", "up.png"):
        make_image(tmp_path / name)
    rows = [llava_row("1", "../up.png"), llava_row("2", str(tmp_path / "up.png")), llava_row("3", "a.png")]
    (tmp_path / "data" / "d.json").write_text(json.dumps(rows))
    ingest(pool, tmp_path / "data" / "d.json", "llava-json", "s", embed_images=True, allow_outside=True, strict=True)
    (tmp_path / "up.png").unlink()
    (tmp_path / "out" / "in").mkdir(parents=True)
    assert pool.write(tmp_path / "out" / "in" / "d.json", pool.ids(), "llava-json", copy_images=True).images == 1
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")}
    assert names == {"in", "in/d.json", "in/a.png"}


def test_the_content_is_the_same_by_value_and_by_reference(pool, dataset: Path) -> None:
    ingest(pool, dataset, "llava-json", "s")
    report = ingest(pool, dataset, "llava-json", "s", embed_images=True)
    assert (report.added, report.duplicates) == (0, 12)
    assert not pool.take(["0"])[0].images[0].held  # what is there already stays as it is


def test_samples_of_another_pool_bring_their_images(pool, tmp_path: Path, talks) -> None:
    pool.add(talks(held=True))
    other = Pool.create(tmp_path / "other")
    other.add(pool.take(pool.ids()))
    shutil.rmtree(pool.path)
    assert all(image.open().mode == "RGB" for sample in other.take(other.ids()) for image in sample.images)


def test_taking_and_scanning_samples_reads_no_image(pool, talks, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.add(talks(held=True))
    monkeypatch.setattr("liit.data.image_table.HeldImages.read_many", lambda *_: pytest.fail("an image was read"))
    samples = [sample for batch in pool.scan() for sample in batch]
    assert [image.held for sample in samples for image in sample.images] == [True] * 4


def test_images_added_by_another_process_are_found(pool, tmp_path: Path, talks, make_image) -> None:
    pool.add(talks("one", held=True))
    assert pool.take(["one"])[0].images[0].open()  # opens the table of images
    make_image(tmp_path / "n.png", seed=9)
    (tmp_path / "d.json").write_text(
        json.dumps([{"id": "n", "image": "n.png", "conversations": [
            {"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]}])
    )  # fmt: skip
    code = (
        "import sys; from liit.data.pool import Pool; from liit.data.ingest import ingest;"
        "ingest(Pool.open(sys.argv[1]), sys.argv[2], 'llava-json', 's', embed_images=True, strict=True)"
    )
    subprocess.run([sys.executable, "-c", code, str(pool.path), str(tmp_path / "d.json")], check=True)
    pool.refresh()
    assert pool.take(["n"])[0].images[0].read() == (tmp_path / "n.png").read_bytes()


def test_a_hash_that_is_not_there_is_named(pool, talks) -> None:
    pool.add(talks("one", held=True))
    with pytest.raises(InputError, match="f" * 64):
        held_images(str(pool.path)).read("f" * 64)

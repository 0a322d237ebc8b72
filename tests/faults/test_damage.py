"""Files that are cut or changed: one line that says which, nothing is written, and all is well once they are back."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import lance
import pytest
from processes import Ended, Zygote
from steps import STEPS, Prepared, mostly_slow
from tiny import differing, listing

Damage = Callable[[bytes], bytes]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def changed_page(data: bytes) -> bytes:
    """Eight bytes are others, where the values lie: a Lance file begins with its pages."""
    at = len(data) // 8
    return data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 8]) + data[at + 8 :]


def zeroed_block(data: bytes) -> bytes:
    """What a disk gives for a block that it has lost."""
    return bytes(min(512, len(data) // 2)) + data[min(512, len(data) // 2) :]


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def nothing(data: bytes) -> bytes:
    return b""


def no_image(data: bytes) -> bytes:
    return b"no image"


DAMAGES = (half, changed_page, zeroed_block)


def table_files(table: Path) -> Iterator[Path]:
    """The files of a Lance table's newest version: what it says, its pages, and its lists of deleted rows."""
    found = lance.dataset(str(table))
    yield table / "_versions" / f"{(1 << 64) - 1 - found.version:020d}.manifest"
    for fragment in found.get_fragments():
        yield from (table / "data" / file.path for file in fragment.data_files())
        if gone := fragment.deletion_file():
            yield table / gone


def files_of(home: Path, part: str) -> list[Path]:
    """The files below `home` that a command reads when it reads this part."""
    if (home / part / "commits").is_dir():
        newest = max((home / part / "commits").glob("*.json"))
        return [newest, *table_files(home / part / "samples.lance")]
    if part == "adapter":
        return [home / part / "adapter_model.safetensors", home / part / "adapter_config.json"]
    return list(table_files(home / part)) if (home / part).is_dir() else [home / part]


def refuse(zygote: Zygote, folder: Path, name: str, file: Path, damage: Damage) -> Ended:
    """Damage a file and run a command, which must refuse it and change nothing; then put the file back."""
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    before = {name: data for name, data in listing(folder).items() if not name.endswith("/lock")}
    done = zygote.run(*STEPS[name].arguments(folder))
    assert done.refused, (file, damage.__name__, done)
    after = listing(folder)
    assert {name: after.get(name) for name in before} == before
    file.write_bytes(whole)
    return done


def cases(home: Path, name: str) -> list[tuple[Path, Damage]]:
    found = [(file, damage) for part in STEPS[name].inputs for file in files_of(home, part) for damage in DAMAGES]
    # A commit or a configuration is short text, for which there is one way of being damaged. Parquet has bits that say
    # nothing; the tests in test_fuzz_files.py change them.
    ways = {".json": (half,), ".parquet": (half, zeroed_block)}
    return [(file, damage) for file, damage in found if damage in ways.get(file.suffix, DAMAGES)]


def damage_and_mend(zygote: Zygote, prepared: Prepared, name: str, chosen: list[tuple[Path, Damage]]) -> None:
    with prepared.folder() as folder:
        for file, damage in chosen:
            done = refuse(zygote, folder, name, folder / file.relative_to(prepared.home), damage)
            assert any(part in done.err for part in (file.name, file.parent.name, "table 'samples'")), done
        done = zygote.run(*STEPS[name].arguments(folder))
        assert (done.code, done.err) == (0, "")
        assert STEPS[name].result(folder) == prepared.results[name]


@pytest.mark.parametrize("name", mostly_slow("ingest", "select", "prune", "evaluate"))
def test_a_damaged_file_is_named_and_the_command_works_once_it_is_back(
    zygote: Zygote, prepared: Prepared, name: str
) -> None:
    rng = random.Random(name)
    by_file: dict[Path, list[Damage]] = {}
    for file, damage in cases(prepared.home, name):
        by_file.setdefault(file, []).append(damage)
    few = sorted(by_file) if name in ("select", "prune") else rng.sample(sorted(by_file), min(2, len(by_file)))
    damage_and_mend(zygote, prepared, name, [(file, rng.choice(by_file[file])) for file in few])


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_file_damaged_in_any_way_is_named(zygote: Zygote, prepared: Prepared, name: str) -> None:
    damage_and_mend(zygote, prepared, name, cases(prepared.home, name))


def test_a_page_of_features_that_changed_in_a_run_stops_it_and_costs_nothing(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path
) -> None:
    out = place / "out"
    process = zygote.start("run", short, "--out", out, "--no-report", before=["announce_stages"])
    assert any(line == "begin 2 select\n" for line in process.lines)
    process.kill()
    process.wait()
    (file,) = list((out / "steps/02-beta/features/data").iterdir())[:1]
    whole = file.read_bytes()
    file.write_bytes(changed_page(whole))
    before = (out / "run.json").read_bytes()
    done = zygote.run("run", short, "--out", out, "--no-report")
    assert done.refused, done
    assert file.name in done.err
    assert (out / "run.json").read_bytes() == before or len(json.loads((out / "run.json").read_text())["stages"]) >= 8
    file.write_bytes(whole)
    assert zygote.run("run", short, "--out", out, "--no-report").code == 0
    assert differing(out, undisturbed) == []


@pytest.mark.parametrize("damage", [half, *(pytest.param(d, marks=pytest.mark.slow) for d in (no_image, nothing))])
def test_an_image_that_is_damaged_after_its_ingest_is_named_and_no_row_is_lost(
    zygote: Zygote, prepared: Prepared, short: Path, damage: Damage
) -> None:
    with prepared.folder() as folder:
        image = short.parent / "images/train-beta-7.png"
        whole = image.read_bytes()
        cold = {"LIIT_CACHE": str(folder / "cache")}  # else the vision tower's outputs stand in for the image
        try:
            image.write_bytes(damage(whole))
            done = zygote.run(*STEPS["extract"].arguments(folder), environment=cold)
            assert done.refused, done
            assert "train-beta-7.png" in done.err
        finally:
            image.write_bytes(whole)
        assert zygote.run(*STEPS["extract"].arguments(folder), environment=cold).code == 0
        assert STEPS["extract"].result(folder).keys() == prepared.results["extract"].keys()
        assert STEPS["extract"].result(folder)["id"] == prepared.results["extract"]["id"]


def test_a_dataset_file_cut_in_half_adds_nothing_until_it_is_whole(
    zygote: Zygote, prepared: Prepared, short: Path
) -> None:
    with prepared.folder() as folder:
        shutil.copytree(short.parent / "images", folder / "images")
        file = folder / "beta.json"
        whole = (short.parent / "beta.json").read_bytes()
        arguments = ["ingest", file, "--pool", folder / "small", "--source", "beta"]
        file.write_bytes(half(whole))
        done = zygote.run(*arguments)
        assert done.refused, done
        assert "beta.json" in done.err
        file.write_bytes(whole)
        assert zygote.run(*arguments).code == 0
        found, expected = STEPS["ingest"].result(folder), prepared.results["ingest"]
        assert found["samples"] == expected["samples"]
        assert found["images"] == expected["images"]


@pytest.mark.parametrize("damage", [half, nothing, zeros, lambda data: b"[1]"])
def test_a_damaged_list_of_complete_stages_is_refused(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path, damage: Damage
) -> None:
    shutil.copytree(undisturbed, place / "out")
    file = place / "out/run.json"
    file.write_bytes(damage(file.read_bytes()))
    before = listing(place / "out")
    done = zygote.run("run", short, "--out", place / "out")
    assert done.refused, done
    assert "run.json" in done.err
    assert listing(place / "out") == before

"""A run killed at random instants inside every one of its stages ends, by the same command, as an undisturbed one."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from processes import Running, Zygote
from tiny import differing

STAGES = ("ingest", "extract", "select", "train", "evaluate", "prune")
ORDER = [(0, "evaluate"), *((step, stage) for step in (1, 2) for stage in STAGES)]
KILLS, MANY = 12, 200
START = 0.4
"""Seconds from the start of the command to its first stage."""
ATTEMPTS = 8
"""Of one stage; some last a few milliseconds, and a loaded machine may be late."""

Lasts = dict[tuple[int, str], float]


def begun(process: Running, stage: tuple[int, str]) -> bool:
    """Wait until a stage begins; False when the command ends before."""
    return any(line == f"begin {stage[0]} {stage[1]}\n" for line in process.lines)


def completed(out: Path) -> int:
    return len(json.loads((out / "run.json").read_text())["stages"]) if (out / "run.json").is_file() else 0


def command(short: Path, out: Path) -> list[str | Path]:
    return ["run", short, "--out", out, "--no-report"]


def kill_inside(zygote: Zygote, short: Path, out: Path, stage: tuple[int, str], delay: float) -> bool:
    """Run the command and kill it so long after a stage began; whether that stage was at work then."""
    cache = {"LIIT_CACHE": f"{out}-cache"}
    process = zygote.start(*command(short, out), before=["announce_stages"], environment=cache)
    at_work = begun(process, stage)
    if at_work:
        time.sleep(delay)
        process.kill()
    ended = process.wait()
    assert ended.code in (-9, 0), ended
    # Killed after its first line, and not listed as complete: it was inside.
    return at_work and ended.code == -9 and completed(out) == ORDER.index(stage)


def kill_through(
    zygote: Zygote, short: Path, out: Path, lasts: Lasts, rng: random.Random, per_stage: int
) -> Counter[str]:
    """Kill a run inside each of its stages, then let it end; how often each was hit.

    A stage that ends before the kill is looked for earlier from then on: `lasts` was measured under another load.
    """
    hits: Counter[str] = Counter()
    process = zygote.start(*command(short, out))
    time.sleep(rng.uniform(0, START))  # before any stage, most likely
    process.kill()
    process.wait()
    for stage in ORDER:
        wanted, attempts = per_stage, 0
        while wanted and attempts < ATTEMPTS * per_stage and completed(out) <= ORDER.index(stage):
            attempts += 1
            if kill_inside(zygote, short, out, stage, rng.uniform(0, lasts[stage])):
                hits[stage[1]] += 1
                wanted -= 1
            else:
                lasts[stage] /= 2
    done = zygote.run(*command(short, out))
    assert (done.code, done.err) == (0, "")
    assert not list(out.glob("spent.json*"))
    return hits


@pytest.fixture
def lasts(undisturbed: Path) -> Lasts:
    rows = [json.loads(line) for line in (undisturbed / "timings.jsonl").read_text().splitlines()]
    found = {(row["step"], row["stage"]): row["seconds"] for row in rows}
    assert list(found) == ORDER
    return found


def kill_and_compare(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path, lasts: Lasts, kills: int, per_stage: int, least: int
) -> Counter[str]:
    """Kill runs until there were so many kills in all, and the least number in each stage; how many in each."""
    rng, total, number = random.Random(kills), Counter[str](), 0
    while total.total() < kills or min(total[stage] for stage in STAGES) < least:
        out = place / f"run-{number}"
        total += kill_through(zygote, short, out, lasts, rng, per_stage)
        assert differing(out, undisturbed) == []
        shutil.rmtree(out)
        number += 1
        assert number <= kills, total
    print(f"{total.total()} kills: {dict(total)}")
    return total


def test_killed_inside_every_stage_it_ends_as_undisturbed(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path, lasts: Lasts
) -> None:
    hits = kill_and_compare(zygote, short, undisturbed, place, lasts, KILLS, per_stage=1, least=1)
    assert set(hits) == set(STAGES)
    assert hits.total() >= KILLS


@pytest.mark.slow
def test_killed_two_hundred_times_it_ends_as_undisturbed(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path, lasts: Lasts
) -> None:
    hits = kill_and_compare(zygote, short, undisturbed, place, lasts, MANY, per_stage=4, least=12)
    assert set(hits) == set(STAGES)
    assert hits.total() >= MANY


@pytest.mark.slow
def test_killed_between_any_two_changes_on_disk_it_ends_as_undisturbed(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path
) -> None:
    counted = zygote.run(*command(short, place / "counted"), before=["die_before", str(place / "counted"), 0])
    count = int(counted.out.rpartition("instants ")[2])
    assert count > 300
    for which in random.Random(0).sample(range(1, count + 1), 40):
        out = place / str(which)
        died = zygote.run(*command(short, out), before=["die_before", str(out), which])
        assert died.code == -9, died
        done = zygote.run(*command(short, out))
        assert (done.code, done.err) == (0, ""), done
        assert differing(out, undisturbed) == []
        shutil.rmtree(out)

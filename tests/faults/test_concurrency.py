"""Several processes at one pool: writers wait for each other, readers see all of a commit or nothing of it."""

from __future__ import annotations

import random
import time
from pathlib import Path

from processes import Zygote
from steps import STEPS, Prepared, pool_content

from liit.data.pool import Pool


def test_two_writers_wait_for_each_other_and_both_finish(zygote: Zygote, short: Path, place: Path) -> None:
    pool = place / "pool"
    assert zygote.run("ingest", short.parent / "alpha-colour.json", "--pool", pool).code == 0
    first = zygote.start("ingest", short.parent / "alpha.json", "--pool", pool)
    second = zygote.start("ingest", short.parent / "beta.json", "--pool", pool)
    assert [(ended.code, ended.err) for ended in (first.wait(), second.wait())] == [(0, "")] * 2
    opened = Pool.open(pool)
    sources = opened.columns(["source"])["source"].to_pylist()
    assert sorted(set(sources[6:])) == ["alpha", "beta"]
    assert len(opened) == len(set(opened.ids())) == 6 + 40 + 40
    assert [sources.index(name) % 40 for name in ("alpha", "beta")] == [6, 6]  # one after the other, never mixed
    assert opened.version == 4


def test_two_writers_make_one_new_pool(zygote: Zygote, short: Path, place: Path) -> None:
    """Whichever makes it, the other goes on with it; and one that fails does not take the other's rows away.

    It may take away the empty pool that it made while another waits for it, who then is told to begin again.
    """
    cut = place / "cut.json"
    cut.write_bytes((short.parent / "alpha.json").read_bytes()[:-9])
    for number in range(3):
        pool = place / f"pool-{number}"
        names = ("alpha", "beta", "gone") if number else ("alpha", "beta")
        sources = [short.parent / f"{name}.json" if name != "gone" else cut for name in names]
        writers = [zygote.start("ingest", file, "--pool", pool, "--images", short.parent) for file in sources]
        ended = [writer.wait() for writer in writers]
        for place_of, done in enumerate(ended[:2]):
            if done.code:
                assert number, done
                assert done.refused, done
                assert "was taken away by another process; give the command again" in done.err
                done = zygote.run("ingest", sources[place_of], "--pool", pool, "--images", short.parent)
            assert (done.code, done.err) == (0, "")
        assert all(done.refused for done in ended[2:]), ended
        assert sorted(Pool.open(pool).columns(["source"])["source"].to_pylist()) == ["alpha"] * 40 + ["beta"] * 40


def test_a_reader_sees_whole_commits_only_while_writers_are_killed(zygote: Zygote, prepared: Prepared) -> None:
    rng = random.Random(0)
    with prepared.folder() as folder:
        states = [pool_content(folder / "small"), prepared.results["ingest"]]
        looks = 0
        for _ in range(4):
            process = zygote.start(*STEPS["ingest"].arguments(folder))
            until = time.monotonic() + rng.uniform(0.1, 1) * prepared.seconds["ingest"]
            while time.monotonic() < until:
                assert pool_content(folder / "small") in states
                looks += 1
            process.kill()
            if process.wait().code == 0:  # it was faster
                break
        assert looks >= 1
        assert zygote.run(*STEPS["ingest"].arguments(folder)).code == 0
        assert pool_content(folder / "small") == states[1]


def test_a_writer_that_was_killed_holds_nobody_up(zygote: Zygote, prepared: Prepared) -> None:
    with prepared.folder() as folder:
        process = zygote.start(*STEPS["ingest"].arguments(folder), before=["die_before", str(folder), 12])
        assert process.wait().code == -9
        assert zygote.run(*STEPS["ingest"].arguments(folder)).code == 0  # and not "is being written by another"
        assert pool_content(folder / "small") == prepared.results["ingest"]

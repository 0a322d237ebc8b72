"""`liit pool gc` of a run that was stopped: the run goes on, unless the user gives it up, and then one line says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import Zygote
from steps import pool_content
from tiny import results


def stopped_run(zygote: Zygote, short: Path, out: Path, stage: str) -> None:
    """A run that was killed when a stage began."""
    process = zygote.start("run", short, "--out", out, "--no-report", before=["announce_stages"])
    assert any(line == f"begin {stage}\n" for line in process.lines)
    process.kill()
    process.wait()


def gc(zygote: Zygote, out: Path, *options: str) -> dict[str, Any]:
    done = zygote.run("pool", "gc", out / "pool", "--json", *options)
    assert (done.code, done.err) == (0, ""), done
    found: dict[str, Any] = json.loads(done.out)
    return found


def without_versions(run: Path) -> dict[str, Any]:
    """What a run leaves, without the numbers of the pool's versions, of which a gc makes one."""
    found = {name: value for name, value in results(run).items() if not name.startswith("pool")}
    for name in found:
        if name.endswith("run.json") or name.endswith("prune.json") or name.endswith("ingest.json"):
            found[name] = [line for line in found[name].splitlines() if b"pool_version" not in line]
    return {**found, "pool": pool_content(run / "pool")}


@pytest.mark.parametrize(
    "stage",
    ["2 select", *(pytest.param(s, marks=pytest.mark.slow) for s in ("1 ingest", "1 prune", "2 ingest", "2 prune"))],
)
def test_a_run_goes_on_after_a_gc_of_its_pool_unless_it_was_given_up(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path, stage: str
) -> None:
    out, given_up = place / "out", place / "given-up"
    stopped_run(zygote, short, out, stage)
    shutil.copytree(out, given_up)

    said = zygote.run("pool", "gc", given_up / "pool")
    assert "kept for an unfinished run: version" in said.out
    assert "--ignore-runs" in said.out
    assert gc(zygote, given_up, "--ignore-runs")["held"] == {}
    done = zygote.run("run", short, "--out", given_up, "--no-report")
    assert done.refused, done
    assert "freed by a gc" in done.err

    assert list(gc(zygote, out)["held"]) == ["an unfinished run"]
    done = zygote.run("run", short, "--out", out, "--no-report")
    assert (done.code, done.err) == (0, ""), done
    assert without_versions(out) == without_versions(undisturbed)
    last = gc(zygote, out)  # now nobody needs the old versions
    assert (last["oldest"], last["held"]) == (last["version"], {})
    done = zygote.run("run", short, "--out", out)  # nothing is left to do but the report
    assert (done.code, done.err) == (0, ""), done
    assert (out / "report.html").is_file()

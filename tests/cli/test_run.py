"""`liit run` and `liit report` as a newcomer sees them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import environment, here, liit, write_continuum


@pytest.fixture(scope="module")
def short(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_continuum(tmp_path_factory.mktemp("short"), model, steps=1)


STAGE = re.compile(r"step \d \w+, (ingest|extract|select|train|evaluate): \d+\.\d s( \(\d+(\.\d)?/s\))?(; .+)?")


def test_a_run_prints_a_line_per_stage_a_table_and_the_report_and_nothing_else(short: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = liit("run", short, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines.pop(1) == "adapter: continue, every step trains the adapter of the last step on"
    assert all(STAGE.fullmatch(line) for line in lines[:6]), lines
    assert lines[1].endswith("; 40 samples added, pool of 40")
    assert lines[6] == ""
    assert lines[7].startswith("method ")
    assert lines[9].startswith("adapt-inf ")
    assert lines[-1] == f"report: {out}/report.html"
    assert "<html" in (out / "report.html").read_text()


def test_a_finished_run_says_so_and_is_not_done_again(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = here(capsys, "run", short, "--out", tmp_path / "out")
    before = (tmp_path / "out/run.json").read_bytes()
    again = here(capsys, "run", short, "--out", tmp_path / "out")
    assert (first.code, again.code) == (0, 0)
    assert again.out.startswith(f"{tmp_path}/out: 6 stages are complete")
    assert "step 1" not in again.out
    assert (tmp_path / "out/run.json").read_bytes() == before


def test_json_is_all_that_stdout_gets(short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("replay", "multitask"):
        said = here(capsys, "run", short, "--out", tmp_path / method, "--method", method, "--json")
        assert said.code == 0
        assert method in json.dumps(json.loads(said.out, parse_constant=pytest.fail))
        assert "step 1 alpha, train" in said.err
    arguments = ("report", tmp_path / "replay", "--reference", tmp_path / "multitask", "--out", tmp_path / "both.html")
    said = here(capsys, *arguments, "--json")
    assert (said.code, said.err) == (0, "")
    json.loads(said.out, parse_constant=pytest.fail)
    said = here(capsys, *arguments)
    assert said.out.rstrip().endswith(f"report: {tmp_path}/both.html")
    assert "multitask (reference)" in said.out


def test_importing_liit_changes_no_setting_of_the_libraries() -> None:
    code = (
        "import liit, liit.cli, sys, warnings; "
        "print(len(warnings.filters), 'torch' in sys.modules, 'lance' in sys.modules)"
    )
    plain = "import warnings; print(len(warnings.filters))"
    said = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment()).stdout.split()
        for text in (code, plain)
    ]
    assert said[0] == [*said[1], "False", "False"]


def test_the_libraries_speak_when_the_user_wants_them_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import logging

    from liit.model.quiet import quiet_libraries

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_warning()
        logging.enable_progress_bar()
        monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "warning")
        quiet_libraries()
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.WARNING, True)
        monkeypatch.delenv("TRANSFORMERS_VERBOSITY")
        quiet_libraries()
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, False)
    finally:
        logging.set_verbosity(before)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


def test_a_bug_is_not_hidden_behind_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from liit.cli import main

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sys.modules["liit.cli.app"], "app", broken)
    with pytest.raises(ZeroDivisionError):
        main()

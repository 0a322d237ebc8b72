"""A training killed again and again goes on inside the step, from its last state, and ends as an undisturbed one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from processes import Running, Zygote
from tiny import differing, write_continuum

SETTINGS = ["method=dgg", "training.epochs=4", "training.batch_size=4", "training.save_steps=4"]


def command(continuum: Path, out: Path, *settings: str) -> list[str | Path]:
    return ["run", continuum, "--out", out, "--no-report", *(word for text in settings for word in ("--set", text))]


def states(out: Path) -> set[str]:
    """Names of the whole states that lie there."""
    return {str(path.relative_to(out)) for path in out.glob("steps/*/adapter.training/checkpoint-*[0-9]")}


def kill_at_a_new_state(process: Running, out: Path, seen: set[str], delay: float) -> bool:
    """Kill the command some time after it has written a state that was not there before; False when it ends first."""
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":  # not over
        if new := states(out) - seen:
            seen |= new
            time.sleep(delay)
            process.kill()
            return True
        time.sleep(0.002)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["continue", "merge"])
def test_killed_at_every_state_it_goes_on_from_there_and_ends_as_undisturbed(
    zygote: Zygote, model: Path, place: Path, rule: str
) -> None:
    """With a hook that guides gradients, whose own state is part of it."""
    continuum = write_continuum(place / "c", model, steps=2)
    settings = [*SETTINGS, f"lora.adapter={rule}"]
    assert zygote.run(*command(continuum, place / "calm", *settings)).code == 0
    out, seen, kills = place / "out", set[str](), 0
    while True:
        before = set(seen)
        process = zygote.start(*command(continuum, out, *settings))
        killed = kill_at_a_new_state(process, out, seen, 0.03 * (kills % 3))
        code = process.wait().code
        if not killed or code == 0:
            break
        kills += 1
        assert seen > before  # it got further each time: it did not begin the step anew
        assert kills < 40
    assert code == 0
    assert kills >= 3
    assert differing(out, place / "calm") == []
    assert not list(out.glob("steps/*/adapter.training"))
    train = json.loads((out / "steps/02-beta/train.json").read_text())
    assert train["hooks"]["gradient-guidance"]["updates"] == train["optimizer_steps"] == 16

"""An evaluation that was stopped goes on after the skills that it has answered."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import PowerCut

from liit.config import load_config
from liit.data.sample import Sample
from liit.evaluation import evaluate as evaluating
from liit.evaluation.evaluate import SkillAnswers, SkillTask
from liit.lifelong import saved_skills, stages
from liit.lifelong.saved_skills import FOLDER, SavedSkills
from liit.lifelong.workbench import Workbench

SKILLS = 6


@pytest.fixture(scope="module")
def bench(continuum: Path) -> Workbench:
    return Workbench(load_config(continuum))


@pytest.fixture(scope="module")
def tasks(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> list[SkillTask]:
    sets = [item for _, item in bench.continuum.evaluation_sets()]
    return stages.read_tasks(tmp_path_factory.mktemp("tasks") / "pool", sets)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of all questions that are answered; two skills of six questions make a group."""
    ids: list[str] = []
    generate = evaluating.generate_answers

    def spy(vlm: object, samples: Sequence[Sample], **options: object) -> list[str]:
        ids.extend(sample.id for sample in samples)
        return generate(vlm, samples, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluating, "generate_answers", spy)
    monkeypatch.setattr(evaluating, "GROUP_ROWS", 8)
    return ids


def written(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("evaluation.json", "predictions.jsonl")}


def cut_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Stop right after a number of groups are saved."""
    save, count = SavedSkills.save, 0

    def counted(self: SavedSkills, skills: Sequence[SkillAnswers]) -> None:
        nonlocal count
        save(self, skills)
        count += 1
        if count == saves:
            raise PowerCut

    monkeypatch.setattr(SavedSkills, "save", counted)


def evaluate(bench: Workbench, tasks: list[SkillTask], out: Path, batch_size: int = 4) -> int:
    """Evaluate with small batches, so that groups and batches have edges; how much progress was reported."""
    settings = bench.continuum.evaluation.model_copy(update={"batch_size": batch_size})
    bench.continuum = bench.continuum.model_copy(update={"evaluation": settings})
    seen: list[int] = []
    stages.evaluate_step(bench, None, tasks, 1, out, seen.append)
    return sum(seen)


@pytest.mark.parametrize("groups", [1, 3])
def test_stopped_after_some_skills_it_answers_only_the_others_and_ends_as_undisturbed(
    bench: Workbench, tasks: list[SkillTask], tmp_path: Path, asked: list[str], groups: int
) -> None:
    everything = evaluate(bench, tasks, tmp_path / "whole")
    assert everything == len(asked) == sum(len(task.samples) for task in tasks)
    asked.clear()
    with pytest.MonkeyPatch.context() as patch:
        cut_after(patch, groups)
        with pytest.raises(PowerCut):
            evaluate(bench, tasks, tmp_path / "cut")
    assert not (tmp_path / "cut" / "evaluation.json").exists()
    first = list(asked)
    assert len(first) == groups * 12
    asked.clear()
    assert evaluate(bench, tasks, tmp_path / "cut") == everything  # the bar starts at what is done
    assert len(asked) == everything - len(first)
    assert not set(asked) & set(first)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_killed_after_two_groups_it_goes_on_after_them(
    bench: Workbench, tasks: list[SkillTask], tmp_path: Path, asked: list[str]
) -> None:
    evaluate(bench, tasks, tmp_path / "whole")
    child = os.fork()
    if not child:
        signal.alarm(100)  # a child that hangs is a failure, not a test that never ends
        try:
            with pytest.MonkeyPatch.context() as patch:
                cut_after(patch, 2)
                evaluate(bench, tasks, tmp_path / "killed")
        except PowerCut:
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    asked.clear()
    evaluate(bench, tasks, tmp_path / "killed")
    assert len(asked) == 12
    assert written(tmp_path / "killed") == written(tmp_path / "whole")


def test_answers_to_another_question_or_of_another_checkpoint_are_not_used(
    bench: Workbench, tasks: list[SkillTask], tmp_path: Path, asked: list[str]
) -> None:
    evaluate(bench, tasks, tmp_path)
    asked.clear()
    evaluate(bench, tasks, tmp_path)
    assert not asked  # all are there until they are forgotten
    evaluate(bench, [replace(tasks[0], instruction="One word."), *tasks[1:]], tmp_path)
    assert len(asked) == len(tasks[0].samples)
    other = SavedSkills(tmp_path, tasks, {"checkpoint": "another"})
    assert not other.known
    saved_skills.forget_saved_skills(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "predictions.jsonl"]


def test_a_damaged_file_is_answered_again(
    bench: Workbench, tasks: list[SkillTask], tmp_path: Path, asked: list[str]
) -> None:
    evaluate(bench, tasks, tmp_path / "whole")
    file = sorted((tmp_path / "whole" / FOLDER).iterdir())[0]
    before = written(tmp_path / "whole")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    asked.clear()
    evaluate(bench, tasks, tmp_path / "whole")
    assert len(asked) == 12
    assert written(tmp_path / "whole") == before

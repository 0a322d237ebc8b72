"""Skills that a checkpoint has answered, kept while the evaluation is not complete.

Every group of skills is one file, written beside its place and renamed as soon as the group's last answer is there, so
a killed evaluation goes on after it. A file says for every skill what was asked, of which checkpoint, and how; answers
to something else are not used. The folder goes when the evaluation is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import liit
from liit.evaluation.evaluate import SkillAnswers, SkillTask
from liit.lifelong.rundir import finite, write_text

FOLDER = "evaluation.part"


class SavedSkills:
    """The skills answered so far.

    Args:
        out: directory of the evaluation.
        tasks: all that is asked.
        how: what else the answers depend on: the checkpoint, the template, the longest answer.
    """

    def __init__(self, out: Path, tasks: Sequence[SkillTask], how: dict[str, Any]) -> None:
        self.path = out / FOLDER
        self._keys = {task.skill: _key(task, how) for task in tasks}
        self.known: dict[str, SkillAnswers] = {}
        for file in sorted(self.path.glob("*.json")):
            for entry in _read(file):
                if self._keys.get(entry["skill"]) == entry["key"]:
                    self.known[entry["skill"]] = SkillAnswers(entry["skill"], entry["result"], entry["predictions"])

    def save(self, skills: Sequence[SkillAnswers]) -> None:
        """Keep skills whose answers are all there, in one file: all of them or, after a kill, none."""
        self.path.mkdir(parents=True, exist_ok=True)
        entries = [
            {"skill": s.skill, "key": self._keys[s.skill], "result": s.result, "predictions": s.predictions}
            for s in skills
        ]
        text = json.dumps(finite(entries), ensure_ascii=False, allow_nan=False)
        file = self.path / f"{_sha256(text)[:16]}.json"
        write_text(file, f"{_sha256(text)}\n{text}\n")


def forget_saved_skills(out: Path) -> None:
    """The evaluation is complete: `evaluation.json` and `predictions.jsonl` have everything."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def _read(file: Path) -> list[Any]:
    """What a file holds; nothing when its bytes have changed, so that these skills are answered again."""
    digest, _, text = file.read_text(encoding="utf-8", errors="replace").partition("\n")
    text = text.removesuffix("\n")
    return list(json.loads(text)) if digest == _sha256(text) else []


def _key(task: SkillTask, how: dict[str, Any]) -> str:
    return _sha256(json.dumps([liit.__version__, how, task.skill, task.identity], sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()

"""Task files: how one skill is measured, in a file of its own that any continuum can name.

A continuum's item `- task: FILE` becomes the inline item that the file stands for, before the continuum is checked. So
the resolved continuum in a run directory has everything and needs the task file no more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from liit.config.explain import explain, place_of, shown
from liit.config.schema import TaskFile
from liit.config.yaml_text import Key, read_yaml
from liit.errors import InputError


def read_task(path: Path, name: str | None = None) -> tuple[TaskFile, dict[Key, str]]:
    """Read a task file.

    Args:
        path: The YAML file. Paths inside it start from its folder.
        name: What to call it in messages; the path unless given.

    Returns:
        What it says, and the place of every key.

    Raises:
        InputError: One line: the file, the line, the key, what was given, what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{name or path}: cannot read the task file: {reason}") from error
    value, places = read_yaml(text, name or str(path))
    if not isinstance(value, dict):
        raise InputError(
            f"{place_of((), places)}: expected keys and values (skill, version, path, metric, ...), got {shown(value)}"
        )
    try:
        task = TaskFile.model_validate_json(json.dumps(value), context={"base": path.absolute().parent})
    except ValidationError as error:
        raise InputError(explain(error, places, value, TaskFile)) from error
    return task, places


def put_in_tasks(value: dict[str, Any], places: dict[Key, str], base: Path) -> set[Key]:
    """Replace every item that names a task file by what the file says.

    Args:
        value: A continuum as read from YAML, not checked yet; changed in place.
        places: The place of every key; those of the replaced items then name the task file and its lines.
        base: The folder that paths start from.

    Returns:
        The key paths of the items that came from task files.

    Raises:
        InputError: An item has other keys beside `task`, or the task file is wrong.
    """
    steps = value.get("steps")
    lists: list[tuple[Key, Any]] = [(("unseen",), value.get("unseen"))]
    for number, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, dict):
            lists.append((("steps", number, "evaluation"), step.get("evaluation")))
    found: set[Key] = set()
    for key, items in lists:
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict) and "task" in item:
                items[index] = _expanded(item, (*key, index), places, base)
                found.add((*key, index))
    return found


def _expanded(item: dict[str, Any], key: Key, places: dict[Key, str], base: Path) -> dict[str, Any]:
    at = place_of((*key, "task"), places)
    for other in item:
        if other != "task":
            place = place_of((*key, other), places)
            raise InputError(
                f"{place}: '{other}' stands beside 'task', which says everything; put it into the task file"
            )
    if not isinstance(item["task"], str):
        raise InputError(f"{at}: task: got {shown(item['task'])}, expected the path of a task file")
    path = Path(base, Path(item["task"]).expanduser())
    if not path.is_file():
        raise InputError(f"{at}: there is no task file {path}; paths start from the continuum file's folder")
    task, inside = read_task(path)
    for below in [old for old in places if old[: len(key)] == key]:
        del places[below]
    for part, place in inside.items():
        places[(*key, *part)] = place
    return task.model_dump(mode="json", exclude={"description"})

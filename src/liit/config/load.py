"""From a YAML file and overrides to a checked `Continuum`, and back to text and to an identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from liit.config.explain import explain, place_of, shown
from liit.config.schema import Continuum, EvaluationSet, TrainSet
from liit.config.task_files import put_in_tasks
from liit.config.yaml_text import Key, read_yaml, write_yaml
from liit.data.containers import dataset_files
from liit.errors import InputError

RUNTIME_KEYS = (
    ("evaluation", "batch_size"),
    ("features", "batch_tokens"),
    ("features", "share_beginnings"),
    ("training", "save_steps"),
    ("training", "report_to"),
)


def load_config(path: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True) -> Continuum:
    """Read a continuum file.

    Args:
        path: The YAML file. Paths inside it start from its folder.
        overrides: Texts like "training.epochs=3" or "steps.0.name=first" that replace a value of the file; the value is
            YAML, and paths in it start from the file's folder too.
        check_files: Whether every data file and image folder must exist.

    Returns:
        The continuum, every default filled in and every path absolute.

    Raises:
        InputError: One line: the file, the line, the key, what was given, what was expected, the nearest right name.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot read the continuum file: {reason}") from error
    value, places = read_yaml(text, str(path))
    if not isinstance(value, dict):
        raise InputError(
            f"{place_of((), places)}: expected keys and values (name, budget, model, steps, ...), got {shown(value)}"
        )
    for override in overrides:
        _override(value, places, override)
    tasks = put_in_tasks(value, places, path.absolute().parent)
    try:
        continuum = Continuum.model_validate_json(json.dumps(value), context={"base": path.absolute().parent})
    except ValidationError as error:
        raise InputError(explain(error, places, value)) from error
    if check_files:
        _check_files(continuum, places, tasks)
    return continuum


def dump_config(continuum: Continuum) -> str:
    """Write a continuum as YAML, every default filled in; `load_config` reads the same object back from any folder."""
    return write_yaml(continuum.model_dump(mode="json"))


def config_sha256(continuum: Continuum) -> str:
    """Return the identity of a run: equal exactly when two continua must give the same results.

    Everything counts, the method, the seed and the paths included, except `evaluation.batch_size`,
    `features.batch_tokens`, `features.share_beginnings`, `training.save_steps` and `training.report_to`: they change
    speed, memory and what is shown, never results, and may be changed when a run is resumed.

    Args:
        continuum: A continuum from `load_config`.

    Returns:
        64 hexadecimal digits.
    """
    value = continuum.model_dump(mode="json")
    for section, key in RUNTIME_KEYS:
        del value[section][key]
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _override(value: dict[str, Any], places: dict[Key, str], override: str) -> None:
    """Put one `key=value` into the raw value, and remember that it came from the command line."""
    place = f"--set {override}"
    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise InputError(f"{place}: expected key=value, for example training.epochs=3")
    *parents, last = (int(part) if part.isdigit() else part for part in dotted.split("."))
    target: Any = value
    for depth, part in enumerate(parents):
        if isinstance(target, dict) and target.get(part) is None:  # not there, or `training:` with nothing below it
            target[part] = {}
            places[tuple(parents[: depth + 1])] = place
        target = _inside(target, part, place, dotted)[part]
    _inside(target, last, place, dotted)[last] = read_yaml(text, place)[0]
    key = (*parents, last)
    for below in [old for old in places if old[: len(key)] == key]:
        del places[below]
    places[key] = place


def _inside(target: Any, part: str | int, place: str, dotted: str) -> Any:
    """Return `target` if `part` can be a key of it; a list can only be changed where it has an item."""
    if isinstance(target, list) and isinstance(part, int) and part < len(target):
        return target
    if isinstance(target, dict) and isinstance(part, str):
        return target
    has = f"a list of {len(target)}, counted from 0" if isinstance(target, list) else shown(target)
    raise InputError(f"{place}: there is no '{part}' to set in '{dotted}': what it should be part of is {has}")


def _check_files(continuum: Continuum, places: dict[Key, str], tasks: set[Key]) -> None:
    """Make sure that every file and folder the continuum names exists."""
    sets: list[tuple[Key, TrainSet | EvaluationSet]] = [
        (("steps", number, "train", index), item)
        for number, step in enumerate(continuum.steps)
        for index, item in enumerate(step.train)
    ]
    for key, item in [*sets, *continuum.evaluation_sets()]:
        folder = "the task file's folder" if key in tasks else _FOLDER
        if not item.path.is_file():  # a folder or a pattern may name files too
            try:
                dataset_files(item.path)
            except InputError as error:
                raise InputError(
                    f"{place_of((*key, 'path'), places)}: there is no file {item.path}; paths start from {folder}"
                ) from error
        if item.images is not None and not item.images.is_dir():
            raise InputError(
                f"{place_of((*key, 'images'), places)}: there is no folder {item.images}; paths start from {folder}"
            )
    model = continuum.model.path
    if Path(model).is_absolute() and not Path(model).is_dir():
        raise InputError(f"{place_of(('model', 'path'), places)}: there is no folder {model} with a model")


_FOLDER = "the continuum file's folder"

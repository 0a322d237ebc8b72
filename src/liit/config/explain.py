"""From pydantic's list of errors to the one line that a person needs."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from liit.config.schema import Continuum, MisplacedError
from liit.config.yaml_text import Key
from liit.errors import nearest


def explain(error: ValidationError, places: Mapping[Key, str], value: Any, schema: type[BaseModel] = Continuum) -> str:
    """Describe the problem to mend first.

    Args:
        error: What pydantic found.
        places: The place of every key, from `read_yaml`.
        value: The value that was validated.
        schema: What it was validated against.

    Returns:
        One line: place, key, what was given, what was expected; and how many more problems there are.
    """
    problems: dict[Key, list[Any]] = {}  # a union reports one item per branch, all with the same key
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        key = cause.key if isinstance(cause, MisplacedError) else _key_in(value, item["loc"])
        problems.setdefault(key, []).append(item)
    first = min(problems, key=lambda key: _urgency(problems[key][0], place_of(key, places)))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place_of(first, places)}: {_problem(problems[first], first, schema)}{more}"


def place_of(key: Key, places: Mapping[Key, str]) -> str:
    """Return the place of a key, or of the nearest key above it that stands in the file."""
    while key not in places:
        key = key[:-1]
    return places[key]


def shown(value: Any) -> str:
    """Write a value as the user knows it: as YAML would have it on one line, shortened."""
    if value is None:
        return "nothing"
    text = f"'{' '.join(value.split())}'" if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _urgency(item: Any, place: str) -> tuple[int, int]:
    """Order problems: a misspelt key is also a missing one, so the misspelling comes first; then down the file."""
    line = re.search(r"line (\d+)$", place)
    return {"extra_forbidden": 0, "missing": 2}.get(item["type"], 1), int(line[1]) if line else 0


def _problem(items: list[Any], key: Key, schema: type[BaseModel]) -> str:
    item = items[0]
    name = str(key[-1]) if key else ""
    cause = item.get("ctx", {}).get("error")
    if item["type"] == "extra_forbidden":
        known = tuple(_model_at(key[:-1], schema).model_fields)
        near = nearest(name, known)
        return f"unknown key '{name}' in {_section(key[:-1])}" + (
            f"; did you mean '{near}'?" if near else f" (known: {', '.join(known)})"
        )
    if item["type"] == "missing":
        field = _model_at(key[:-1], schema).model_fields[name]
        return f"missing key '{name}' in {_section(key[:-1])}: {field.description}"
    if isinstance(cause, MisplacedError):
        return str(cause)
    if item["type"] == "value_error":
        return f"{dotted(key)}: {cause}"
    depth = max(len(branch["loc"]) for branch in items)  # the branch that got furthest is the one that was meant
    items = [branch for branch in items if len(branch["loc"]) == depth]
    expected = " or ".join(dict.fromkeys(_expected(branch) for branch in items))
    return f"{dotted(key)}: got {shown(items[0]['input'])}, expected {expected}"


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text of at least one character",
    "tuple_type": "a list",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "path_type": "a path",
}


def _expected(item: Any) -> str:
    expected: str = _EXPECTED.get(item["type"], item["msg"].removeprefix("Input should be "))
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        near = nearest(item["input"], re.findall(r"'([^']+)'", expected))
        expected += f"; did you mean '{near}'?" if near else ""
    if item["type"] == "string_type" and isinstance(item["input"], int | float):
        expected += " (put it in quotes)"
    return expected


def dotted(key: Key) -> str:
    """Write a key as `--set` takes it."""
    return ".".join(str(part) for part in key)


def _section(key: Key) -> str:
    return f"'{dotted(key)}'" if key else "the top level"


def _key_in(value: Any, loc: tuple[int | str, ...]) -> Key:
    """Drop the parts of a pydantic location that name a branch of a union, not a key of the file."""
    key: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(value, dict) and isinstance(part, str):
            if part not in value and index < len(loc) - 1:
                break
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            break
        key.append(part)
    return tuple(key)


def _model_at(key: Key, schema: type[BaseModel]) -> type[BaseModel]:
    """Return the schema class of the section at a key."""
    model = schema
    named = False  # whether the next part is a name that the user chose, as in `methods`
    for part in key:
        if named:
            named = False
        elif isinstance(part, str):
            annotation = model.model_fields[part].annotation
            named = get_origin(annotation) is dict
            model = _model_in(annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, Union, types.UnionType, Annotated):
        return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
    return None

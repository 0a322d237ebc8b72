"""The reference of the continuum file lists exactly the keys that exist, with their defaults."""

from __future__ import annotations

import re

from pages import ROOT
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from liit.config import Continuum, EvaluationSet, Step, TrainSet
from liit.config.schema import HookSettings, MethodSettings, QuerySet, ReplaySettings

PAGE = ROOT / "docs" / "continuum-yaml.md"
LISTS = {
    "steps[]": Step, "steps[].train[]": TrainSet, "steps[].dev[]": QuerySet, "steps[].evaluation[]": EvaluationSet,
    "methods.NAME": MethodSettings, "methods.NAME.replay": ReplaySettings, "methods.NAME.hooks[]": HookSettings,
}  # fmt: skip


def rows_of(model: type[BaseModel], prefix: str) -> dict[str, str]:
    """Return the table rows of one section: key to default as the page writes it."""
    rows: dict[str, str] = {}
    for name, field in model.model_fields.items():
        default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
        if isinstance(default, BaseModel) or (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            rows |= rows_of(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            rows[prefix + name] = written(default)
    return rows


def written(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "null"
    if isinstance(default, dict):
        return "{}"
    if isinstance(default, tuple):
        return "[" + ", ".join(map(str, default)) + "]"
    return str(default).lower() if isinstance(default, bool) else str(default) or '""'


def test_the_page_lists_every_key_with_its_default() -> None:
    expected = rows_of(Continuum, "")
    for prefix, model in LISTS.items():
        expected |= rows_of(model, f"{prefix}.")
    found = dict(re.findall(r"^\| `([^`]+)` \| `?([^|`]*)`? \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert found == expected

"""What single values of the continuum file may be: names, paths, lists, and the base of its sections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from liit.config import names
from liit.errors import unknown_name

BUILTIN_MODELS = ("builtin:demo",)
Items = TypeVar("Items", bound=tuple[object, ...])
Dtype = Literal["float32", "bfloat16", "float16"]
Tracker = Literal["tensorboard", "wandb", "trackio"]


def safe_name(text: str) -> str:
    """A name that can be part of a file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise ValueError(
            f"got '{text}', expected a name that can be part of a file name: "
            "letters, digits, '.', '_' and '-', at most 64 of them, the first a letter or digit"
        )
    return text


def method_name(text: str) -> str:
    """A name of a method."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", text):
        raise ValueError(
            f"got '{text}', expected a name of letters, digits, '.', '_', '+' and '-', at most 64 of them, the first a "
            "letter or digit"
        )
    return text


def resolve(path: Path, info: ValidationInfo) -> Path:
    """Make a path absolute, taking it from the folder of the continuum file (or the working directory without one)."""
    base = (info.context or {}).get("base", Path.cwd())
    return Path(base, path.expanduser()).resolve()


def resolve_model(path: str, info: ValidationInfo) -> str:
    """Keep `builtin:` names and hub ids; make everything that is a path absolute."""
    if path.startswith("builtin:"):
        if path not in BUILTIN_MODELS:
            raise ValueError(unknown_name("built-in model", path, BUILTIN_MODELS))
        return path
    local = resolve(Path(path), info)
    return str(local) if path.startswith(("/", ".", "~")) or local.exists() else path


def some(items: Items) -> Items:
    """A list of at least one item."""
    # Not Field(min_length=1): pydantic counts only the valid items, so one wrong item would be reported twice.
    if not items:
        raise ValueError("got an empty list, expected at least one item")
    return items


def regex_or_names(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """A list of names, or a regular expression that compiles."""
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"got '{value}', expected a regular expression, but {error}") from error
    return value


def ascending(grid: tuple[int, ...]) -> tuple[int, ...]:
    """Different numbers in ascending order."""
    if list(grid) != sorted(set(grid)):
        raise ValueError(f"got {list(grid)}, expected different numbers in ascending order")
    return grid


def different(items: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once."""
    if len(set(items)) != len(items):
        raise ValueError(f"got {list(items)}, expected each name once")
    return items


FileName = Annotated[str, AfterValidator(safe_name)]
LocalPath = Annotated[Path, AfterValidator(resolve)]
Text = Annotated[str, Field(min_length=1)]
MethodName = Annotated[str, AfterValidator(method_name)]
Selector = Annotated[str, AfterValidator(names.one_of("selector", names.selectors))]
Format = Annotated[str, AfterValidator(names.one_of("format", names.formats))]
Metric = Annotated[str, AfterValidator(names.one_of("metric", names.metrics)), AfterValidator(names.usable_metric)]
Expert = Annotated[str, AfterValidator(names.one_of("expert", names.experts))]
ExpertMode = Annotated[str, AfterValidator(names.one_of("way to choose an expert", names.expert_modes))]
Layer = Literal["middle"] | int
Layers = Literal["middle", "all"] | int | Annotated[tuple[int, ...], AfterValidator(some)]


EmbeddingLayers = Layer | Annotated[tuple[Layer, ...], AfterValidator(some)]


class Section(BaseModel):
    """Keys that are all known, with values that are taken as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

"""What commands print: facts as lines for people, or as JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from liit.lifelong.rundir import finite

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]


def console(as_json: bool) -> Console:
    """Where progress goes: to the error stream when the output is for a script."""
    return Console(stderr=as_json)


def facts(values: Mapping[str, Any], as_json: bool) -> None:
    """Print a command's result."""
    if as_json:
        print(json.dumps(finite(values), default=str))
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
        elif isinstance(value, float):
            value = f"{value:.4g}"
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        print(f"{name.replace('_', ' ')}: {value}")

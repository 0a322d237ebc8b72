"""The page on training lists every option of every hook with its default, and every rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from liit.lifelong.workbench import ADAPTER_RULES
from liit.training.hooks import find_hook

PAGE = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, str]:
    section = PAGE.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return dict(re.findall(r"^\| `([a-z_]+)` \| `([^`]*)` \|", section, flags=re.M))


@pytest.mark.parametrize("name", ["gradient-guidance", "ewc"])
def test_every_option_is_listed_with_its_default(name: str) -> None:
    expected = {key: yaml.safe_dump(value).split("\n")[0] for key, value in find_hook(name).options.items()}
    assert table(name) == expected


def test_every_rule_is_listed() -> None:
    section = PAGE.partition("## What a step starts from")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(continue|merge|new)`", section, flags=re.M)) == set(ADAPTER_RULES)

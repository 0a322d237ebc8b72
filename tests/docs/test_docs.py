"""What the documentation says is true: its Python runs, its YAML is valid, its commands exist, its links resolve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, anchors, blocks, links, pages

from liit.config import load_config

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
WITH_PYTHON = [page for page in pages() if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_snippets_run_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    """The blocks of one page are one program, in an empty folder; blank lines keep the page's line numbers."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python" and not block.skipped:
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{page.relative_to(ROOT)}:\n{done.stderr}"


@PAGES
def test_yaml_snippets_are_valid_continua(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml" and not block.skipped:
            path = tmp_path / f"{page.name} from line {block.line}"
            path.write_text(block.text, encoding="utf-8")
            load_config(path, check_files=False)


@PAGES
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue  # needs a network, which tests do not
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_of_docs_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    reached = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in pages() if page.parent == index.parent} - reached == {index}

"""The documentation as data: which pages there are, their fenced blocks, their headings and their links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIP = re.compile(r"<!-- not run: .+ -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: language, text, the line number of its first line, and whether the page says not to run it."""

    language: str
    text: str
    line: int
    skipped: bool


def pages() -> list[Path]:
    """Every page for people: the Markdown files at the top of the repository and in docs/."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks. `<!-- not run: why -->` on the line before a fence marks one not to run."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = number
        elif start is not None and line.rstrip() == "```":
            before = lines[start - 1] if start else ""
            text = "\n".join(lines[start + 1 : number]) + "\n"
            found.append(Block(lines[start][3:].strip(), text, start + 2, bool(SKIP.fullmatch(before.strip()))))
            start = None
    if start is not None:
        raise ValueError(f"{page}:{start + 1}: this fence is never closed")
    return found


def prose(page: Path) -> str:
    """Return a page without its fenced blocks and inline code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    inline = re.findall(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)", prose(page))
    return [*inline, *re.findall(r'(?:src|href)="([^"]+)"', prose(page))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings get on code hosting sites."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}

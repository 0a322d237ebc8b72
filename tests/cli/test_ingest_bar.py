from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from liit.cli.ingest_bar import ingest_bar


def test_the_bar_shows_rows_rate_and_share_on_a_terminal_and_nothing_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 400)
    for terminal in (True, False):
        screen = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with ingest_bar(screen, "coco", [tmp_path / "a"]) as (rows, read):
            rows(1234)
            read(100)
        said = screen.file.getvalue()  # type: ignore[attr-defined]
        assert bool(said) == terminal
        assert all((word in said) == terminal for word in ("ingest coco", "1,234 rows", "25 %", "/s"))

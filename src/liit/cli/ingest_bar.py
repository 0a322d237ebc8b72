"""The bar of an ingest: rows read, rate, and the time left by the bytes of the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def ingest_bar(screen: Console, name: str, files: list[Path]) -> Iterator[tuple[Callable[[int], None], ...]]:
    """Show a bar on a terminal while files are read; nothing elsewhere.

    Args:
        screen: Where to.
        name: Of the dataset.
        files: Its files.

    Yields:
        Two functions: one to be called with the rows read so far, one with the bytes read so far.
    """
    total = sum(file.stat().st_size for file in files)
    start = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %  {task.fields[rows]} rows  {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(f"ingest {name}", total=total or 1, rows="0", rate="")

        def rows(count: int) -> None:
            rate = count / max(1e-9, time.perf_counter() - start)
            bar.update(task, rows=f"{count:,}", rate=f"{rate:,.0f}/s")

        def read(count: int) -> None:
            bar.update(task, completed=count)

        yield rows, read

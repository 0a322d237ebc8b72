"""What a run shows while it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Shows nothing; the base of those that do."""

    @contextmanager
    def stage(self, number: int | None, step: str, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Surround a stage; the function given is called with the number of units just done.

        Args:
            number: of the step; None for a stage alone.
            step: its name, or what the stage works on.
            name: of the stage.
            total: units that there are, when that is known.
        """
        del number, step, name, total
        yield lambda done: None

    def note(self, text: str) -> None:
        """Say something about the stage at hand."""

    def beside_rate(self, text: str) -> None:
        """What to show beside the rate of the stage at hand, from its next progress on."""

    def say(self, text: str) -> None:
        """Say something about the run."""


class ConsoleReporter(Reporter):
    """A bar with rate and time left on a terminal; one line per finished stage anywhere.

    Args:
        console: where to.
        label: put before every line, such as the method's name.
    """

    def __init__(self, console: Console, label: str = "") -> None:
        self.console, self.label = console, f"{label}: " if label else ""
        self._notes: list[str] = []
        self._beside = ""

    @contextmanager
    def stage(self, number: int | None, step: str, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a bar while the stage runs and a line when it is done."""
        start = time.perf_counter()
        self._notes.clear()
        self._beside = ""
        title = f"{self.label}{'' if number is None else f'step {number} '}{step}, {name}"
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total}  {task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        done = 0
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(title, total=total, rate="")

            def progress(units: int) -> None:
                nonlocal done
                done += units
                rate = done / max(1e-9, time.perf_counter() - start)
                bar.update(task, completed=done, rate=f"{rate:.1f}/s{self._beside}")

            yield progress
        seconds = time.perf_counter() - start
        rate = f" ({done / seconds:.{0 if done > 10 * seconds else 1}f}/s)" if total and done else ""
        notes = "".join(f"; {note}" for note in self._notes)
        self._line(f"{title}: {seconds:.1f} s{rate}{notes}")

    def note(self, text: str) -> None:
        """Add to the line of the stage at hand."""
        self._notes.append(text)

    def beside_rate(self, text: str) -> None:
        """Show it after the rate on the bar."""
        self._beside = f", {text}" if text else ""

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._line(f"{self.label}{text}")

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

"""Ctrl-C stops the program, whatever a library makes of it.

Python turns it into a KeyboardInterrupt wherever the main thread is at that moment, and that may be in a library that
turns it into an error of its own (transformers does, while it imports a module: "Could not import module"), or in the
callback of a weak reference, where an exception is printed and lost.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from types import FrameType

_AGAIN = 0.05
"""Seconds until an interrupt that got lost is raised again; by then the callback that lost it has ended."""


class Interrupts:
    """Whether the user has pressed Ctrl-C."""

    def __init__(self) -> None:
        self.seen = False

    def watch(self) -> None:
        """Note every Ctrl-C from now on, and raise those again that get lost; not where they are ignored."""
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        signal.signal(signal.SIGINT, self._interrupt)
        shown = sys.unraisablehook

        def lost(what: sys.UnraisableHookArgs) -> None:
            if not issubclass(what.exc_type, KeyboardInterrupt):
                shown(what)
                return
            timer = threading.Timer(_AGAIN, _thread.interrupt_main)
            timer.daemon = True
            timer.start()

        sys.unraisablehook = lost

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt

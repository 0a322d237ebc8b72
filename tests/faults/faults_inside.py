"""What a process under test may do to itself before it becomes the command; `Zygote.start(before=...)` names one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

READ_AND_SEARCH_ANYTHING, WRITE_ANYTHING, OWN_ANYTHING = 2, 1, 3
CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")


def announce_stages() -> None:
    """Print a line when a stage of a run begins; the program itself has one for the end of each."""
    from liit.lifelong.loop import Loop

    inner = Loop._stage

    def stage(self: Loop, number: int, name: str, *arguments: Any, **options: Any) -> None:
        if self.directory.facts(number, name) is None:
            print(f"begin {number} {name}", flush=True)
        inner(self, number, name, *arguments, **options)

    Loop._stage = stage  # type: ignore[method-assign]


def die_before(root: str, which: int) -> None:
    """Be killed before a file below `root` is opened, renamed, removed or made for the `which`-th time, counted from 1.

    That is after whatever came before it, so all of these instants lie on both sides of every rename and commit. With
    0 nothing dies, and the number of such instants is printed at the end.
    """
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in CHANGES or not any(root in os.fsdecode(a) for a in arguments if isinstance(a, str | bytes)):
            return
        seen += 1
        if seen == which:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    if which == 0:
        import atexit

        atexit.register(lambda: print(f"instants {seen}", flush=True))


def obey_permissions() -> None:
    """Give up root's right to write where permissions forbid it, so that a directory can be read-only for tests."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the call, this process
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for right in (WRITE_ANYTHING, READ_AND_SEARCH_ANYTHING, OWN_ANYTHING):
        sets[0] &= ~(1 << right)  # effective
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")

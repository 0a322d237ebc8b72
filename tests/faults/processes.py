"""`liit` in real processes, started by `zygote.py`: killed, limited, or left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tiny import SOURCE

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code (negative: the signal), and what it printed."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """Whether it ended as a command that cannot do its work must: exit code 1 or 2, and one line that says why."""
        return self.code in (1, 2) and self.err.startswith("liit: error: ") and self.err.count("\n") == 1


@dataclass
class Running:
    """A command that runs."""

    pid: int
    lines: TextIO
    _errors: TextIO
    _zygote: Zygote

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)  # nobody has waited for it, so the number still is its own

    def wait(self) -> Ended:
        """Wait for the end."""
        out, err = self.lines.read(), self._errors.read()
        self.lines.close()
        self._errors.close()
        code = self._zygote.ask(do="wait", pid=self.pid)["code"]
        return Ended(code, out, err)


class Zygote:
    """The process that forks.

    Args:
        scratch: folder for its own files.
        environment: of every command, beside this process's.
    """

    def __init__(self, scratch: Path, environment: Mapping[str, str]) -> None:
        self.scratch, self._number = scratch, 0
        path = os.pathsep.join([str(SOURCE), str(HERE)])
        self.clock = scratch / "clock"
        self.clock.write_bytes(bytes(8))
        self.clock_can_jump = _compile_clock(scratch / "clock.so")
        fixed = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        if self.clock_can_jump:
            fixed |= {"LD_PRELOAD": str(scratch / "clock.so"), "FAULTS_CLOCK": str(self.clock)}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **fixed, **environment},
        )

    def ask(self, **request: Any) -> dict[str, int]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def set_clock(self, seconds: int) -> None:
        """Let the wall clock of every command be wrong by so many seconds from now on."""
        with self.clock.open("r+b") as file:  # in place: the processes see this very file
            file.write(struct.pack("l", seconds))

    def start(
        self,
        *arguments: str | Path,
        folder: Path = HERE,
        file_size: int | None = None,
        before: Sequence[Any] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """Start a command.

        Args:
            arguments: of the command line, without the program's name.
            folder: to work in.
            file_size: no file may grow beyond so many bytes.
            before: name and arguments of a function of `faults_inside` that the process calls first.
            environment: variables.
        """
        self._number += 1
        pipes = {name: self.scratch / f"{self._number}.{name}" for name in ("out", "err")}
        streams = []
        for pipe in pipes.values():
            os.mkfifo(pipe)
            streams.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
        pid = self.ask(
            do="start",
            arguments=list(map(str, arguments)),
            folder=str(folder),
            file_size=file_size,
            before=list(before),
            environment=dict(environment or {}),
            **{name: str(pipe) for name, pipe in pipes.items()},
        )["pid"]
        for stream, pipe in zip(streams, pipes.values(), strict=True):
            os.set_blocking(stream, True)
            pipe.unlink()
        out, errors = (os.fdopen(stream, encoding="utf-8", errors="replace") for stream in streams)
        return Running(pid, out, errors, self)

    def run(self, *arguments: str | Path, **options: Any) -> Ended:
        """Start a command and wait for its end."""
        return self.start(*arguments, **options).wait()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@contextmanager
def zygote_in(scratch: Path, **environment: str) -> Iterator[Zygote]:
    """A zygote for the length of a block."""
    process = Zygote(scratch, environment)
    try:
        yield process
    finally:
        process.close()


def _compile_clock(target: Path) -> bool:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return False
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(HERE / "clock.c"), "-ldl"]
    return subprocess.run(command, capture_output=True).returncode == 0

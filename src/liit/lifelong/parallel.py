"""Several runs side by side, each in a process of its own.

A small model gains little from a second thread, so two methods on two cores finish sooner side by side than one after
the other. Each process gets its share of the cores, a GPU of its own where there are as many, a passive wait policy
(threads that spin take the core from the other process) and an allocator that keeps large blocks (fresh pages are dear
on some machines). Variables that the user has set are left as they are, but for ``CUDA_VISIBLE_DEVICES``: of the GPUs
that it names each process gets one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from liit.errors import InputError

TUNED = {
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "TOKENIZERS_PARALLELISM": "false",
}


ENDS_WITH_STDIN = "LIIT_ENDS_WITH_STDIN"


class JobError(RuntimeError):
    """One of several runs failed; its own lines say more."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be made.

    Attributes:
        label: put before its lines.
        arguments: of the command line, without the program's name.
    """

    label: str
    arguments: tuple[str, ...]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cards() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; without one, none."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def side_by_side() -> int:
    """Processes to have at once unless told: one per GPU, since each loads the model; without any one per core."""
    return len(cards()) or cores()


def threads_each(at_once: int, jobs: int) -> int:
    """Threads of each process: what the user has set, else its share of the cores.

    Args:
        at_once: processes side by side, at most.
        jobs: how many there are in all.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": the second is for nested regions
    if first.isdecimal() and int(first):
        return int(first)
    return max(1, cores() // max(1, min(at_once, jobs)))


def child_environment(threads: int) -> dict[str, str]:
    """Environment of one process with so many threads; all else that the user has set stays."""
    return {**TUNED, **os.environ, "OMP_NUM_THREADS": str(threads)}


def places(at_once: int) -> list[dict[str, str]]:
    """Variables that give each of some processes side by side its GPU, in turn; nothing where there is none."""
    found = cards()
    return [{"CUDA_VISIBLE_DEVICES": found[n % len(found)]} if found else {} for n in range(at_once)]


def end_with_parent() -> None:
    """In a process that `run_jobs` started: end when the one that started it is gone, even killed.

    Else it would go on by itself, and the same command, given again, would find its directory taken. The system closes
    the other end of the standard input when a process ends, however it ends.
    """
    if os.environ.pop(ENDS_WITH_STDIN, None) is None:
        return

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_jobs(jobs: Sequence[Job], at_once: int, show: Callable[[str], None], threads: int | None = None) -> None:
    """Run jobs, at most so many at once, in the order given.

    The first that fails stops the others; what they have done stays on disk, and the same call goes on from there.

    Args:
        jobs: what to run.
        at_once: processes side by side.
        show: gets every line that they print.
        threads: of each; None: see `threads_each`.

    Raises:
        InputError: a job said that its input is wrong.
        JobError: a job failed otherwise.
    """
    each = threads_each(at_once, len(jobs)) if threads is None else threads
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for place in places(max(1, at_once)):
        free.put(place)
    running: set[subprocess.Popen[str]] = set()
    lock = threading.Lock()
    stopped = threading.Event()

    def work(job: Job) -> None:
        place = free.get()
        try:
            run(job, place)
        finally:
            free.put(place)

    def run(job: Job, place: dict[str, str]) -> None:
        with lock:  # so that a process is either seen by who stops them, or not started
            if stopped.is_set():
                return
            process = subprocess.Popen(  # noqa: S603 (this program itself, arguments as a list)
                [sys.executable, "-m", "liit", *job.arguments],
                env={**child_environment(each), **place, ENDS_WITH_STDIN: "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=Path.cwd(),
            )
            running.add(process)
        last = ""
        assert process.stdout is not None
        for line in process.stdout:
            last = line.rstrip()
            show(f"{job.label}: {last}")
        code = process.wait()
        with lock:
            running.discard(process)
        if code and not stopped.is_set():
            stopped.set()
            message = last.removeprefix("liit: ").removeprefix("error: ")
            if code == 2:
                raise InputError(f"{job.label}: {message}")
            raise JobError(f"{job.label} ended with code {code}: {message}")

    with ThreadPoolExecutor(max_workers=max(1, at_once)) as executor:
        futures = [executor.submit(work, job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        except BaseException:
            stopped.set()
            with lock:
                for process in running:
                    process.terminate()
            raise

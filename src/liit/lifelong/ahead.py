"""The frozen vision tower's outputs for every image of a continuum, computed before several runs need them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from liit.config import Continuum
from liit.data.pool import Pool
from liit.data.sample import ImageRef
from liit.lifelong.parallel import places
from liit.lifelong.stages import ingest_step, read_tasks
from liit.lifelong.workbench import Workbench
from liit.model.vision import VisionCache

Rows = Sequence[Sequence[ImageRef]]


def keep_vision_states(continuum: Continuum, place: Path, processes: int) -> int:
    """Compute what is not kept yet of all training and evaluation images; how many that were.

    Then no method pays in its selection for images that another one finds there.

    Args:
        continuum: data and model.
        place: folder that gets a pool of all the data.
        processes: side by side; the small convolutions of a tower gain nothing from a second thread.
    """
    if not continuum.model.vision_cache:
        return 0
    pool = Pool.open_or_create(place / "pool")
    for number, step in enumerate(continuum.steps, start=1):
        ingest_step(pool, step, number)
    tasks = read_tasks(place / "evaluation", [item for _, item in continuum.evaluation_sets()])
    rows = [sample.images for batch in pool.scan() for sample in batch if sample.images]
    rows += [sample.images for task in tasks for sample in task.samples if sample.images]
    distinct = list({tuple(image.sha256 for image in row): row for row in rows}.values())
    return in_processes(fill_rows, continuum, distinct, processes)


def in_processes(work: Callable[[Continuum, Rows], int], continuum: Continuum, rows: Rows, processes: int) -> int:
    """Share rows of images among processes of one thread each; the sum of what they return."""
    shares = [rows[part::processes] for part in range(processes)]
    spawn = get_context("spawn")
    free = spawn.SimpleQueue()
    for place in places(processes):
        free.put(place)
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_settle, initargs=(free,)) as executor:
        return sum(executor.map(work, [continuum] * processes, shares))


def _settle(free: SimpleQueue[dict[str, str]]) -> None:
    """In a new process: one thread, and a GPU of its own where there are as many."""
    os.environ.update(free.get())  # before anything asks for a GPU

    import torch

    from liit.model.quiet import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)


def fill_rows(continuum: Continuum, rows: Rows) -> int:
    """Compute what is not kept yet of the images of some rows; how many (0 where outputs are not kept at all)."""
    vision = Workbench(continuum).vision
    return vision.fill_rows(rows) if isinstance(vision, VisionCache) else 0

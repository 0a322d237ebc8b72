"""`liit demo --rebuild-base`: the general mix, the training, and a measure of the result."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.demo.continuum import build_base_mix
from liit.demo.vlm.base import train_base
from liit.lifelong.workbench import cache_directory


def rebuild_base(out: Path, *, seed: int = 0, show: Callable[[str], None] = print) -> dict[str, Any]:
    """Train the built-in base model again.

    Args:
        out: directory of the new model; copy it over ``liit/demo/vlm/base`` to ship it.
        seed: of the mix, the initial weights and the order of the rows.
        show: gets a line now and then.

    Returns:
        What the training did, and where the model is.
    """
    with tempfile.TemporaryDirectory(prefix="liit-base-") as scratch:
        rows = build_base_mix(Path(scratch) / "mix", seed)
        pool = Pool.create(Path(scratch) / "pool")
        ingest(pool, rows, "llava-json", "base", image_root=rows.parent / "images", strict=True)
        samples = [sample for batch in pool.scan() for sample in batch]
        show(f"general mix: {len(samples)} rows; computing the vision tower's outputs, then training")
        report = train_base(
            samples,
            out,
            seed=seed,
            cache=cache_directory() / "vision",
            progress=lambda done, total: show(f"step {done} of {total}"),
        )
    return {**asdict(report), "model": str(out)}

"""Everything that `liit doctor` finds: the machine, the model, what it will need, and what will not fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liit.config import Continuum, load_config
from liit.config.yaml_text import write_yaml
from liit.data.pool import Pool
from liit.doctor import text
from liit.doctor.calibration import CALIBRATION_SECONDS
from liit.doctor.continuum import ContinuumPrediction, predict_continuum
from liit.doctor.examine import ModelAtHand, examine_pool
from liit.doctor.machine import Machine, inspect_machine
from liit.doctor.prediction import Prediction
from liit.doctor.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found; parts that were not asked for are None.

    Attributes:
        machine: what there is.
        model: what the user named.
        shape: sizes of the model.
        extraction: of a pool.
        run: of a continuum.
        warnings: what will not fit, in words.
    """

    machine: Machine
    model: str | None = None
    shape: ModelShape | None = None
    extraction: Prediction | None = None
    run: ContinuumPrediction | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-serialisable values."""
        return {
            "machine": asdict(self.machine),
            "model": None if self.shape is None else {"path": self.model, **asdict(self.shape)},
            "extraction": None if self.extraction is None else self.extraction.as_dict(),
            "run": None if self.run is None else self.run.as_dict(),
            "warnings": list(self.warnings),
        }

    def lines(self) -> Iterator[str]:
        """Everything for people."""
        yield from text.machine_lines(self.machine)
        if self.shape is not None:
            yield text.shape_line(str(self.model), self.shape)
        if self.extraction is not None:
            yield ""
            yield from text.extraction_lines(self.extraction)
        if self.run is not None:
            yield ""
            yield from text.continuum_lines(self.run)
        if self.warnings:
            yield ""
            yield from (f"warning: {warning}" for warning in self.warnings)


def diagnose(
    continuum: Continuum | None = None,
    *,
    pool: Path | None = None,
    features: Sequence[str] = (),
    adapter: Path | None = None,
    whole_run: bool = False,
    run: bool = True,
    budget: float = CALIBRATION_SECONDS,
) -> Diagnosis:
    """Look at the machine, and at what some work will need of it.

    Args:
        continuum: names the model and all settings; None looks at the machine only.
        pool: predict the extraction of its samples.
        features: that are extracted.
        adapter: to score with; a fresh one unless given.
        whole_run: predict the run of the continuum.
        run: load the model and try a little of the work; else nothing is loaded but the model's configuration.
        budget: seconds that trying may take.

    Raises:
        InputError: anything wrong with the input.
    """
    if continuum is None:
        return Diagnosis(inspect_machine())
    opened = None if pool is None else Pool.open(pool)
    tries = opened is not None or whole_run
    model = ModelAtHand(continuum, adapter, run=run and tries)
    machine = inspect_machine()  # now, so that what is free and what this process holds belong together
    extraction = None if opened is None else examine_pool(model, opened, features, budget=budget)
    prediction = predict_continuum(model, budget=budget) if whole_run else None
    weights = float(model.shape.parameters * model.shape.width)
    memory = max([p.peak_memory for p in (extraction, prediction) if p is not None], default=weights)
    disk = sum((p.bytes_written + p.vision_bytes) if isinstance(p, Prediction) else p.disk_bytes
               for p in (extraction, prediction) if p is not None)  # fmt: skip
    held = 0.0 if model.base_memory is None else model.base_memory  # what this very process holds is not free now
    found = text.warnings(machine, memory - held, disk, on_gpu=bool(machine.gpus))
    return Diagnosis(machine, continuum.model.path, model.shape, extraction, prediction, tuple(found))


def settings_for(model: str, overrides: Sequence[str]) -> Continuum:
    """The default settings around a model that is named without a continuum file.

    Args:
        model: ``builtin:demo``, a directory or a hub name.
        overrides: texts like ``lora.r=16``.

    Raises:
        InputError: an override that is wrong.
    """
    path = str(Path(model).resolve()) if Path(model).exists() else model
    steps = [{"name": "pool", "train": [{"path": "pool.json"}]}]
    with tempfile.TemporaryDirectory(prefix="liit-doctor-") as scratch:
        file = Path(scratch) / "model"
        file.write_text(write_yaml({"name": "doctor", "budget": 1, "model": {"path": path}, "steps": steps}))
        return load_config(file, overrides, check_files=False)

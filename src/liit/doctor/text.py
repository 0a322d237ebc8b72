"""Predictions as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from liit.doctor.continuum import NOT_PREDICTED, ContinuumPrediction
from liit.doctor.machine import Machine
from liit.doctor.prediction import Compared, Prediction
from liit.doctor.shape import ModelShape


def duration(seconds: float) -> str:
    """For example 0.4 s, 37 s, 12 min, 5.2 h, 3.1 days."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def size(count: float) -> str:
    """Bytes, for example 512 B, 3.4 MB, 12 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if abs(count) >= 99.5 or unit == "B" else f"{count:.2g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def number(count: float) -> str:
    """With thin groups of three digits: 12 345; with a power of ten from a million million on."""
    return f"{count:.2e}" if abs(count) >= 1e12 else f"{count:,.0f}".replace(",", " ")


def machine_lines(machine: Machine) -> Iterator[str]:
    """What the machine has."""
    yield f"machine: {machine.system}, {machine.cores} cores, Python {machine.python}"
    yield f"memory: {size(machine.memory_available)} available of {size(machine.memory_total)}"
    if not machine.gpus:
        yield f"GPUs: none that torch can use (built for {machine.torch_build})"
    for index, gpu in enumerate(machine.gpus):
        yield f"GPU {index}: {gpu.name}, {size(gpu.memory_free)} free of {size(gpu.memory_total)}"
    yield f"disk: {size(machine.disk_free)} free at {machine.disk}"
    yield "packages: " + ", ".join(f"{name} {found}" for name, found in machine.packages.items())


def shape_line(path: str, shape: ModelShape) -> str:
    """A model in one line."""
    return (
        f"model: {path}, {number(shape.parameters)} parameters ({size(shape.parameters * shape.width)}), "
        f"{shape.layers} decoder layers of width {shape.hidden}; adapter: {number(shape.lora_total)} parameters"
    )


def extraction_lines(prediction: Prediction) -> Iterator[str]:
    """What an extraction will take."""
    known = "" if prediction.looked_at >= prediction.rows else f", from the lengths of {number(prediction.looked_at)}"
    yield f"rows: {number(prediction.rows)}{known}"
    if prediction.refused:
        yield f"rows that do not fit the model and will be refused: {number(prediction.refused)}"
    yield f"passes: {prediction.passes}"
    yield (
        f"model calls: {number(prediction.image_calls)} with images, {number(prediction.blind_calls)} without; "
        f"{number(prediction.backward_calls)} backward"
    )
    padding = 1 - (prediction.tokens + prediction.blind_tokens) / max(1, prediction.padded_tokens)
    yield (
        f"tokens: {number(prediction.tokens)} with images, {number(prediction.blind_tokens)} without; "
        f"{100 * padding:.0f} % padding on top"
    )
    yield f"images through the vision tower: {number(prediction.tower_images)}"
    yield f"operations: {prediction.flops:.2e}"
    yield f"time: {_time(prediction.seconds, prediction.at_least)} ({prediction.basis})"
    yield f"peak memory: {size(prediction.peak_memory)}"
    yield f"disk: features {size(prediction.bytes_written)}, vision features {size(prediction.vision_bytes)}"


def continuum_lines(prediction: ContinuumPrediction) -> Iterator[str]:
    """What a run will take."""
    yield f"method: {prediction.method}"
    if prediction.bad or prediction.refused:
        yield f"rows that will be left out: {prediction.bad} bad, {prediction.refused} too long for the model"
    rows = [("step", "new", "pool", "scored", "extract", "trained", "train", "questions", "evaluate")]
    rows.append(("base", "", "", "", "", "", "", "", _time(prediction.base_seconds, prediction.at_least)))
    for step in prediction.steps:
        scored = step.extraction
        rows.append(
            (
                step.name, number(step.new), number(step.pool), number(scored.rows) if scored else "",
                _time(scored.seconds, prediction.at_least) if scored else "", number(step.trained),
                _time(step.train_seconds, prediction.at_least), number(step.questions),
                _time(step.evaluate_seconds, prediction.at_least),
            )
        )  # fmt: skip
    yield from columns(rows)
    yield f"time: {_time(prediction.seconds, prediction.at_least)} ({prediction.basis}); not counted: {NOT_PREDICTED}"
    yield f"peak memory: {size(prediction.peak_memory)}"
    yield (
        f"disk: {size(prediction.disk_bytes)} (features {size(prediction.feature_bytes)}, vision features "
        f"{size(prediction.vision_bytes)}, adapters {size(prediction.adapter_bytes)})"
    )


def warnings(machine: Machine, memory: float, disk: float, on_gpu: bool) -> Iterator[str]:
    """What will not fit."""
    room = machine.memory_for_model(on_gpu)
    if memory > room:
        yield f"memory will not suffice: {size(memory)} needed at the fullest, {size(room)} available"
    if disk > machine.disk_free:
        yield f"the disk will not suffice: {size(disk)} needed, {size(machine.disk_free)} free at {machine.disk}"


def compared_lines(rows: Sequence[Compared]) -> Iterator[str]:
    """Prediction beside fact; nothing when nothing was to be done."""
    if not rows:
        return
    show = {"memory": size, "bytes": size, "seconds": duration}
    table = [("", "predicted", "fact", "fact / predicted")]
    for row in rows:
        write = show.get(row.unit, number)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.append((row.name, write(row.predicted), write(row.fact), ratio))
    yield from columns(table)


def columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table with its first column to the left and all others to the right."""
    listed = list(rows)
    widths = [max(len(row[i]) for row in listed) for i in range(len(listed[0]))]
    for row in listed:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def _time(seconds: float | None, at_least: bool) -> str:
    if seconds is None:
        return "not measured"
    return f"{'at least ' if at_least and seconds else ''}{duration(seconds)}"

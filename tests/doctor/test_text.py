from __future__ import annotations

from dataclasses import replace

import pytest

from liit.doctor.machine import inspect_machine
from liit.doctor.prediction import Compared
from liit.doctor.text import compared_lines, duration, number, size, warnings


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (3.14, "3.1 s"), (37, "37 s"), (720, "12 min"), (18720, "5.2 h"), (268000, "3.1 days")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (3.4e6, "3.4 MB"),
        (999.7e6, "1 GB"),
        (12.3e9, "12 GB"),
        (164e9, "164 GB"),
        (6.4e12, "6.4 TB"),
    ],
)
def test_sizes(count: float, words: str) -> None:
    assert size(count) == words


def test_numbers() -> None:
    assert [number(n) for n in (7, 12345, 2.5e13)] == ["7", "12 345", "2.50e+13"]


def test_prediction_beside_fact() -> None:
    lines = list(
        compared_lines(
            [Compared("rows", "rows", 10, 10), Compared("time", "seconds", 60, 90), Compared("x", "calls", 0, 3)]
        )
    )
    assert lines == [
        "      predicted   fact  fact / predicted",
        "rows         10     10              1.00",
        "time       60 s  2 min              1.50",
        "x             0      3",
    ]


def test_what_does_not_fit_is_said() -> None:
    machine = replace(inspect_machine(), memory_available=100, disk_free=100, gpus=())
    assert not list(warnings(machine, 99, 99, on_gpu=False))
    memory, disk = warnings(machine, 101, 101, on_gpu=False)
    assert memory.startswith("memory will not suffice")
    assert disk.startswith("the disk will not suffice")

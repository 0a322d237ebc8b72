"""What this machine has: cores, memory, GPUs, disk, and the versions that results depend on."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from liit.lifelong.parallel import cores

PACKAGES = ("liit", "torch", "transformers", "peft", "accelerate", "tokenizers", "pylance", "pyarrow", "numpy", "scipy")
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; sizes in bytes."""

    name: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to work with; sizes in bytes.

    Attributes:
        system: operating system and processor type.
        python: version of the interpreter.
        cores: that this process may use.
        memory_total: of the machine, or of the container that limits it.
        memory_available: of it, what programs can still get.
        gpus: that torch can use.
        torch_build: what torch was built for: ``cpu``, or the version of CUDA or ROCm.
        packages: version by name; a package that is not installed is missing.
        disk: the folder whose disk was looked at.
        disk_free: bytes that are left there.
    """

    system: str
    python: str
    cores: int
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...]
    torch_build: str
    packages: dict[str, str]
    disk: str
    disk_free: int

    def memory_for_model(self, on_gpu: bool) -> int:
        """Bytes free where the model will be: on the first GPU, or in main memory."""
        return self.gpus[0].memory_free if on_gpu and self.gpus else self.memory_available


def inspect_machine(folder: Path | None = None) -> Machine:
    """Look at the machine.

    Args:
        folder: where results will lie; its disk is looked at, or that of the nearest folder above that exists. The
            working directory unless given.
    """
    disk = _nearest(Path.cwd() if folder is None else folder)
    total, available = _memory()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        cores=cores(),
        memory_total=total,
        memory_available=available,
        gpus=_gpus(),
        torch_build=_torch_build(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        disk=str(disk),
        disk_free=shutil.disk_usage(disk).free,
    )


def _memory() -> tuple[int, int]:
    """Total and available, within the container's limit where there is one."""
    found = psutil.virtual_memory()
    limit, used = (_number(CGROUP / f"memory.{what}") for what in ("max", "current"))
    if limit is None or used is None:
        return found.total, found.available
    return min(found.total, limit), min(found.available, max(0, limit - used))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max": no limit


def _gpus() -> tuple[Gpu, ...]:
    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(torch.cuda.get_device_name(index), total, free))
    return tuple(found)


def _torch_build() -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    hip = getattr(torch.version, "hip", None)
    return f"ROCm {hip}" if hip else "cpu"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nearest(folder: Path) -> Path:
    folder = folder.absolute()
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))

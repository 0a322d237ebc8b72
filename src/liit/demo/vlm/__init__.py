"""The built-in model: a small LLaVA with a pretrained, frozen EfficientNet-Lite0 as its vision tower."""

from __future__ import annotations

from pathlib import Path

from liit.errors import InputError


def base_directory() -> Path:
    """Folder of the shipped base model; registers its vision tower with `transformers`.

    Raises:
        InputError: the package came without its weights.
    """
    from liit.demo.vlm.tower import register

    register()
    directory = Path(__file__).parent / "base"
    if not (directory / "model.safetensors").is_file():
        raise InputError(
            f"builtin:demo: no weights in {directory}; reinstall liit, or make them with liit demo --rebuild-base"
        )
    return directory

"""Loading a model's processor for text and images, without what only videos need.

Processors of newer families own a video processor, and that needs torchvision (SmolVLM's needs num2words too). Here
the processor is the family's own class with a placeholder in the video processor's place: images and text take exactly
the family's own way, with and without torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from liit.errors import InputError


class _NoVideo:
    """Stands where a processor keeps its video processor; says what templates and saving ask of one."""

    num_frames = None
    fps = None
    _auto_class = None
    model_input_names: tuple[str, ...] = ()


class _ImagesAndText:
    """Mixed into a processor class: loads its tokenizer and image processor only."""

    @classmethod
    def _get_arguments_from_pretrained(cls, path: str, processor_dict: Any = None, **options: Any) -> list[Any]:
        from transformers import AutoImageProcessor, AutoTokenizer

        loaders: dict[str, Any] = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}
        names: list[str] = cls.get_attributes()  # type: ignore[attr-defined]
        if foreign := sorted(set(names) - set(loaders) - {"video_processor"}):
            raise InputError(f"model.path: the processor of {path!r} needs a {foreign[0]}; liit gives images and text")
        video = _NoVideo()
        return [
            video if name == "video_processor" else loaders[name].from_pretrained(path, **options) for name in names
        ]

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":
            return type(argument)
        return super().check_argument_for_proper_class(argument_name, argument)  # type: ignore[misc]

    def to_dict(self) -> dict[str, Any]:
        settings: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        settings.pop("video_processor", None)
        return settings


def load_processor(path: str, config: Any, image_options: Mapping[str, Any], **options: Any) -> Any:
    """Load the processor that belongs to a model configuration.

    Args:
        path: a directory or a hub name.
        config: the model's configuration, which names the processor's class.
        image_options: settings of the image processor to change, such as ``max_pixels``.
        options: of `from_pretrained`, such as ``revision``.

    Raises:
        InputError: an image option that this image processor does not know.
        Exception: whatever transformers raises for files that are missing or unreadable.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    kind = _processor_class(config)
    if kind is not None and "video_processor" in kind.get_attributes():
        own: Any = type(kind.__name__, (_ImagesAndText, kind), {"__module__": kind.__module__})
        with _number_words(kind.__module__):
            processor = own.from_pretrained(path, **options)
    else:
        processor = AutoProcessor.from_pretrained(path, **options)
    if image_options:
        known = set(processor.image_processor.to_dict()) | set(processor.image_processor.valid_kwargs.__annotations__)
        if unknown := sorted(set(image_options) - known):
            raise InputError(
                f"model.image_options: {type(processor.image_processor).__name__} of {path!r} has no setting "
                f"{unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        processor.image_processor = AutoImageProcessor.from_pretrained(path, **options, **image_options)
    return processor


def _processor_class(config: Any) -> Any | None:
    """The processor class registered for a configuration; None leaves the choice to the files beside the weights."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    return PROCESSOR_MAPPING.get(type(config), None)


@contextmanager
def _number_words(module_name: str) -> Iterator[None]:
    """SmolVLM's processor refuses to be made without num2words, which only writes out a video's number of frames."""
    module: Any = sys.modules[module_name]
    missing = getattr(module, "num2words", "not used here") is None
    if missing:
        module.num2words = str
    try:
        yield
    finally:
        if missing:
            module.num2words = None

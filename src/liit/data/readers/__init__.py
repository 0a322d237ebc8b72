"""Dataset formats, one small file each; importing this package registers them."""

from __future__ import annotations

from liit.data.readers import llava_json, messages  # noqa: F401 (imported to be registered)
from liit.data.readers.registry import Draft, Format, ImageSource, formats, get_format, register_format

__all__ = ["Draft", "Format", "ImageSource", "formats", "get_format", "register_format"]

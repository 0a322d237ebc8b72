"""Dataset formats, one small file each, in both directions; importing this package registers them."""

from __future__ import annotations

from liit.data.formats import llava_json, m3it, messages, parquet, sharegpt, webdataset  # noqa: F401 (registered)
from liit.data.formats.registry import Draft, Format, ImageSource, formats, get_format, register_format

__all__ = ["Draft", "Format", "ImageSource", "formats", "get_format", "register_format"]

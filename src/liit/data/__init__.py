"""Samples, the formats they come in, and the pool that keeps them.

Only the light parts are imported here; the pool brings Lance with it: `from liit.data.pool import Pool`.
"""

from __future__ import annotations

from liit.data.sample import IMAGE_TAG, ImageRef, Message, Sample

__all__ = ["IMAGE_TAG", "ImageRef", "Message", "Sample"]

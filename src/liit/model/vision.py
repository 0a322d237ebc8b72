"""Where a batch's vision inputs come from: pixels, or the frozen vision path's outputs kept on disk."""

from __future__ import annotations

import logging
from pathlib import Path

from liit.model.pixels import BlankPixels, Pixels, VisionInputs
from liit.model.vision_cache import VisionCache
from liit.model.vision_paths import cacheable_tower, vision_path
from liit.model.vlm import VLM

__all__ = ["BlankPixels", "Pixels", "VisionCache", "VisionInputs", "cacheable_tower", "vision_inputs"]

log = logging.getLogger(__name__)


def vision_inputs(vlm: VLM, cache: Path | None) -> VisionInputs:
    """The cache where it is wanted and the family allows it, else pixels; the latter is said in a line.

    Args:
        vlm: the model.
        cache: parent folder of kept outputs; None to compute them every time.
    """
    if cache is None:
        return Pixels(vlm)
    if vision_path(vlm) is None:
        kind = vlm.base.config.model_type
        log.warning("liit: vision features of %s models cannot be kept; images are computed at every pass", kind)
        return Pixels(vlm)
    kept = VisionCache(vlm, cache)
    log.info("liit: %s", kept.describe())
    return kept

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "lifelong"))  # tiny.py, shared with the tests there

from tiny import cache, continuum, model

__all__ = ["cache", "continuum", "model"]

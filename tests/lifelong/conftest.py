from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests here and in tests/cli share tiny.py

from tiny import cache, continuum, model

__all__ = ["cache", "continuum", "model"]

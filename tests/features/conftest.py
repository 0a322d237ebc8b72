"""Lets the tests of this folder import `reference` and `small_decoders`, which only they use."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

"""Lets the tests of this folder share what `test_answer_mask` knows of masks."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

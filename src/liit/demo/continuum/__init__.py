"""The built-in continuum: real packaged pictures, digits, fonts and word lists turned into instruction samples.

Six steps, each from another source; `plan` says how many rows of which skill, `build` writes the directory.
The sources and their licences are listed in `liit/demo/DATA_CARD.md`.
"""

from __future__ import annotations

from liit.demo.continuum.base_mix import build_base_mix
from liit.demo.continuum.build import build_continuum, cached_continuum

__all__ = ["build_base_mix", "build_continuum", "cached_continuum"]

"""The lifelong loop: methods by name, the run directory, the stages, and the loop over them."""

from __future__ import annotations

from liit.lifelong.loop import run
from liit.lifelong.methods import METHODS, Method, get_method

__all__ = ["METHODS", "Method", "get_method", "run"]

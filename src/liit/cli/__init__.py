"""The command line: thin, no logic of its own."""

from __future__ import annotations

from liit.cli.app import app, main

__all__ = ["app", "main"]

"""Pruning: what leaves the pool for good."""

from __future__ import annotations

from liit.pruning.semantic import Pruning, prune_semantically, semantic_prune

__all__ = ["Pruning", "prune_semantically", "semantic_prune"]

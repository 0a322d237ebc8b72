"""Tiny models of the families liit is tested with: real classes, templates and tokenizer kinds, random weights."""

from families.builders import FAMILIES, Family, save_family

__all__ = ["FAMILIES", "Family", "save_family"]

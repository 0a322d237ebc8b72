"""Lifelong instruction tuning of vision-language models."""

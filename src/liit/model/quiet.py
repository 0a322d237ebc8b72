"""Keeps the words of the model's libraries out of what commands print."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Show neither warnings nor loading bars of the model's libraries; bars of downloads stay.

    Nothing changes for a user who set ``TRANSFORMERS_VERBOSITY`` or ``PYTHONWARNINGS`` to see them.
    """
    if not os.environ.get("PYTHONWARNINGS"):
        warnings.filterwarnings("ignore", module=r"(transformers|torch|peft|accelerate|huggingface_hub)(\.|$)")
    if os.environ.get("TRANSFORMERS_VERBOSITY"):
        return
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    wanted = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if wanted:
        enable_progress_bars()  # transformers turns those of downloads off with its own

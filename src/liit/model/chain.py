"""Adapters on top of adapters: the earlier ones go into the weights, in order, before the last one is attached.

An adapter's folder names the ones before it in ``chain.json``, by paths from the folder itself and by their hashes, so
a run can be moved and stays as small as its adapters.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from liit.data import checksums
from liit.errors import InputError
from liit.model.fingerprint import hash_file
from liit.model.lora import CONFIG, WEIGHTS, load_adapter
from liit.model.vlm import VLM

CHAIN = "chain.json"
FORMAT = "liit-chain-1"


def read_chain(adapter: Path) -> tuple[Path, ...]:
    """The adapters that must be in the weights before this one, first to last; none for an adapter of the base model.

    Raises:
        InputError: the file is not one of liit's, or an adapter that it names is missing or another one.
    """
    file = adapter / CHAIN
    if not file.is_file():
        return ()
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        entries = [(str(entry["path"]), str(entry["sha256"])) for entry in document["merged"]]
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}, not {FORMAT!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"adapter: {file} cannot be read ({error}); expected what liit train wrote") from error
    found = []
    for path, digest in entries:
        earlier = Path(os.path.normpath(adapter / path))
        if not (earlier / WEIGHTS).is_file():
            raise InputError(
                f"adapter: {adapter} builds on {earlier}, which is not there; move the adapters of a run together"
            )
        if hash_file(earlier / WEIGHTS) != digest:
            raise InputError(f"adapter: {adapter} builds on {earlier}, whose weights are not those it was trained on")
        found.append(earlier)
    return tuple(found)


def write_chain(directory: Path, merged: Sequence[Path], place: Path) -> list[Path]:
    """Write which adapters must be in the weights before this one; nothing, if there are none.

    Args:
        directory: where to write.
        merged: the earlier adapters, first to last.
        place: where the directory will lie, from which paths count.

    Returns:
        The files written.
    """
    if not merged:
        return []
    start = Path(os.path.abspath(place))  # noqa: PTH100  (links stay as they are: the run moves with its own paths)
    entries = [
        {"path": Path(os.path.relpath(path, start)).as_posix(), "sha256": hash_file(path / WEIGHTS)} for path in merged
    ]
    text = json.dumps({"format": FORMAT, "merged": entries}, indent=1) + "\n"
    (directory / CHAIN).write_text(text, encoding="utf-8")
    return [directory / CHAIN]


def merge_adapter(vlm: VLM, directory: Path) -> None:
    """Put a saved adapter into the weights of the model, which then has none attached.

    The sums are rounded to the type of the weights. A head that shares its weight with the embedding gets one of its
    own first, when the adapter changes the head: the embedding must stay.

    Raises:
        InputError: no adapter there, a damaged one, or one that does not fit.
    """
    checksums.compare(directory, [file for name in (WEIGHTS, CONFIG) if (file := directory / name).is_file()])
    load_adapter(vlm, directory)
    head, embedding = vlm.lm_head, vlm.base.get_input_embeddings()
    if hasattr(head, "base_layer"):
        layer = head.get_submodule("base_layer")
        if layer.weight is embedding.weight:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    own = vlm.adapter_id
    configs = (vlm.base.config, vlm.text_config)
    tied = [getattr(config, "tie_word_embeddings", None) for config in configs]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")  # on purpose
        vlm.model = vlm.model.merge_and_unload().eval()
    for config, word in zip(configs, tied, strict=True):  # PEFT changes it; it describes the base model
        if word is not None:
            config.tie_word_embeddings = word
    vlm.model.requires_grad_(False)
    vlm.merged_id = hashlib.sha256(f"{vlm.merged_id}{own}".encode()).hexdigest()
    vlm.adapter_id = ""


def restore_weights(vlm: VLM, base: VLM) -> None:
    """Give a model without an adapter the weights of its base model again, in place: caches hold on to its modules.

    Args:
        vlm: the model, with adapters in its weights.
        base: the same model, just loaded.
    """
    if base.lm_head.weight is base.base.get_input_embeddings().weight:
        vlm.lm_head.weight = vlm.base.get_input_embeddings().weight  # merging may have taken them apart
    weights = base.base.state_dict()
    with torch.no_grad():
        for name, value in vlm.base.state_dict().items():
            value.copy_(weights[name])
    vlm.merged_id = vlm.adapter_id = ""

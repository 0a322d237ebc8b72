"""Leaks: evaluation rows and images that are in the training data too, found by hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from liit.data.pool import Pool
from liit.data.sample import Sample

EXAMPLES = 20
_BATCH = 1 << 14


def find_leaks(pool: Pool, evaluation: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Compare the samples of a pool with evaluation samples, by the hash of their content and of their images.

    The content is what is said and seen, so the same row under another id, in another format or with its image under
    another name is found; another wording is not. The pool is streamed.

    Args:
        pool: The training data.
        evaluation: Evaluation samples by skill.

    Returns:
        evaluation_rows and evaluation_images (different ones) in all; leaked_rows, evaluation rows that are training
        rows; leaked_images, different evaluation images that training rows show; by_skill, per skill with a leak its
        rows, leaked_rows, images and leaked_images; examples, at most 20 of {"what": "row" or "image", skill,
        evaluation, training, source} with the ids of both.
    """
    contents: dict[str, tuple[str, str]] = {}
    images: dict[str, tuple[str, str]] = {}
    for skill, samples in evaluation.items():
        for sample in samples:
            contents.setdefault(sample.content_hash, (skill, sample.id))
            for image in sample.images:
                images.setdefault(image.sha256, (skill, sample.id))
    leaked_contents, leaked_images, examples = _matches(pool, contents, images)
    by_skill = {}
    for skill, samples in evaluation.items():
        shown = {image.sha256 for sample in samples for image in sample.images}
        rows = sum(sample.content_hash in leaked_contents for sample in samples)
        seen = len(shown & leaked_images)
        if rows or seen:
            by_skill[skill] = {
                "rows": len(samples), "leaked_rows": rows, "images": len(shown), "leaked_images": seen,
            }  # fmt: skip
    return {
        "evaluation_rows": sum(map(len, evaluation.values())),
        "evaluation_images": len(images),
        "leaked_rows": sum(found["leaked_rows"] for found in by_skill.values()),
        "leaked_images": len(leaked_images),
        "by_skill": by_skill,
        "examples": examples,
    }


def _matches(
    pool: Pool, contents: Mapping[str, tuple[str, str]], images: Mapping[str, tuple[str, str]]
) -> tuple[set[str], set[str], list[dict[str, str]]]:
    wanted, pictures = pa.array(list(contents), pa.string()), pa.array(list(images), pa.string())
    leaked_contents: set[str] = set()
    leaked_images: set[str] = set()
    examples: list[dict[str, str]] = []
    for batch in pool.batches(["id", "source", "content_hash", "image_hashes"], _BATCH):
        lists = batch["image_hashes"]
        of_row, hashes = pc.list_parent_indices(lists), pc.list_flatten(lists)
        for what, found, values, rows, table in (
            ("row", leaked_contents, batch["content_hash"], None, contents),
            ("image", leaked_images, hashes, of_row, images),
        ):
            hits = pc.indices_nonzero(pc.is_in(values, value_set=wanted if what == "row" else pictures)).to_pylist()
            for hit in hits:
                value = values[hit].as_py()
                if value not in found and len(examples) < EXAMPLES:
                    row = hit if rows is None else rows[hit].as_py()
                    skill, id = table[value]
                    names = {"training": batch["id"][row].as_py(), "source": batch["source"][row].as_py()}
                    examples.append({"what": what, "skill": skill, "evaluation": id, **names})
                found.add(value)
    return leaked_contents, leaked_images, examples

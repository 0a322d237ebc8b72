"""Some rows of a dataset on disk, drawn at random, and how many there are of what; nothing is ingested."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

from liit.config import EvaluationSet, TrainSet
from liit.data.containers import Row, container_of
from liit.data.ingest import Dataset
from liit.data.sample import Sample
from liit.data.validate import RowError

MOST = 512


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is known about a dataset.

    Attributes:
        rows: that it will give, bad ones (by their share among those drawn) not counted.
        bad: rows that will be set aside, by that share.
        images: different images, by their names or bytes as the rows give them.
        samples: of the rows drawn, those that are good, in the dataset's order.
    """

    rows: int
    bad: int
    images: int
    samples: tuple[Sample, ...]


def draw(part: TrainSet | EvaluationSet, seed: int = 0, most: int = MOST) -> Drawn:
    """Read a dataset through once; only the rows drawn have their images opened.

    Args:
        part: names the files, their format and the folder of their images.
        seed: of the choice.
        most: rows to draw.

    Raises:
        InputError: a file, the format or the image folder is wrong.
    """
    source = part.source if isinstance(part, TrainSet) else part.skill
    dataset = Dataset(part.path, part.format, source, part.images, allow_outside=part.allow_outside)
    chance = random.Random(seed)
    drawn: list[tuple[int, Path, str, Row]] = []
    images: set[bytes] = set()
    rows = 0
    for file, form, batch, _ in dataset.batches():
        for row in batch:
            images.update(_images(dataset, row))
            place = rows if rows < most else chance.randrange(rows + 1)
            if place < len(drawn):
                drawn[place] = (rows, file, form, row)
            elif place < most:
                drawn.append((rows, file, form, row))
            rows += 1
    with dataset.reader() as reader:
        found = [
            reader.read([row], container_of(file), form)[0]
            for _, file, form, row in sorted(drawn, key=lambda item: item[0])
        ]
    samples = tuple(sample for sample in found if isinstance(sample, Sample))
    bad = round(rows * (1 - len(samples) / max(1, len(found))))
    return Drawn(rows - bad, bad, len(images), samples)


def _images(dataset: Dataset, row: Row) -> set[bytes]:
    """Something short that tells a row's images from others."""
    if row.error or not isinstance(row.value, dict):
        return set()
    try:
        draft = dataset.format.parse(row.value)
    except RowError:
        return set()
    return {
        hashlib.blake2b(
            i.path.encode("utf-8", "backslashreplace") if i.data is None else i.data, digest_size=16
        ).digest()
        for i in draft.images
    }

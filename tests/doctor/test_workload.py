from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_vlm import mixed_samples, talk

from liit.doctor.continuum import mix
from liit.doctor.workload import Workload, choose_rows, look_at
from liit.errors import InputError
from liit.features.extraction import SHARD_ROWS
from liit.model.chat import ChatEncoder
from liit.model.vlm import VLM


def workload(lengths: list[int], rows: int | None = None, twins: list[int] | None = None) -> Workload:
    array = np.asarray(lengths)
    numbers = np.arange(len(array)) if twins is None else np.asarray(twins)
    images = (numbers >= 0).astype(int)
    return Workload(rows or len(array), 0, array, array // 2, images, np.where(images, array - 3, 0), numbers)


def test_batches_are_those_of_the_token_budget() -> None:
    found = workload([10, 9, 4, 4, 3]).with_images(20)
    # longest first: (10, 9), (4, 4, 3)
    assert (found.calls, found.rows, found.tokens, found.padded) == (2, 5, 30, 2 * 10 + 3 * 4)
    assert found.squares == 2 * 100 + 3 * 16
    assert found.answers == 5 + 4 + 2 + 2 + 1
    assert found.answer_places == 2 * 5 + 3 * 2
    assert found.widest == 20


def test_rows_that_were_not_looked_at_count_by_their_share() -> None:
    assert workload([10, 9, 4, 4, 3], rows=50).with_images(20).padded == 320


def test_a_shard_begins_new_batches() -> None:
    assert workload([5] * (SHARD_ROWS + 1)).with_images(10 * SHARD_ROWS).calls == 2


def test_rows_that_are_equal_without_images_share_the_pass() -> None:
    work = workload([10, 10, 10, 8], twins=[0, 0, 1, -1])
    assert work.without_images(100, zeros=False).rows == 2
    assert work.without_images(100, zeros=False).tokens == 14
    assert work.without_images(100, zeros=True).rows == 3
    assert work.without_images(100, zeros=True).tokens == 30


def test_lengths_are_the_encoders(tiny: VLM) -> None:
    samples = mixed_samples()
    encoder = ChatEncoder(tiny)
    work = look_at(encoder, samples)
    assert work.exact
    assert work.lengths.tolist() == [len(encoder.encode(sample)) for sample in samples]
    assert work.images.tolist() == [len(sample.images) for sample in samples]
    with_image = [bool(sample.images) for sample in samples]
    assert (work.blind_lengths > 0).tolist() == with_image
    assert not look_at(encoder, samples, blind=False).blind_lengths.any()


def test_rows_too_long_for_the_model_are_counted(load_tiny: Callable[..., VLM]) -> None:
    encoder = ChatEncoder(load_tiny(max_length=60))
    samples = [talk(str(n), "Hello?", "no " * (100 if n % 4 == 0 else 2)) for n in range(8)]
    work = look_at(encoder, samples, rows=80)
    assert (work.rows, work.refused, work.looked_at) == (60, 20, 6)
    with pytest.raises(InputError, match=r"none of the 1 rows looked at fits the model.*max_length is 60"):
        look_at(encoder, samples[:1])


def test_chosen_rows_are_in_order_and_repeatable() -> None:
    assert choose_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = choose_rows(1000, most=10)
    assert len(set(rows.tolist())) == 10
    assert (np.diff(rows) > 0).all()
    assert (rows == choose_rows(1000, most=10)).all()


def test_a_mixture_has_the_shares_of_its_parts() -> None:
    short, long = workload([10] * 100, rows=100), workload([30] * 100, rows=1000)
    found = mix([short, long], [100.0, 1000.0])
    assert found.rows == 1100
    assert found.with_images(10**6).tokens == pytest.approx(100 * 10 + 1000 * 30, rel=0.01)
    thinned = mix([short, long], [50.0, 500.0])
    assert thinned.with_images(10**6).tokens == pytest.approx(50 * 10 + 500 * 30, rel=0.01)


def test_rows_of_different_parts_are_no_twins() -> None:
    one = workload([10, 10], twins=[0, 0])
    assert mix([one, one], [2.0, 2.0]).without_images(100, zeros=False).rows == 2

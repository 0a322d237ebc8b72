from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_vlm import mixed_samples, picture, talk

from liit.doctor.workload import Looked, Workload, choose_rows, look_at, mix
from liit.errors import InputError
from liit.features.extraction import SHARD_ROWS
from liit.model.chat import ChatEncoder, Encoded
from liit.model.vlm import VLM


def row(tokens: int, *, starts: int = 0, images: int = 0) -> Encoded:
    """So many tokens, half of them the answer; rows of different `starts` differ from the first token on."""
    mask = np.arange(tokens) >= tokens - tokens // 2
    return Encoded("x", 1000 * starts + np.arange(tokens), mask, tuple(picture(n) for n in range(images)))


def workload(lengths: list[int], rows: int | None = None) -> Workload:
    looked = tuple(Looked(row(length), None) for length in lengths)
    return Workload(len(lengths) if rows is None else rows, 0, looked)


def with_twins(pairs: list[tuple[int, int]], longest_pack: int = 0) -> Workload:
    """Rows with an image, by the tokens and the beginning of what is left without it."""
    looked = tuple(
        Looked(row(tokens + 4, starts=n + 50, images=1), row(tokens, starts=starts))
        for n, (tokens, starts) in enumerate(pairs)
    )
    return Workload(len(pairs), 0, looked, longest_pack=longest_pack)


def test_batches_are_those_of_the_token_budget() -> None:
    found = workload([10, 9, 4, 4, 3]).with_images(20)
    # longest first: (10, 9), (4, 4, 3)
    assert (found.calls, found.rows, found.tokens, found.padded) == (2, 5, 30, 2 * 10 + 3 * 4)
    assert found.squares == 2 * 100 + 3 * 16
    assert found.answers == 5 + 4 + 2 + 2 + 1
    assert found.answer_places == 2 * 5 + 3 * 2
    assert (found.widest, found.images) == (20, 0)


def test_rows_that_were_not_looked_at_count_by_their_share() -> None:
    assert workload([10, 9, 4, 4, 3], rows=50).with_images(20).padded == 320


def test_a_shard_begins_new_batches() -> None:
    assert workload([5] * (SHARD_ROWS + 1)).with_images(10 * SHARD_ROWS).calls == 2


def test_rows_that_are_equal_without_images_share_the_pass() -> None:
    work = with_twins([(6, 0), (6, 0), (6, 1)])
    assert work.without_images(100, zeros=False).rows == 2
    assert work.without_images(100, zeros=False).tokens == 12
    assert work.without_images(100, zeros=True).rows == 3
    assert work.without_images(100, zeros=True).tokens == 30
    assert work.without_images(100, zeros=True).images == 3


def test_rows_that_begin_alike_share_their_beginning() -> None:
    apart = with_twins([(20, 0), (21, 0), (20, 1)])
    together = with_twins([(20, 0), (21, 0), (20, 1)], longest_pack=100)
    assert apart.without_images(1000, zeros=False).tokens == 61
    assert together.without_images(1000, zeros=False).tokens == 41  # 20 shared, one more in the second; the third apart
    assert together.without_images(1000, zeros=False).rows == 2


def test_text_has_no_pass_without_images() -> None:
    assert workload([10, 9]).without_images(100, zeros=True).calls == 0


def test_lengths_are_the_encoders(tiny: VLM) -> None:
    samples = mixed_samples()
    encoder = ChatEncoder(tiny)
    work = look_at(encoder, samples)
    assert work.looked_at == work.rows
    assert [one.row.input_ids.tolist() for one in work.looked] == [
        encoder.encode(s).input_ids.tolist() for s in samples
    ]
    assert [one.blind is not None for one in work.looked] == [bool(sample.images) for sample in samples]
    assert not any(one.blind for one in look_at(encoder, samples, blind=False).looked)
    assert not look_at(encoder, samples, share=False).longest_pack


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
    short, long = workload([10] * 100), workload([30] * 100, rows=1000)
    found = mix([short, long], [100.0, 1000.0])
    assert found.rows == 1100
    assert found.with_images(10**6).tokens == pytest.approx(100 * 10 + 1000 * 30, rel=0.01)
    thinned = mix([short, long], [50.0, 500.0])
    assert thinned.with_images(10**6).tokens == pytest.approx(50 * 10 + 500 * 30, rel=0.01)

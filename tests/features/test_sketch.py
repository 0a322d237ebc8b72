"""Sketches are the maps they say they are; the signed fold keeps inner products as well as a dense projection does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from reference import cosines, row_gradient
from tiny_vlm import talk

from liit.config import FeatureSettings
from liit.features import sketch as sketches
from liit.features.key import feature_parameters
from liit.features.sketch import Rademacher, SignedFold, make_sketch, random_bits
from liit.model.chat import ChatEncoder
from liit.model.vlm import VLM

P, K = 5000, 256
SIGNS = "-++-+++++++--+-----+-++--++++-+-+-++-++-"
SHIFTS = [2, 3, 0, 1, 3]


def vectors(n: int, seed: int, length: int = P, *, heavy: bool = False) -> torch.Tensor:
    """Correlated vectors; heavy: a tenth of the coordinates carries nearly all of the norm, as in real gradients."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(length)
    out = rng.standard_normal((n, length)) + np.linspace(0, 2, n)[:, None] * common
    if heavy:
        out *= np.where(rng.random(length) < 0.1, 10.0, 0.1)
    return torch.from_numpy(out.astype(np.float32))


def dense(x: torch.Tensor, k: int, seed: int) -> np.ndarray:
    """The paper's projection: a Rademacher matrix over sqrt(k)."""
    return Rademacher(x.shape[1], k, seed)([x]).double().numpy()


def explicit(fold: SignedFold) -> np.ndarray:
    """The whole P x k matrix, from the definition: coordinate i goes to (i + shift of its chunk) mod k."""
    matrix = np.zeros((fold.length, fold.dim))
    for i in range(fold.length):
        matrix[i, (i + fold.shifts[i // fold.dim]) % fold.dim] = int(fold.signs[i])
    return matrix


@pytest.mark.parametrize("length", [1, 7, 64, 65, 1000])
def test_fold_is_the_linear_map_of_its_definition(length: int) -> None:
    x = vectors(3, 0, length)
    fold = SignedFold(length, 64, seed=1)
    np.testing.assert_allclose(fold([x]).numpy(), x.double().numpy() @ explicit(fold), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_fold_does_not_depend_on_how_the_vector_is_split(seed: int) -> None:
    x = vectors(3, seed)
    fold = SignedFold(P, K, seed)
    whole = fold([x])
    cuts = np.sort(np.random.default_rng(seed).integers(0, P, 12))
    torch.testing.assert_close(fold(torch.tensor_split(x, cuts.tolist(), dim=1)), whole)
    torch.testing.assert_close(fold(x.split(1, dim=1)), whole)


@pytest.mark.parametrize("at_once", [2, 5, 1000])
@pytest.mark.parametrize("length", [64, 1000, P])
def test_chunks_folded_together_as_on_a_gpu_are_those_folded_one_by_one(at_once: int, length: int) -> None:
    x = vectors(3, 0, length)
    one_by_one, together = SignedFold(length, 64, 2), SignedFold(length, 64, 2)
    together.at_once = at_once
    for cuts in ([], [64], [1], [100, 128, 700]):
        parts = torch.tensor_split(x, [cut for cut in cuts if cut < length], dim=1)
        torch.testing.assert_close(together(parts), one_by_one(parts), rtol=1e-5, atol=1e-4)


def test_same_seed_gives_the_same_map_and_repeated_calls_the_same_bytes() -> None:
    x = vectors(2, 0)
    fold = SignedFold(P, K, 3)
    assert torch.equal(fold([x]), fold([x]))
    assert torch.equal(fold([x]), SignedFold(P, K, 3)([x]))
    assert not torch.equal(fold([x]), SignedFold(P, K, 4)([x]))


def test_map_does_not_change_between_versions() -> None:
    """Stored sketches stay comparable only while this holds."""
    fold = SignedFold(40, 8, seed=0)
    signs = "".join("+" if s > 0 else "-" for s in fold.signs.tolist())
    assert (signs, fold.shifts) == (SIGNS, SHIFTS)


def test_another_map_has_another_name_in_the_key_of_stored_gradients() -> None:
    """Rademacher signs were others once; the fold's never were."""
    for kind, name in (("signed-fold", "signed-fold"), ("rademacher", "rademacher-2")):
        settings = FeatureSettings(sketch=kind)
        assert feature_parameters(settings, 4, 0, ["gradient"], None)["gradient"]["sketch"] == name


def test_inner_products_are_unbiased() -> None:
    x = vectors(2, 0)
    exact = float(x[0].double() @ x[1].double())
    estimates = np.array([float((s := SignedFold(P, K, seed)([x]).double())[0] @ s[1]) for seed in range(400)])
    standard_error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - exact) < 4 * standard_error
    assert standard_error < 0.01 * float(x[0].norm() * x[1].norm())  # the test above can fail


@pytest.mark.parametrize("heavy", [False, True])
def test_cosines_are_as_close_as_a_dense_projection_keeps_them(heavy: bool) -> None:
    x = vectors(24, 1, heavy=heavy)
    exact = cosines(x.numpy())
    folded = [cosines(SignedFold(P, K, seed)([x]).numpy()) - exact for seed in range(30)]
    projected = [cosines(dense(x, K, seed)) - exact for seed in range(30)]
    rmse, reference = (float(np.sqrt(np.mean(np.square(errors)))) for errors in (folded, projected))
    assert rmse <= 1.1 / np.sqrt(K)
    assert rmse <= 1.1 * reference


def test_random_bits_are_those_of_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of seed 1234567
    bits = random_bits(150, 1234567, "cpu").tolist()
    expected = [word >> place & 1 for word in published for place in range(64)]
    assert bits == expected[:150]


def test_random_bits_of_neighbouring_seeds_have_nothing_in_common() -> None:
    bits = torch.stack([random_bits(50_000, seed, "cpu") for seed in range(20)]).double() - 0.5
    assert abs(float(bits.mean())) < 3 * 0.5 / 1e3
    assert np.abs(np.corrcoef(bits.numpy()) - np.eye(20)).max() < 5 / np.sqrt(50_000)


@pytest.mark.parametrize("length", [1, 255, 256, 257, 700])
def test_rademacher_is_one_dense_matrix_of_signs(length: int) -> None:
    identity = torch.eye(length)
    matrix = Rademacher(length, 64, 7)([identity])
    assert set(matrix.mul(8).unique().tolist()) == {-1, 1}
    assert abs(float(matrix.mean()) * 8) < 6 / np.sqrt(matrix.numel())
    x = vectors(3, 0, length)
    torch.testing.assert_close(Rademacher(length, 64, 7)([x]), x @ matrix, rtol=1e-4, atol=1e-4)
    assert not torch.equal(matrix, Rademacher(length, 64, 8)([identity]))


@pytest.mark.parametrize("keep", [0, P * K - 1, P * K])
def test_rademacher_does_not_depend_on_memory_or_on_how_the_vector_is_split(
    keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = vectors(2, 0)
    expected = Rademacher(P, K, 1)([x])
    projection = Rademacher(P, K, 1, keep=keep)
    drawn: list[int] = []
    draw = projection._draw
    monkeypatch.setattr(projection, "_draw", lambda block: drawn.append(block) or draw(block))
    for parts in ([x], x.split(1000, dim=1), x.split([1, 255, 1, P - 257], dim=1)):
        torch.testing.assert_close(projection(parts), expected, rtol=1e-4, atol=1e-4)
    n_blocks = -(-P // sketches.BLOCK_ROWS)
    assert drawn == ([] if keep == P * K else list(range(n_blocks)) * 3)  # again at every call, once per block


def test_rademacher_never_holds_the_whole_matrix_that_does_not_fit() -> None:
    length, dim = 20_000, 512
    projection = Rademacher(length, dim, 0, keep=10**6)
    tracemalloc.start()
    out = projection([torch.ones(1, length)])
    assert out.shape == (1, dim)
    assert projection._kept is None
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def real_gradients(vlm: VLM) -> torch.Tensor:
    """Exact LoRA gradients of one layer, (40, P), of rows that share words, images or nothing."""
    encoder = ChatEncoder(vlm)
    words = ["cat", "dog", "red", "box", "number", "left", "yes", "no"]
    samples = [
        talk(f"{i}", f"<image>\nWhat is {words[i % 8]}?", f"{words[i // 5]} {words[i % 3]}", images=[i % 6])
        for i in range(40)
    ]
    return torch.from_numpy(np.stack([row_gradient(vlm, encoder.encode(s), [2]) for s in samples])).float()


def test_cosines_of_real_gradients_are_kept_as_well_as_by_a_dense_projection(load_tiny: Callable[..., VLM]) -> None:
    x = real_gradients(load_tiny(lora=True, r=8))
    exact = cosines(x.numpy())
    assert np.ptp(exact) > 0.5
    for k in (128, 512):
        error = {}
        for kind in ("signed-fold", "rademacher"):
            kept = [cosines(make_sketch(kind, x.shape[1], k, seed)([x]).numpy()) for seed in range(8)]
            error[kind] = np.sqrt(np.mean(np.square(np.stack(kept) - exact)))
        assert error["signed-fold"] <= 1.1 / np.sqrt(k)
        assert error["signed-fold"] <= 1.1 * error["rademacher"]


def test_wrong_number_of_coordinates_is_an_error() -> None:
    fold = SignedFold(P, K, 0)
    with pytest.raises(ValueError, match=f"got {P - 1} coordinates, expected {P}"):
        fold([vectors(2, 0)[:, 1:]])
    with pytest.raises(ValueError, match="expected"):
        fold([])
    with pytest.raises(ValueError, match=f"got {P - 1} coordinates, expected {P}"):
        Rademacher(P, 4, 0)([vectors(2, 0)[:, 1:]])

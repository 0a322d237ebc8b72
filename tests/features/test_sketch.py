"""The signed fold keeps inner products as well as a dense projection does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import cosines

from liit.features.sketch import SignedFold

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
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (x.shape[1], k))
    return x.double().numpy() @ signs / np.sqrt(k)


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


def test_wrong_number_of_coordinates_is_an_error() -> None:
    fold = SignedFold(P, K, 0)
    with pytest.raises(ValueError, match=f"got {P - 1} coordinates, expected {P}"):
        fold([vectors(2, 0)[:, 1:]])
    with pytest.raises(ValueError, match="expected"):
        fold([])

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liit.selection import _experts, allocate, experts, register_expert, score_entropy, select
from liit.selection._experts import built_in_experts

Features = dict[str, np.ndarray]


def test_experts_budgets_and_samples_follow_the_formula(make_features: Callable[..., Features]) -> None:
    """Experts, shares and strata, recomputed per cluster from the public building blocks and the labels."""
    features = make_features(600, 5, ids=False)
    selection = select("adapt-inf", features, 200, k=4)
    clusters = selection.info["clusters"]
    sizes = np.bincount(selection.labels)
    assert [c["size"] for c in clusters] == sizes.tolist()
    assert [c["budget"] for c in clusters] == allocate(sizes, 200).tolist()
    for c, entry in enumerate(clusters):
        members = np.flatnonzero(selection.labels == c)
        bits = {name: score_entropy(features[name][members]) for name in built_in_experts()}
        assert entry["entropies"] == pytest.approx(bits, abs=1e-9)
        assert entry["expert"] == max(bits, key=lambda name: bits[name])
        kept = np.isin(members, selection.rows)
        assert kept.sum() == entry["budget"]
        scores = features[entry["expert"]][members].astype(np.float32).astype(np.float64)
        ascending = np.argsort(scores)
        cut = int(0.05 * len(members))
        core = ascending[cut : len(members) - cut]
        low, high = scores[core[0]], scores[core[-1]]
        strata = np.minimum(((scores[core] - low) / (high - low) * 50).astype(int), 49)
        assert not kept[ascending[:cut]].any()
        shares = allocate(np.bincount(strata, minlength=50), entry["budget"])
        assert np.bincount(strata[kept[core]], minlength=50).tolist() == shares.tolist()


def test_rescaling_a_score_never_changes_the_expert(make_features: Callable[..., Features]) -> None:
    features = make_features(500, 6)
    expected = [c["expert"] for c in select("adapt-inf", features, 100, k=5).info["clusters"]]
    assert len(set(expected)) > 1
    for name in built_in_experts():
        for factor, shift in ((1e4, -3.0), (1e-6, 0.0), (0.37, 200.0), (-5.0, 1.0)):
            rescaled = features | {name: factor * features[name] + shift}
            found = select("adapt-inf", rescaled, 100, k=5).info["clusters"]
            assert [c["expert"] for c in found] == expected


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(built_in_experts()),
    factor=st.floats(1e-3, 1e3),
    sign=st.sampled_from([-1.0, 1.0]),
    shift=st.floats(-10.0, 10.0),
)
def test_no_affine_rescaling_of_any_score_changes_any_expert(
    seed: int, name: str, factor: float, sign: float, shift: float, make_features: Callable[..., Features]
) -> None:
    features = make_features(300, seed)
    rescaled = features | {name: sign * factor * (features[name] + shift)}
    first, second = (select("adapt-inf", f, 50, k=3).info["clusters"] for f in (features, rescaled))
    assert [c["expert"] for c in second] == [c["expert"] for c in first]


def test_an_expert_missing_for_most_of_a_cluster_is_not_offered_there(make_features: Callable[..., Features]) -> None:
    features = make_features(400, 7)
    labels = np.repeat([0, 1], 200)
    features["image_grounding"] = np.random.default_rng(0).uniform(0, 1, 400)  # spreads most where it exists
    features["image_grounding"][200:301] = np.nan
    for name in built_in_experts():
        if name != "image_grounding":
            features[name] = features[name] ** 3
    info = select("adapt-inf", features, 100, labels=labels).info["clusters"]
    assert info[0]["expert"] == "image_grounding"
    assert info[1]["expert"] != "image_grounding"
    assert info[1]["entropies"]["image_grounding"] is None


def test_rows_without_the_chosen_score_are_a_stratum_and_not_lost(make_features: Callable[..., Features]) -> None:
    features = make_features(200, 8, ids=False)
    features["el2n"][:80] = np.nan
    selection = select("adapt-inf", features, 51, experts=["el2n"], k=1)
    assert (selection.rows < 80).sum() == pytest.approx(51 / 40, abs=3)
    assert (selection.rows < 80).any()
    assert len(select("adapt-inf", features, 199, experts=["el2n"], k=1)) == 199
    texts = {
        t
        for t, s in zip(selection.table["reason"].to_pylist(), selection.table["score"].to_pylist(), strict=True)
        if s is None
    }
    assert texts
    assert all("the rows without el2n" in t for t in texts)


def test_rare_pseudo_skills_keep_all_they_have(make_features: Callable[..., Features]) -> None:
    features = make_features(500, 9)
    features["gradient"] = np.eye(6)[np.repeat([0, 1, 2], [440, 52, 8])] + 0.01 * np.random.default_rng(0).normal(
        size=(500, 6)
    )
    selection = select("adapt-inf", features, 60, k=3)
    assert [c["budget"] for c in selection.info["clusters"]] == [26, 26, 8]
    assert set(range(492, 500)) <= set(selection.rows.tolist())


def test_a_cluster_where_no_expert_applies_is_drawn_from_uniformly(make_features: Callable[..., Features]) -> None:
    selection = select("adapt-inf", make_features(40, 0, "all-missing"), 10, explain="all")
    assert selection.info["clusters"][0]["expert"] == "none"
    assert selection.info["without_gradient"] == 40
    assert "no expert applies" in selection.table["reason"][0].as_py()


def test_experts_not_named_are_those_whose_columns_are_there(make_features: Callable[..., Features]) -> None:
    features = make_features(50)
    partial = {k: features[k] for k in ("id", "gradient", "el2n", "entropy")}
    assert select("adapt-inf", partial, 10).info["experts"] == ["el2n", "entropy"]
    with pytest.raises(ValueError, match="image_grounding"):
        select("adapt-inf", partial, 10, experts=["el2n", "image_grounding"])
    with pytest.raises(ValueError, match="at least one of the features log_perplexity"):
        select("adapt-inf", {k: features[k] for k in ("id", "gradient")}, 10)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"expert": "best"}, "expert must be one of entropy, rank-average, mixture"),
        ({"experts": ["el2m"]}, "did you mean 'el2n'"),
        ({"experts": []}, "experts"),
        ({"experts": "el2n"}, "experts"),
        ({"k": 0}, "k must"),
        ({"k_grid": []}, "k_grid"),
        ({"bins": 0}, "bins"),
        ({"trim": 0.5}, "trim"),
        ({"compat": "paper"}, "compat"),
        ({"labels": [1, 2]}, "labels"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], named: str, make_features: Callable[..., Features]) -> None:
    with pytest.raises(ValueError, match=named):
        select("adapt-inf", make_features(10), 5, **options)


def test_a_users_expert_competes(make_features: Callable[..., Features], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_experts, "_experts", experts())

    @register_expert("surprise", needs=["log_perplexity", "entropy"], description="log-perplexity beyond entropy")
    def surprise(log_perplexity: np.ndarray, entropy: np.ndarray) -> np.ndarray:
        return log_perplexity - entropy

    assert "surprise" in experts()
    features = make_features(200, 1)
    selection = select("adapt-inf", features, 50, experts=["el2n", "surprise"], k=2)
    assert set(selection.info["clusters"][0]["entropies"]) == {"el2n", "surprise"}
    with pytest.raises(ValueError, match="'surprise' is taken"):
        register_expert("surprise", needs=["el2n"])(lambda el2n: el2n)


def test_rank_average_is_the_mean_of_scaled_ranks() -> None:
    rng = np.random.default_rng(0)
    features = {
        "gradient": rng.normal(size=(30, 3)),
        "el2n": rng.permutation(30) * 1.0,
        "entropy": rng.permutation(30) * 1.0,
    }
    selection = select("adapt-inf", features, 30, expert="rank-average", k=1)
    expected = (features["el2n"] + features["entropy"]) / 2 / 29
    assert np.allclose(selection.table["score"].to_numpy(), expected)


def test_a_mixture_gives_every_expert_its_part(make_features: Callable[..., Features]) -> None:
    features = make_features(500, 3)
    features["el2n"] = (features["el2n"] > 2).astype(float)  # one bit at most
    selection = select("adapt-inf", features, 100, expert="mixture", k=1)
    counts = dict(zip(*np.unique(selection.table["expert"].to_pylist(), return_counts=True), strict=True))
    bits = {name: score_entropy(features[name]) for name in built_in_experts()}
    assert bits["el2n"] < 1.01 < 3 < bits["entropy"]
    for name, value in bits.items():
        assert counts[name] == pytest.approx(100 * value / sum(bits.values()), abs=1)


def test_official_compatibility_leaves_outliers_out_of_the_entropy(make_features: Callable[..., Features]) -> None:
    features = make_features(300, 2)
    features["el2n"][:3] = 1e4
    bits = [
        select("adapt-inf", features, 9, k=1, compat=c).info["clusters"][0]["entropies"]["el2n"]
        for c in (None, "official")
    ]
    assert bits[0] > bits[1] == 0.0


def official_entropy(scores: np.ndarray) -> float:
    """The paper's entropy with the official choice: what lies beyond 4 standard deviations is in no bin."""
    z = (scores - scores.mean()) / scores.std()
    counts = np.histogram(z[np.abs(z) < 4], bins=50, range=(-4, 4))[0]
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def test_official_entropies_are_those_of_the_scores_within_the_bins(make_features: Callable[..., Features]) -> None:
    features = make_features(400, 11)
    for name in built_in_experts():
        features[name] = np.random.default_rng(len(name)).standard_t(3, size=400)
    clusters = select("adapt-inf", features, 90, k=3, compat="official")
    for c, entry in enumerate(clusters.info["clusters"]):
        members = clusters.labels == c
        for name in built_in_experts():
            scores = features[name][members].astype(np.float32).astype(np.float64)
            assert entry["entropies"][name] == pytest.approx(official_entropy(scores), abs=1e-9)


def test_rank_average_deals_with_ties_and_gaps_as_scipys_ranks_do(make_features: Callable[..., Features]) -> None:
    from scipy.stats import rankdata

    rng = np.random.default_rng(4)
    features: Features = {"gradient": rng.normal(size=(60, 3))}
    for name in ("el2n", "entropy", "grad_norm"):
        features[name] = rng.integers(8, size=60).astype(float)
        features[name][rng.permutation(60)[:12]] = np.nan
    ranks = np.array(
        [
            (rankdata(features[name], nan_policy="omit") - 1) / ((~np.isnan(features[name])).sum() - 1)
            for name in ("el2n", "entropy", "grad_norm")
        ]
    )
    selection = select("adapt-inf", features, 60, expert="rank-average", k=1)
    assert np.allclose(selection.table["score"].to_numpy(), np.nanmean(ranks, axis=0), equal_nan=True)

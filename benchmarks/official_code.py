"""Where official code and liit differ: each difference measured on a small seeded example.

    python benchmarks/official_code.py            prints the table of docs/official-code.md
    python benchmarks/official_code.py --write    puts it into the page

Differences in the features are measured by official_features.py, on a model.

The official behaviour is written anew here from its description, in the fewest lines; no official code is run.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from liit.selection import (
    adam_direction,
    allocate,
    gist_scores,
    round_robin,
    score_entropy,
    select,
    stratified_sample,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "official-code.md"
BEGIN, END = "<!-- measured by benchmarks/official_code.py -->", "<!-- end -->"

Row = tuple[str, str, str, str]


def overlap(a: Iterable[int], b: Iterable[int]) -> str:
    first, second = {int(i) for i in a}, {int(i) for i in b}
    return f"{100 * len(first & second) / max(1, len(first)):.0f} % in common"


def official_entropy(scores: np.ndarray, bins: int = 50) -> float:
    z, reach = (scores - scores.mean()) / scores.std(), 4 * scores.std()
    counts = np.histogram(z, bins=bins, range=(-reach, reach))[0]
    p = counts[counts > 0] / max(1, counts.sum())
    return max(0.0, float(-(p * np.log2(p)).sum()))


def bins_follow_the_unit() -> Row:
    scores = np.random.default_rng(0).normal(size=1000)
    official = [official_entropy(scores * unit) for unit in (0.1, 1.0, 10.0)]
    ours = [score_entropy(scores * unit) for unit in (0.1, 1.0, 10.0)]
    return (
        "adapt-inf: entropy of a score",
        "bins over 4 raw standard deviations of scores already standardised: changes with the unit",
        "bins over 4 standardised units",
        "one score in units of .1, 1, 10: official "
        + ", ".join(f"{v:.2f}" for v in official)
        + " bits, liit "
        + ", ".join(f"{v:.2f}" for v in ours),
    )


def missing_scores() -> Row:
    scores = np.random.default_rng(0).gamma(2, 1, size=1000) + 3
    holed = np.where(np.arange(1000) % 4 == 0, np.nan, scores)
    bits = [score_entropy(s) for s in (np.nan_to_num(holed), holed, scores[np.arange(1000) % 4 > 0])]
    return (
        "adapt-inf: missing scores",
        "count as 0",
        "are left out of the entropy and are a stratum of their own",
        f"a quarter missing: official {bits[0]:.2f} bits, liit {bits[1]:.2f}, the others alone {bits[2]:.2f}",
    )


def clipping() -> Row:
    rng = np.random.default_rng(1)
    n = 600
    features = {"id": np.arange(n), "gradient": rng.normal(size=(n, 4)), "entropy": rng.normal(size=n)}
    features["el2n"] = rng.standard_t(2, size=n)
    bits = [
        select("adapt-inf", features, 60, k=1, experts=["el2n", "entropy"], compat=c).info["clusters"][0]["entropies"][
            "el2n"
        ]
        for c in ("official", None)
    ]
    return (
        'adapt-inf: outliers of a score (`compat="official"`)',
        "scores outside the bins are not counted",
        "they count in the end bins",
        f"600 scores with heavy tails: official {bits[0]:.3f} bits, liit {bits[1]:.3f}",
    )


def rounded_up(sizes: np.ndarray, total: int) -> int:
    open_, left, given = sorted(sizes.tolist()), total, 0
    while open_:
        share = math.ceil(left / len(open_))
        full = [size for size in open_ if size <= share]
        if not full:
            return given + share * len(open_)
        given, left, open_ = given + sum(full), left - sum(full), open_[len(full) :]
    return given


def shares_round_up() -> Row:
    sizes = np.random.default_rng(0).geometric(1 / 150, size=120)
    return (
        "adapt-inf: budget of the clusters",
        "every share is rounded up",
        "shares sum exactly",
        f"asked for 3231 rows of 120 clusters: official {rounded_up(sizes, 3231)}, liit {allocate(sizes, 3231).sum()}",
    )


def strata_round_up() -> Row:
    scores = np.random.default_rng(0).random(2000)
    low, high = np.quantile(scores, [0.05, 0.95])
    counts = np.histogram(scores[(scores >= low) & (scores <= high)], bins=50)[0]
    official = int(np.minimum(counts, math.ceil(56 / 50)).sum())
    return (
        "adapt-inf: stratified sampling",
        "every stratum's share is rounded up",
        "exactly the number asked for",
        f"asked for 56 of 2000: official {official}, liit {len(stratified_sample(scores, 56))}",
    )


def seeds() -> Row:
    rng = np.random.default_rng(0)
    n = 1500
    features = {"id": np.arange(n), "gradient": rng.normal(size=(n, 16)), "el2n": rng.normal(size=n)}
    runs = [select("adapt-inf", features, 150, seed=s).rows for s in (0, 1, 0)]
    return (
        "adapt-inf: seeds",
        "k-means and sampling draw unseeded random numbers",
        "one seed for everything",
        f"150 of 1500 rows, two seeds: {overlap(runs[0], runs[1])}; the same seed: {overlap(runs[0], runs[2])}",
    )


def semdedup_zeros() -> Row:
    from liit.pruning import semantic_prune

    x = np.array([[1.0, 0.0], [-0.05, 1.0], [-1.0, -1.0], [1.0, 0.2]])
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    m = np.triu(u @ u.T, k=1).max(axis=0)
    official = np.sort(np.argsort(m, kind="stable")[:2])
    return (
        "SemDeDup: negative cosines",
        "M is the maximum of a column of the upper triangle, zeros below it included: never below 0",
        "M is the maximum over earlier rows; the first row has none",
        f"2 of 4 rows: official {official.tolist()}, liit {semantic_prune(x, np.zeros(4, int), 2).tolist()}; "
        "no difference where more rows are kept than have M below 0, as in any real cluster",
    )


def density_shares() -> Row:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 100)
    x = np.eye(8)[labels] * 3 + np.array([0.2, 0.6, 1.2])[labels][:, None] * rng.normal(size=(300, 8))
    shares = [
        [c["budget"] for c in select("density", {"embedding": x}, 60, labels=labels, compat=c).info["clusters"]]
        for c in ("official", None)
    ]
    return (
        'density: shares (`compat="official"`, the code of adapt-inf)',
        "C / sum C",
        "softmax(C / 0.1), as in the paper",
        f"60 rows over a tight, a middling and a wide cluster: official {shares[0]}, liit {shares[1]}",
    )


def coincide_rounding() -> Row:
    weights = np.random.default_rng(0).dirichlet(np.ones(40))
    official = int(np.round(100 * weights).sum())
    return (
        "COINCIDE: budget",
        "shares are rounded one by one",
        "what rounding leaves is passed on",
        f"100 rows over 40 clusters: official {official}, liit 100",
    )


def semdedup_order() -> Row:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 8))[rng.integers(100, size=400)] + 0.1 * rng.normal(size=(400, 8))
    rows = [select("semdedup", {"embedding": x}, 150, k=4, order=o).rows for o in ("centroid", "arrival")]
    return (
        'SemDeDup: which of two like rows stays (`order="centroid"`)',
        "its own code: that less similar to the centroid; the code of adapt-inf: the earlier",
        "the earlier",
        f"150 of 400 rows: {overlap(*rows)}",
    )


def coincide_density() -> Row:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (5, 20, 80))
    x = 0.6 * np.eye(8)[labels] + 0.4 + 0.4 * rng.normal(size=(105, 8))
    found = [
        select("coincide", {"embedding": x}, 40, labels=labels, temperature=1.0, compat=c).info["clusters"]
        for c in ("official", None)
    ]
    density = [", ".join(f"{c['density']:.2f}" for c in clusters) for clusters in found]
    return (
        'COINCIDE: density (`compat="official"`)',
        "mean kernel over all pairs, a row with itself included: small clusters look denser",
        "over pairs of different rows",
        f"clusters of 5, 20 and 80 like rows: official {density[0]}, liit {density[1]}",
    )


def less_bias() -> Row:
    rng = np.random.default_rng(0)
    g, m, v = rng.normal(size=(1, 500)), 0.3 * rng.normal(size=500), rng.random(500) * 0.01
    plain, corrected = adam_direction(g, m, v)[0], adam_direction(g, m, v, step=10)[0]
    cosine = float(plain @ corrected / np.linalg.norm(plain) / np.linalg.norm(corrected))
    return (
        "LESS: Adam's moments (`adam_direction`, `step`)",
        "not corrected for their start at zero",
        "the same; `step` corrects them",
        f"step 10: lengths {np.linalg.norm(plain):.0f} and {np.linalg.norm(corrected):.0f}, cosine {cosine:.4f}: "
        "scores are cosines, so nothing changes",
    )


def rds_global_max() -> Row:
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(8, 2000)) + np.array([1.5, *[0.0] * 7])[:, None]
    best = np.argsort(-similarity.max(axis=0))[:200]
    return (
        'RDS+: large selections (`mode="max"`, `get_top_optimized.py`)',
        "a global maximum over all queries",
        "round robin over the queries (Algorithm 1)",
        f"200 of 2000 rows, one of 8 queries scoring high throughout: {overlap(best, round_robin(similarity, 200))}",
    )


def rds_turns() -> Row:
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(1, 500)) + 0.3 * rng.normal(size=(6, 500))
    similarity[:3] = similarity[0] + 0.05 * rng.normal(size=(3, 500))
    spent, free = (round_robin(similarity, 60, spend_turn=s) for s in (True, False))
    return (
        "RDS+: an item taken already (`spend_turn`)",
        "spends the turn of the query; liit does the same by default",
        "`spend_turn=False`: the query goes on to its next free item",
        f"60 of 500 rows, 3 of 6 queries alike: {overlap(spent, free)}",
    )


def gist_aggregate() -> Row:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(20, 200)) * rng.gamma(2, 1, size=(20, 1))
    train = rng.normal(size=(1000, 20)) @ targets + 4 * rng.normal(size=(1000, 200))
    groups = np.repeat(np.arange(4), 5)
    example = np.argsort(-gist_scores(train, targets, 0.95))[:50]
    task = np.argsort(-gist_scores(train, targets, 0.95, groups=groups, aggregate="subtask"))[:50]
    return (
        'GIST: targets (`aggregate="subtask"`)',
        "the best mean of the raw coordinates of a sub-task",
        "the best target, as in the paper",
        f"50 of 1000 rows, 4 sub-tasks of 5: {overlap(example, task)}",
    )


def gist_rank() -> Row:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(60, 400)) * np.geomspace(20, 0.2, 60)[:, None]
    train = rng.normal(size=(1000, 60)) @ targets + 4 * rng.normal(size=(1000, 400))
    energy, fixed = (np.argsort(-gist_scores(train, targets, k))[:50] for k in (0.95, 50))
    return (
        "GIST: rank",
        "a fixed number of directions (150, 50 or 9)",
        "`rank=0.95`: the directions that hold 95 % of the energy; a whole number fixes it",
        f"50 of 1000 rows, 60 targets, 50 directions against 95 %: {overlap(energy, fixed)}",
    )


def scalselect_scaling() -> Row:
    x = np.random.default_rng(0).normal(size=(2000, 30)) * np.geomspace(5, 0.2, 30)
    top = [select("scalselect", {"instructed_vision": x}, 200, compat=c).rows for c in ("official", None)]
    return (
        'ScalSelect: defaults of `cur.py` (`compat="official"`)',
        "centred, standardised and normalised (the published script switches the last two off)",
        "centred only, as in the paper and the published script",
        f"200 of 2000 rows: {overlap(*top)}",
    )


MEASURED: tuple[Callable[[], Row], ...] = (
    bins_follow_the_unit,
    missing_scores,
    clipping,
    shares_round_up,
    strata_round_up,
    seeds,
    semdedup_zeros,
    semdedup_order,
    density_shares,
    coincide_rounding,
    coincide_density,
    less_bias,
    rds_global_max,
    rds_turns,
    gist_aggregate,
    gist_rank,
    scalselect_scaling,
)


def table() -> str:
    lines = ["| where | official code | liit | measured |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *("| " + " | ".join(measure()) + " |" for measure in MEASURED)])


def main() -> None:
    if "--json" in sys.argv:
        print(json.dumps([dict(zip(("where", "official", "liit", "measured"), m(), strict=True)) for m in MEASURED]))
        return
    text = table()
    print(text)
    if "--write" in sys.argv:
        page = PAGE.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Adapt-infinity (Maharana et al., ICLR 2025): pseudo-skills, an expert for each, even budgets, even coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection._experts import ExpertInfo, built_in_experts, expert_scores, find_expert
from liit.selection.arrays import AnyArray, Floats, Ints
from liit.selection.budget import allocate, allocate_weighted
from liit.selection.clusters import cluster_members
from liit.selection.kmeans import DEFAULT_GRID, cluster
from liit.selection.options import as_compat, as_count, as_fraction, as_names, one_of
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice
from liit.selection.sampling import HIGH_TAIL, LOW_TAIL, draw, histogram_entropy, stratify

MODES = ("entropy", "rank-average", "mixture")


@register_selector(
    "adapt-inf",
    needs=("gradient",),
    reads=built_in_experts(),
    description="pseudo-skills by gradient; in each the score that spreads most, sampled evenly over its range",
)
def adapt_infinity(
    problem: Problem,
    *,
    expert: str = "entropy",
    experts: Sequence[str] | None = None,
    k: int | None = None,
    k_grid: Sequence[int] = DEFAULT_GRID,
    bins: int = 50,
    trim: float = 0.05,
    compat: str | None = None,
    labels: npt.ArrayLike | None = None,
) -> Choice:
    """Cluster by gradient, choose a score for each cluster, split the budget evenly, cover each score's range.

    A score is not offered to a cluster where it is missing for more than half of the rows; rows without the chosen
    score are a stratum of their own; rows without a gradient are a cluster of their own. Nothing is dropped.

    Args:
        problem: features `gradient` [N, m] and the columns of the experts, budget, seed.
        expert: "entropy": the score whose histogram in the cluster has the highest entropy (the paper, section 3.2);
            "rank-average": the mean rank over all scores offered; "mixture": every score offered draws a part of the
            cluster's budget in proportion to its entropy.
        experts: names of the experts that compete; None: every built-in one whose column is there.
        k: number of clusters; None: by the elbow over `k_grid`.
        k_grid: numbers of clusters to try.
        bins: bins of the entropy and strata of the sampling.
        trim: share of a cluster set aside as outliers at each end of the score.
        compat: "official" leaves scores beyond 4 standard deviations out of the entropy, as the official code does.
        labels: pseudo-skills of the rows, if they are already known; no clustering then. Numbered anew in sorted order.

    Returns:
        The choice; `info` has k, the inertia curve, and for each cluster size, budget, expert and entropies.

    Raises:
        InputError: a malformed option or feature, or no column of any expert.
    """
    options = ChoiceOptions(expert, experts, k, k_grid, bins, trim, compat, labels)
    return choose_by_pseudo_skill(problem, "gradient", options)


@dataclass(frozen=True)
class ChoiceOptions:
    """The options of `adapt_infinity`, which say there what they mean."""

    expert: str
    experts: Sequence[str] | None
    k: int | None
    k_grid: Sequence[int]
    bins: int
    trim: float
    compat: str | None
    labels: npt.ArrayLike | None


def choose_by_pseudo_skill(problem: Problem, feature: str, options: ChoiceOptions) -> Choice:
    """The rule of `adapt_infinity` with pseudo-skills by any vector feature.

    Args:
        problem: the feature and the columns of the experts, budget, seed.
        feature: [N, d], whose directions are clustered.
        options: of the rule.

    Raises:
        InputError: a malformed option or feature, or no column of any expert.
    """
    expert = one_of(options.expert, "expert", MODES)
    official = as_compat(options.compat)
    bins, trim = as_count(options.bins, "bins", minimum=1), as_fraction(options.trim, "trim", 0.0, 0.5)
    offered = _offered(problem, options.experts)
    table = {e.name: expert_scores(problem, e) for e in offered}
    skills, info = _pseudo_skills(problem, feature, options)
    members = cluster_members(skills)
    budgets = allocate([len(m) for m in members], problem.budget)
    plan = _Plan(problem, table, expert, bins, trim, clip=not official)
    for c, (rows, share) in enumerate(zip(members, budgets, strict=True)):
        plan.cluster(c, rows, int(share))
    info |= {"expert": expert, "experts": list(table), "bins": bins, "trim": trim, "clusters": plan.clusters}
    return Choice(
        chosen=np.flatnonzero(plan.kept).astype(np.int64),
        why=plan.reasons,
        why_not=plan.reasons,
        score=plan.score,
        rank=plan.rank,
        expert=plan.expert,
        cluster=skills,
        info=info,
    )


def _offered(problem: Problem, names: Sequence[str] | None) -> list[ExpertInfo]:
    if names is None:
        found = [find_expert(n) for n in built_in_experts() if n in problem]
        if not found:
            raise InputError(
                f"adapt-inf needs at least one of the features {', '.join(built_in_experts())}; none is there"
            )
        return found
    chosen = [find_expert(n) for n in as_names(names, "experts")]
    missing = sorted({need for e in chosen for need in e.needs if need not in problem})
    if missing:
        raise InputError(f"adapt-inf needs the features {', '.join(missing)} for its experts, which are not there")
    return chosen


def _pseudo_skills(problem: Problem, feature: str, options: ChoiceOptions) -> tuple[Ints, dict[str, Any]]:
    missing = f"without_{feature}"
    if options.labels is not None:
        given, _ = problem.labels(options.labels, "labels")
        return given, {"k": int(given.max(initial=-1)) + 1, "curve": [], missing: 0}
    rows = problem.unit_rows(feature)
    found = cluster(rows, options.k, options.k_grid, problem.seed)
    return found.labels, {"k": found.k, "curve": found.curve, missing: int(rows.missing.sum())}


@dataclass
class _Draw:
    """One stratified draw: the rows that may be drawn, and by what."""

    expert: str
    rows: Ints
    scores: Floats
    share: int


class _Plan:
    """Goes through the clusters and keeps, for every row, what was decided and why."""

    def __init__(
        self, problem: Problem, table: dict[str, Floats], mode: str, bins: int, trim: float, clip: bool
    ) -> None:
        n = problem.n
        self.problem, self.table, self.mode, self.bins, self.trim, self.clip = problem, table, mode, bins, trim, clip
        self.draws = [problem.draws(i) for i in range(len(table) if mode == "mixture" else 1)]
        self.kept = np.zeros(n, dtype=bool)
        self.score = np.full(n, np.nan)
        self.rank = np.zeros(n, dtype=np.int64)
        self.expert: AnyArray = np.full(n, "", dtype=object)
        self.stratum = np.zeros(n, dtype=np.int64)
        self.cluster_of = np.zeros(n, dtype=np.int64)
        self.clusters: list[dict[str, Any]] = []

    def cluster(self, c: int, rows: Ints, share: int) -> None:
        """Decide one cluster."""
        self.cluster_of[rows] = c
        entropies = {
            name: histogram_entropy(scores[rows], self.bins, self.clip)
            for name, scores in self.table.items()
            if 2 * int(np.isnan(scores[rows]).sum()) <= len(rows)
        }
        chosen = self._draw_cluster(rows, share, entropies)
        entry: dict[str, Any] = {"cluster": c, "size": len(rows), "budget": share, "expert": chosen}
        entry["entropies"] = {name: entropies.get(name) for name in self.table}
        self.clusters.append(entry)

    def _draw_cluster(self, rows: Ints, share: int, entropies: dict[str, float]) -> str:
        if not entropies:
            self._draw(_Draw("none", rows, np.full(len(rows), np.nan), share), self.draws[0])
            return "none"
        if self.mode == "rank-average":
            ranks = np.array([_mid_ranks(self.table[name][rows]) for name in entropies])
            counted = np.maximum((~np.isnan(ranks)).sum(axis=0), 1)
            mean = np.nansum(ranks, axis=0) / counted
            mean[np.isnan(ranks).all(axis=0)] = np.nan
            self._draw(_Draw("rank-average", rows, np.round(mean, 12), share), self.draws[0])
            return "rank-average"
        if self.mode == "mixture":
            names = list(entropies)
            parts = allocate_weighted([len(rows)] * len(names), list(entropies.values()), share)
            for name, part in zip(names, parts, strict=True):
                left = rows[~self.kept[rows]]
                stream = self.draws[list(self.table).index(name)]
                self._draw(_Draw(name, left, self.table[name][left], int(part)), stream)
            return "mixture"
        # entropies that differ in the last bits only are ties, and ties go to the expert listed first
        best = max(entropies, key=lambda name: (round(entropies[name], 9), -list(self.table).index(name)))
        self._draw(_Draw(best, rows, self.table[best][rows], share), self.draws[0])
        return best

    def _draw(self, plan: _Draw, draws: Floats) -> None:
        strata = stratify(plan.scores, draws[plan.rows], self.bins, self.trim)
        self.kept[plan.rows[draw(strata, plan.share, draws[plan.rows])]] = True
        self.stratum[plan.rows] = strata
        self.score[plan.rows] = plan.scores
        self.expert[plan.rows] = plan.expert
        known = np.flatnonzero(~np.isnan(plan.scores))
        best_first = known[np.lexsort((self.problem.arrival[plan.rows[known]], -plan.scores[known]))]
        self.rank[plan.rows] = 0
        self.rank[plan.rows[best_first]] = np.arange(1, len(known) + 1)

    def reasons(self, at: Ints) -> list[str]:
        """A sentence for each position."""
        return [self._reason(int(p)) for p in at]

    def _reason(self, p: int) -> str:
        entry = self.clusters[int(self.cluster_of[p])]
        name = str(self.expert[p])
        where = f"cluster {entry['cluster']} keeps {entry['budget']} of {entry['size']}"
        if name == "none":
            how = "no expert applies here, drawn uniformly"
        elif self.mode == "entropy":
            how = f"{name} spreads most ({entry['entropies'][name]:.2f} bits)"
        elif self.mode == "mixture":
            how = f"by {name}, one of a mixture of experts"
        else:
            how = "by the mean rank over its experts"
        if entry["budget"] == entry["size"]:
            return f"{where}; {how}; the whole cluster is kept"
        return f"{where}; {how}; {self._stratum_text(p, name)}"

    def _stratum_text(self, p: int, name: str) -> str:
        stratum, kept = int(self.stratum[p]), bool(self.kept[p])
        if name == "none":
            return "drawn" if kept else "not drawn"
        if stratum in (LOW_TAIL, HIGH_TAIL):
            end = "lowest" if stratum == LOW_TAIL else "highest"
            if kept:
                return f"among the {end} {self.trim:.0%}, drawn because the others did not fill the budget"
            return f"left out as an outlier, among the {end} {self.trim:.0%}"
        place = f"stratum {stratum + 1} of {self.bins}" if stratum < self.bins else f"the rows without {name}"
        return f"drawn from {place}" if kept else f"not drawn from {place}"


def _mid_ranks(scores: Floats) -> Floats:
    """Mean rank of each score, scaled to [0, 1]; NaN stays NaN."""
    ranks = np.full(len(scores), np.nan)
    known = np.flatnonzero(~np.isnan(scores))
    if known.size:
        _, inverse, counts = np.unique(scores[known], return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        ranks[known] = (last - (counts + 1) / 2.0)[inverse] / max(1, len(known) - 1)
    return ranks

"""Clusters per step: how large, what budget, which expert and why, and some of the samples kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liit.report.model import Run, Selection, Step
from liit.report.thumbnails import Card, Gallery, take
from liit.selection import selectors

_LAST_STEP_CARDS, _EARLIER_CARDS = 12, 4
_SAMPLES_PER_CLUSTER = 5
_HIDDEN_STATES = (
    "Each step groups the pool by how the model represents the samples: clusters of their mean hidden states, not of "
    "gradients."
)
_GROUPED = {
    "without_gradient": (
        "Each step groups the pool by what the samples would teach the model: clusters of their gradients."
    ),
    "without_embedding": _HIDDEN_STATES,
    "without_vector": _HIDDEN_STATES,  # of selectors that cluster nothing else
    "": "Each step groups the pool.",
}
"""By the count of rows without a vector, which a selector keeps under the name of what it clusters."""
_CHOSEN = {
    "entropy": "Inside a group, the scoring function that spreads its samples most (highest entropy) chooses.",
    "mixture": "Inside a group, every scoring function chooses a part, the larger the more it spreads the samples.",
    "rank-average": "Inside a group, the mean rank over all scoring functions chooses.",
}
_KEPT_COLUMNS = ("id", "cluster", "expert", "score", "rank", "reason")


@dataclass(frozen=True)
class Expert:
    """One scoring function's entropy in a cluster; `width` in percent of the largest of the step."""

    name: str
    entropy: float
    width: float
    chosen: bool


@dataclass(frozen=True)
class Cluster:
    """One cluster of one step."""

    number: int
    size: int
    budget: int
    expert: str
    experts: list[Expert]
    skills: list[tuple[str, float]]
    sources: list[tuple[str, float]]
    cards: list[Card]


@dataclass(frozen=True)
class Curve:
    """The k curve as points of a drawing 320 wide and 120 high, with the chosen k marked."""

    points: list[tuple[float, float, int, float]]
    chosen: tuple[float, float] | None
    k: int

    @property
    def path(self) -> str:
        """The points attribute of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in self.points)


@dataclass(frozen=True)
class StepClusters:
    """The clusters of one step; `detailed` are those shown with samples."""

    number: int
    name: str
    k: int
    curve: Curve | None
    clusters: list[Cluster]
    detailed: list[Cluster]
    experts: list[tuple[str, int]]
    is_last: bool


def cluster_steps(run: Run, pool: Any, gallery: Gallery) -> list[StepClusters]:
    """The steps of a run that have clusters, the last one first; empty for methods without clusters.

    Args:
        run: the run.
        pool: its pool, or None: then no samples are shown.
        gallery: where pictures come from.
    """
    steps = [step for step in run.steps if step.selection is not None and step.selection.info.get("clusters")]
    return [_step(step, pool, gallery, is_last=step is steps[-1]) for step in reversed(steps)]


def how_clustered(run: Run) -> str:
    """What a run's method clusters, and how it shares out the budget and chooses, by what its selections say."""
    info = next(s.selection.info for s in reversed(run.steps) if s.selection and s.selection.info.get("clusters"))
    grouped = _GROUPED[next((key for key in _GROUPED if key and key in info), "")]
    if any(entry.get("entropies") for entry in info["clusters"]):
        return f"{grouped} The budget is split evenly over the groups. {_CHOSEN.get(info.get('expert', 'entropy'), '')}"
    rule = selectors().get(str(info.get("selector", "")))
    return grouped if rule is None else f"{grouped} The rule of {info['selector']}: {rule.description}."


def _step(step: Step, pool: Any, gallery: Gallery, *, is_last: bool) -> StepClusters:
    selection = step.selection
    if selection is None:
        raise ValueError("step has no selection")
    infos = sorted(selection.info["clusters"], key=lambda info: (-int(info["size"]), int(info["cluster"])))
    shown = {int(info["cluster"]) for info in _both_ends(infos, _LAST_STEP_CARDS if is_last else _EARLIER_CARDS)}
    kept = _kept_rows(selection, shown)
    samples = take(pool, step.pool_version, [row["id"] for rows in kept.values() for row in rows])
    skills, sources = _labels(step, 1), _labels(step, 0)
    tallest = max((v for info in infos for v in (info.get("entropies") or {}).values() if v is not None), default=0.0)
    clusters = []
    for info in infos:
        number = int(info["cluster"])
        cards = [
            gallery.card(samples[row["id"]], _why(row))
            for row in kept.get(number, [])
            if samples.get(row["id"]) is not None
        ]
        clusters.append(
            Cluster(
                number=number,
                size=int(info["size"]),
                budget=int(info["budget"]),
                expert=str(info.get("expert") or ""),
                experts=_experts(info, tallest or 1.0),
                skills=_top(skills.get(number)),
                sources=_top(sources.get(number)),
                cards=cards,
            )
        )
    wins = Counter(cluster.expert for cluster in clusters if cluster.expert)
    return StepClusters(
        number=step.number,
        name=step.name,
        k=int(selection.info.get("k", len(clusters))),
        curve=_curve(selection.info),
        clusters=clusters,
        detailed=[cluster for cluster in clusters if cluster.number in shown],
        experts=wins.most_common(),
        is_last=is_last,
    )


def _both_ends(infos: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The largest and the smallest clusters: where redundancy and where rare skills sit."""
    if len(infos) <= count:
        return list(infos)
    return [*infos[: count - count // 2], *infos[len(infos) - count // 2 :]]


def _kept_rows(selection: Selection, clusters: set[int]) -> dict[int, list[dict[str, Any]]]:
    table = selection.table.select([name for name in _KEPT_COLUMNS if name in selection.table.column_names])
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        if row.get("cluster") in clusters:
            rows.setdefault(int(row["cluster"]), []).append(row)
    return {number: _spread(members) for number, members in rows.items()}


def _spread(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some rows evenly spaced over the cluster's ranking, so that they show its whole range."""
    rows.sort(key=lambda row: (row.get("score") is None, row.get("score") or 0.0, row["id"]))
    if len(rows) <= _SAMPLES_PER_CLUSTER:
        return rows
    last = _SAMPLES_PER_CLUSTER - 1
    return [rows[round(i * (len(rows) - 1) / last)] for i in range(_SAMPLES_PER_CLUSTER)]


def _why(row: Mapping[str, Any]) -> str:
    score = row.get("score")
    if row.get("reason"):
        clauses = str(row["reason"]).split("; ")
        # The cluster's own figures stand beside its samples already.
        own = clauses[1:] if len(clauses) > 1 and clauses[0].startswith("cluster ") else clauses
        return "; ".join(own if score is None else [*own, f"score {score:.3g}"])
    return f"{row.get('expert') or 'score'} {score:.3g}" if score is not None else ""


def _labels(step: Step, index: int) -> dict[int, Counter[str]]:
    counts: dict[int, Counter[str]] = {}
    if step.selection is not None and step.selection.labels is not None:
        for key, cluster in step.selection.labels.items():
            if key in step.pool:
                counts.setdefault(cluster, Counter())[step.pool[key][index]] += 1
    return counts


def _top(counts: Counter[str] | None, most: int = 3) -> list[tuple[str, float]]:
    if not counts:
        return []
    return [(name or "(unlabelled)", 100 * count / counts.total()) for name, count in counts.most_common(most)]


def _experts(info: Mapping[str, Any], tallest: float) -> list[Expert]:
    entropies = info.get("entropies") or {}
    known = [(name, float(value)) for name, value in entropies.items() if value is not None]
    return [
        Expert(name, value, 100 * value / tallest, name == info.get("expert"))
        for name, value in sorted(known, key=lambda item: -item[1])
    ]


def _curve(info: Mapping[str, Any]) -> Curve | None:
    curve = sorted((int(point["k"]), float(point["inertia"])) for point in info.get("curve") or [])
    if len(curve) < 2:
        return None
    ks, inertias = [k for k, _ in curve], [inertia for _, inertia in curve]
    k_range, low = (ks[-1] - ks[0]) or 1, min(inertias)
    height = (max(inertias) - low) or 1.0
    points = [
        (12 + 296 * (k - ks[0]) / k_range, 10 + 92 * (1 - (inertia - low) / height), k, inertia) for k, inertia in curve
    ]
    chosen = next(((x, y) for x, y, k, _ in points if k == info.get("k")), None)
    return Curve(points, chosen, int(info.get("k", 0)))

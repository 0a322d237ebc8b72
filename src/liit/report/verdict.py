"""What the numbers say, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from liit.report.model import Run
from liit.report.summary import RANDOM_METHODS, random_baseline, rare_skills

_NOT_SELECTING = (*RANDOM_METHODS, "sequential", "multitask", "random-balanced", "new-only")


def verdict(runs: tuple[Run, ...], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences computed from the summary, without advertising: a method that does not win is said not to win.

    Args:
        runs: the runs.
        rows: their summary, in the same order.

    Returns:
        One sentence per fact, most important first.
    """
    done = [row for row in rows if row["finished"] and not row["is_reference"]]
    sentences = [_unfinished(run) for run in runs if not run.finished]
    if not done:
        return sentences or ["Only the reference was run, so there is nothing to compare."]
    best = max(done, key=lambda row: row["average_accuracy"])
    sentences = [_best(best, done), *sentences]
    baseline = random_baseline(runs)
    if baseline is not None and baseline.finished:
        sentences += _against_random(best, done, baseline)
    elif len(done) > 1 or best["method"] not in _NOT_SELECTING:
        sentences.append("Random replay was not run, so nothing here shows what selection adds to chance.")
    sentences += _rare(done, rare_skills(runs)) + _cost(done) + _reference(best, rows)
    if len({run.seed for run in runs}) == 1:
        sentences.append(
            f"All of this is one seed ({runs[0].seed}): the intervals cover the chance in the evaluation rows, not the "
            "chance in selecting and training."
        )
    return sentences


def _unfinished(run: Run) -> str:
    evaluated = sum(step.evaluation is not None for step in run.steps)
    return (
        f"{run.label} is not finished ({evaluated} of {len(run.steps)} steps evaluated) and has no final numbers yet."
    )


def _best(best: Mapping[str, Any], done: Sequence[Mapping[str, Any]]) -> str:
    score = f"{best['average_accuracy']:.3f}"
    if not math.isnan(best["average_low"]):
        score += f" (95 % interval {best['average_low']:.3f} to {best['average_high']:.3f})"
    if len(done) == 1:
        return f"{best['label']} ends with an average accuracy of {score}."
    return f"{best['label']} has the best average accuracy of the {len(done)} methods: {score}."


def _against_random(best: Mapping[str, Any], done: Sequence[Mapping[str, Any]], baseline: Run) -> list[str]:
    selecting = [row for row in done if row["method"] not in _NOT_SELECTING]
    sentences = [_difference(row) for row in sorted(selecting, key=lambda row: -row["average_accuracy"])]
    if best["method"] in RANDOM_METHODS and selecting:
        return ["That is random replay: selection does not win here.", *sentences]
    if selecting and best["method"] in _NOT_SELECTING:
        return [f"Selection does not win here: {best['label']} does not select by features.", *sentences]
    winners = [row for row in selecting if row["versus_random_low"] > 0]
    if selecting and not winners:
        sentences.append("So no method here is shown to select better than chance.")
    return sentences


def _difference(row: Mapping[str, Any]) -> str:
    gap, low, high = row["versus_random"], row["versus_random_low"], row["versus_random_high"]
    if math.isnan(gap):
        return (
            f"{row['label']} and random replay were not evaluated on the same rows: no interval for their difference."
        )
    side = "above" if gap >= 0 else "below"
    text = f"{row['label']} ends {abs(gap):.3f} {side} random replay (95 % interval {low:+.3f} to {high:+.3f})"
    if low > 0 or high < 0:
        return f"{text}: more than chance in the evaluation rows."
    return f"{text}: the interval includes zero, so these rows cannot tell the two apart."


def _rare(done: Sequence[Mapping[str, Any]], rare: Sequence[str]) -> list[str]:
    known = [row for row in done if not math.isnan(row["rare_accuracy"])]
    if not rare or not known:
        return []
    ranking = sorted(known, key=lambda row: -row["rare_accuracy"])
    scores = ", ".join(f"{row['label']} {row['rare_accuracy']:.3f}" for row in ranking)
    return [f"On the {len(rare)} rare skills (under 1 % of the samples each): {scores}."]


def _cost(done: Sequence[Mapping[str, Any]]) -> list[str]:
    selecting = [row for row in done if row["method"] not in _NOT_SELECTING and not math.isnan(row["cost_ratio"])]
    if not selecting:
        return []
    shares = ", ".join(f"{row['label']} {percent(row['cost_ratio'])}" for row in selecting)
    return [f"Choosing the samples took, of the time that training on them took: {shares}."]


def percent(ratio: float) -> str:
    """A ratio of costs in percent; below 10 % with one digit behind the point."""
    return f"{100 * ratio:.{1 if ratio < 0.0995 else 0}f} %"


def _reference(best: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    reference = next((row for row in rows if row["is_reference"]), None)
    if reference is None or math.isnan(reference["average_accuracy"]) or math.isnan(best["relative_gain"]):
        return []
    return [
        f"Training on all data at the end ({reference['label']}) reaches {reference['average_accuracy']:.3f} with "
        f"{reference['trained_samples']:,} samples; {best['label']} reaches {best['relative_gain']:.1f} % of that, "
        f"skill by skill, with {best['trained_samples']:,}."
    ]

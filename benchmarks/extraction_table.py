"""The table of docs/extraction-benchmark.md, made from the JSON that extraction.py writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extraction-benchmark.md"
BEGIN, END = "<!-- measured by benchmarks/extraction.py -->", "<!-- end -->"
Parts = dict[str, Any]
RATIOS = (
    ("all features, no projection cost on the official side", "features", "official, no projection", 1.5, 2.0),
    ("all features, its projection dense and kept", "features", "official, cached dense", 1.8, 2.5),
    ("all features, its projection's signs redrawn at each call", "features", "official, signs redrawn", 6.0, 10.0),
    ("gradient sketch alone, its projection dense and kept", "sketch", "official, cached dense", 2.5, 4.0),
    ("gradient sketch alone, no projection cost on its side", "sketch", "official, no projection", 1.5, 2.5),
)
MODELS = ("demo", "middle", "large")
FLAT = 0.01  # growth for 1024 rows, as part of the peak, that is rounding
IDLE = 0.1  # cores that others may use for a wall time to count


def tables(results: dict[str, Any]) -> str:
    """Everything that was measured, as Markdown."""
    parts: Parts = results["parts"]
    sections = (speed, arithmetic, wall, limits, agreements, fidelity, shares)
    return "\n\n".join(text for section in sections if (text := section(parts)))


def speed(parts: Parts) -> str:
    """How many times as fast as the official procedure."""
    rows = []
    for title, part, baseline, floor, goal in RATIOS:
        found = [_ratio(parts, part, model, baseline) for model in MODELS]
        reached = ", ".join(_verdict(pair, floor, goal) for pair in found)
        rows.append((title, f"{floor:g}", f"{goal:g}", *map(_cell, found), reached))
    head = (
        "times as fast as the official procedure",
        "floor",
        "goal",
        "demo, 4 M",
        "middle, 6 M",
        "large, 93 M",
        "reached",
    )
    return _table(head, rows)


def _ratio(parts: Parts, part: str, model: str, baseline: str) -> tuple[float, float] | None:
    found = parts.get(f"{part}/{model}")
    return None if found is None else (found["ratio_images_first"][baseline], found["ratio_images_kept"][baseline])


def _verdict(pair: tuple[float, float] | None, floor: float, goal: float) -> str:
    if pair is None:
        return "not measured"
    worst = min(pair)
    return "goal" if worst >= goal else "floor" if worst >= floor else "**no**"


def arithmetic(parts: Parts) -> str:
    """What the ratio without projection can be, by operations alone."""
    found = [(m, parts[f"arithmetic/{m}"]) for m in MODELS if f"arithmetic/{m}" in parts]
    if not found:
        return ""
    rows = [
        (
            title,
            *(
                f"{f[key]['official_forwards']:.2f}, {f[key]['liit_forwards']:.2f}: {f[key]['ratio']:.2f}"
                for _, f in found
            ),
        )
        for title, key in (("all features", "features"), ("gradient sketch alone", "sketch"))
    ]
    return _table(("decoder's operations in forward passes, official and liit: ratio", *(m for m, _ in found)), rows)


def wall(parts: Parts) -> str:
    """Wall time on two threads, and whether the machine was idle."""
    if not any(f"wall/{model}" in parts for model in MODELS):
        return ""
    baseline, goal = "official, no projection", 3.0
    found = [_ratio(parts, "wall", model, baseline) for model in MODELS]
    reached = ["not measured" if pair is None else "goal" if min(pair) >= goal else "**no**" for pair in found]
    row = (RATIOS[0][0], f"{goal:g}", *(_cell(pair) for pair in found), ", ".join(reached))
    table = _table(("wall time on two threads", "goal", *MODELS, "reached"), [row])
    others = max(parts[f"wall/{model}"]["others"] for model in MODELS if f"wall/{model}" in parts)
    return table if others <= IDLE else f"{table}\n\nThe machine was not idle: others used up to {others:g} cores."


def _cell(pair: tuple[float, float] | None) -> str:
    return "not measured" if pair is None else f"{pair[0]:.2f} / {pair[1]:.2f}"


def limits(parts: Parts) -> str:
    """Memory, growth, fidelity in one line each, and work not done twice."""
    checks: tuple[Callable[[Parts], tuple[str, str, str, str] | None], ...] = (
        _memory, _flat, _dense, _slope, _rmse, _against_dense, _again, _new, _checkpoint,
    )  # fmt: skip
    rows = [row for check in checks if (row := check(parts)) is not None]
    return _table(("what", "must be", "measured", "reached"), rows) if rows else ""


def _yes(condition: bool) -> str:
    return "yes" if condition else "**no**"


def _memory(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("memory/middle")) is None:
        return None
    length = f"{found['model']['gradient_length']:,}".replace(",", " ")
    title = f"peak memory above base, P = {length}"
    return title, "at most 400 MB", f"{found['worst_mb']:.0f} MB", _yes(found["worst_mb"] <= 400)


def _flat(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("memory/middle")) is None:
        return None
    if not found["shards"]:
        return "growth of resident memory for 1024 samples", "flat", "not measured", "not measured"
    last = found["shards"][-1]
    shard = f"shard {len(found['shards'])} of {found['shard_rows']} samples"
    title = f"resident in {shard}: own, mapped; growth per 1024 over the later half"
    measured = f"{last['own_mb']:.0f} MB, {last['mapped_mb']:.0f} MB; {found['growth_mb_per_1024']:+.1f} MB"
    return title, "flat", measured, "flat" if is_flat(found) else "**no**"


def is_flat(found: dict[str, Any]) -> bool:
    """Whether memory grows over the later half of the shards by no more than rounding."""
    return bool(found["growth_mb_per_1024"] <= FLAT * found["worst_mb"])


def _dense(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("memory/middle")) is None:
        return None
    small = found["worst_mb"] < found["dense_matrix_mb"] / 4  # even one byte per sign would show
    measured = f"the official procedure's peak: {found['official_mb']:.0f} MB"
    return "an object of P x k numbers", "none", measured, _yes(small)


def _slope(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("scaling/demo")) is None:
        return None
    return (
        "time against samples, log-log slope over 8 x N",
        "at most 1.05",
        f"{found['slope']:.2f}",
        _yes(found["slope"] <= 1.05),
    )


def _rmse(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("fidelity/demo")) is None:
        return None
    cells = [(dim, value) for dim, value in _dims(found)]
    measured = ", ".join(f"{value['fold']['rmse'] * int(dim) ** 0.5:.2f}" for dim, value in cells)
    fine = all(value["fold"]["rmse"] <= value["bound"] for _, value in cells)
    return (
        f"sketch: RMSE of cosines x sqrt(k), k = {', '.join(d for d, _ in cells)}",
        "at most 1.1",
        measured,
        _yes(fine),
    )


def _against_dense(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("fidelity/demo")) is None:
        return None
    ratio = [(v["fold"]["rmse"] / v["dense"]["rmse"], v) for _, v in _dims(found)]
    fine = all(not_worse(v["fold"], v["dense"], found["seeds"]) for _, v in ratio)
    measured = ", ".join(f"{r:.3f}" for r, _ in ratio)
    return "the same, divided by that of a dense projection", "1, within its spread over seeds", measured, _yes(fine)


def not_worse(fold: dict[str, float], dense: dict[str, float], seeds: int) -> bool:
    """The mean error is no larger than the dense projection's, beyond two standard errors of the difference."""
    error = ((fold["rmse_deviation"] ** 2 + dense["rmse_deviation"] ** 2) / seeds) ** 0.5
    return fold["rmse"] <= dense["rmse"] + 2 * error


def _dims(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, value) for name, value in found.items() if name.isdigit())


def _again(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("counts/demo")) is None:
        return None
    again = found["again"]
    return (
        "nothing changed: calls of model and tower", "0 and 0", f"{again['model_calls']} and {again['tower_calls']}",
        _yes(again["model_calls"] == again["tower_calls"] == 0),
    )  # fmt: skip


def _new(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("counts/demo")) is None:
        return None
    among, alone = found["new_samples"]["rows"], found["new_samples_alone"]["rows"]
    title = f"{found['samples']['new']} new samples among {found['samples']['old']} scored: rows that the model saw"
    return title, "as without the others", f"{among}, without {alone}", _yes(among == alone)


def _checkpoint(parts: Parts) -> tuple[str, str, str, str] | None:
    if (found := parts.get("counts/demo")) is None:
        return None
    seen, live = found["new_checkpoint"], found["samples"]["live"]
    title = f"new checkpoint, {live} live samples: rows that the model saw (with and without image), calls of the tower"
    fine = seen["rows"] <= 2 * live and seen["tower_calls"] == 0
    return title, f"at most {2 * live}; 0", f"{seen['rows']}; {seen['tower_calls']}", _yes(fine)


def agreements(parts: Parts) -> str:
    """Largest relative differences, before storage and through the kept float16 states of the tower."""
    rows = []
    for model in MODELS:
        if (found := parts.get(f"features/{model}")) is None:
            continue
        agreed, kept = found["agreement"], found["kept_states"]
        before = max(v for name, v in agreed.items() if name not in ("gradient", "embedding", "grad_norm"))
        after = max(v for name, v in kept.items() if name not in ("gradient", "grad_norm"))
        values = (before, agreed["gradient"], agreed["embedding"], after, kept["gradient"])
        rows.append((model, *(f"{value:.0e}" for value in values)))
    head = (
        "largest relative difference",
        "scores",
        "gradient",
        "embedding",
        "scores, states kept in float16",
        "gradient, the same",
    )
    return _table(head, rows) if rows else ""


def fidelity(parts: Parts) -> str:
    """Correlation of the cosines of sketches with those of exact gradients."""
    if (found := parts.get("fidelity/demo")) is None:
        return ""
    rows = [
        (
            dim, f"{v['fold']['rmse']:.4f}", f"{v['dense']['rmse']:.4f}", f"{v['fold']['pearson']:.3f}",
            f"{v['dense']['pearson']:.3f}", f"{v['fold']['spearman']:.3f}", f"{v['dense']['spearman']:.3f}",
        )
        for dim, v in _dims(found)
    ]  # fmt: skip
    stored = found["as_stored"]
    rows.append(
        (
            "8192, float16 on disk",
            f"{stored['rmse']:.4f}",
            "",
            f"{stored['pearson']:.3f}",
            "",
            f"{stored['spearman']:.3f}",
            "",
        )
    )
    head = ("k", "RMSE, liit", "RMSE, dense", "Pearson, liit", "Pearson, dense", "Spearman, liit", "Spearman, dense")
    return _table(head, rows)


def shares(parts: Parts) -> str:
    """Where the official procedure's time goes, without projection."""
    found = {m: parts[f"features/{m}"]["official_share"] for m in MODELS if f"features/{m}" in parts}
    if not found:
        return ""
    names = list(next(iter(found.values())))
    rows = [(name, *(f"{100 * share.get(name, 0):.0f} %" for share in found.values())) for name in names]
    return _table(("official procedure's time", *found), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines)


def write_page(results: dict[str, Any], page: Path = PAGE) -> None:
    """Put the tables between the page's two marks."""
    head, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{tables(results)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")

"""The tables on approximations in docs/extraction.md, made from the JSON that approximations.py writes."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extraction.md"
BEGIN, END = "<!-- measured by benchmarks/approximations.py -->", "<!-- end of approximations -->"
GOAL = 0.375  # forward passes per pool sample: half of training at a pool four times the budget
COLUMNS = ("log_perplexity", "image_grounding", "el2n", "entropy", "grad_norm")


def tables(results: dict[str, Any]) -> str:
    """Everything that was measured, as Markdown."""
    sections = (costs, changes, gains)
    return "\n\n".join(text for section in sections if (text := section(results)))


def costs(results: dict[str, Any]) -> str:
    """What each setting saves."""
    rows = [
        (
            found["title"], str(found["scored"]), str(found["predicted"] + found["carried"]),
            f"{found['forwards_per_sample']:.2f}", f"{found['cpu_ratio']:.2f}",
        )
        for found in results["settings"].values()
    ]  # fmt: skip
    head = ("scoring", "rows the model saw", "rows it did not", "forward passes per pool sample", "CPU time, exact = 1")
    return _table(head, rows)


def changes(results: dict[str, Any]) -> str:
    """What each setting changes."""
    measure, rows = results["yardstick"], []
    for found in results["settings"].values():
        if "spearman" not in found:
            continue
        cosine = found["gradient_cosine"]
        scores = [found["spearman"].get(name) for name in COLUMNS]
        rows.append(
            (
                found["title"], *("" if score is None else f"{score:.3f}" for score in scores),
                "" if cosine is None else f"{cosine:.2f}", f"{found['overlap']:.2f}",
                f"{found['moved_between_skills']:.2f}", f"{found['clusters_ami']:.2f}",
            )
        )  # fmt: skip
    spread = [_spread(measure[name]) for name in ("overlap", "moved_between_skills", "clusters_ami")]
    rows.append(("exact features, other seeds", *[""] * len(COLUMNS), "", *spread))
    head = (
        "beside exact scoring", *(name.replace("_", " ") for name in COLUMNS), "gradient's cosine",
        "chosen rows in common", "budget moved between skills", "clusters, adjusted mutual information",
    )  # fmt: skip
    return _table(head, rows)


def gains(results: dict[str, Any]) -> str:
    """Accuracy of whole runs over seeds, beside those with exact scoring at the same seeds."""
    found = results.get("gain", {})
    exact, rows = found.get("exact", {}), []
    for name in (name for name in results["settings"] if name in found):
        runs = found[name]
        seeds = sorted(set(runs) & set(exact))
        if not seeds:
            continue
        accuracy = _mean_and_deviation([runs[seed]["average_accuracy"] for seed in seeds])
        gained = [runs[seed]["average_accuracy"] - exact[seed]["average_accuracy"] for seed in seeds]
        taken, whole = (sum(side[seed]["cpu_seconds"] for seed in seeds) for side in (runs, exact))
        difference = "" if name == "exact" else _mean_and_deviation(gained, "+")
        title = results["settings"][name]["title"]
        rows.append((title, str(len(seeds)), accuracy, difference, f"{taken / whole:.2f}"))
    head = (
        "a whole run of adapt-inf", "seeds", "average accuracy at the end", "difference to exact, seed by seed",
        "CPU time of the run, exact = 1",
    )  # fmt: skip
    return _table(head, rows) if rows else ""


def _mean_and_deviation(values: list[float], sign: str = "") -> str:
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.3f}{spread}".replace("-", "−")


def _spread(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def write_page(results: dict[str, Any], page: Path = PAGE) -> None:
    """Put the tables between the page's two marks."""
    head, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{tables(results)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")

"""Why clusters of gradients are, or are not, skills: clusterings of one pool compared with its skill labels.

    python benchmarks/diagnosis.py RUN [--json FILE]

RUN is a finished run of the built-in continuum that trained at every step. All features of the last step's pool are
extracted with the checkpoint of the step before (about two minutes on one core), then the pool is clustered by each of
several vectors, and the budget spread evenly over the clusters as `adapt-inf` does. Labels serve the diagnosis only.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from liit.config import load_config
from liit.data.pool import Pool
from liit.features import FeatureStore
from liit.lifelong import stages
from liit.lifelong.workbench import Workbench
from liit.selection import select

RESULT = Path(__file__).parent / "results" / "diagnosis.json"
EXTRACTIONS = {
    "gradient, middle layer": ("features.layers=middle", "gradient"),
    "gradient, last layer": ("features.layers=-1", "gradient"),
    "gradient, all layers": ("features.layers=all", "gradient"),
    "mean hidden state, middle layer": ("features.embedding_layer=middle", "embedding"),
    "mean hidden state, last layer": ("features.embedding_layer=-1", "embedding"),
    "weighted last hidden state": ("features.embedding_layer=middle", "last_hidden_weighted"),
}
SCORES = ("log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm")
COUNTS = (None, 50, 200)
Columns = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    ids, columns, skills, budget = pool_of(arguments.run)
    rows = [described("random", select("random", {"id": ids}, budget, 0), skills)]
    for name, labels in (("even over sources", columns["source"]), ("even over skills (labels given)", skills)):
        rows.append(described(name, select("random-balanced", {"id": ids, "source": labels}, budget, 0), skills))
    with TemporaryDirectory() as scratch:
        scored = extracted(arguments.run, ids, "features.layers=middle", SCORES, Path(scratch) / "scores")
        for number, (name, (setting, column)) in enumerate(EXTRACTIONS.items()):
            vector = extracted(arguments.run, ids, setting, (column,), Path(scratch) / str(number))[column]
            for k in COUNTS:
                chosen = select("adapt-inf", {"id": ids, "gradient": vector, **scored}, budget, 0, k=k)
                rows.append(described(name, chosen, skills))
                print(line(rows[-1]), flush=True)
    result = {"run": arguments.run.name, "rows": len(ids), "budget": budget, "skills": dict(Counter(skills.tolist()))}
    arguments.json.write_text(json.dumps(result | {"clusterings": rows}, indent=1) + "\n", encoding="utf-8")
    print("\n".join(map(line, rows)))


def pool_of(run: Path) -> tuple[np.ndarray, Columns, np.ndarray, int]:
    """Ids, sources and skills of the last step's pool, and the budget."""
    config = load_config(run / "continuum.yaml", check_files=False)
    table = Pool.open(run / "pool").columns(["id", "source", "skill"]).to_pydict()
    columns = {name: np.asarray(values, dtype=str) for name, values in table.items()}
    return columns["id"], columns, columns["skill"], config.budget


def extracted(run: Path, ids: np.ndarray, setting: str, names: tuple[str, ...], out: Path) -> Columns:
    """Features of all samples under the checkpoint that the last step's selection saw."""
    adapter = sorted((run / "steps").iterdir())[-2] / "adapter"
    bench = Workbench(load_config(run / "continuum.yaml", [setting], check_files=False))
    samples = Pool.open(run / "pool").take(ids.tolist())
    stages.extract_step(bench, adapter, samples, names, out)
    view = FeatureStore(out).view(ids.tolist())
    return {name: np.asarray(view[name]) for name in names}


def described(name: str, selection: Any, skills: np.ndarray) -> dict[str, Any]:
    """How a selection lies over the skills."""
    counts = Counter(skills[selection.rows].tolist())
    shares = np.array(list(counts.values())) / len(selection)
    pool = Counter(skills.tolist())
    rare = [skill for skill, count in pool.items() if count < 0.01 * len(skills)]
    largest = pool.most_common(1)[0][0]
    found: dict[str, Any] = {
        "name": name,
        "k": selection.info.get("k"),
        "effective_skills": float(np.exp(-(shares * np.log(shares)).sum())),
        "skills_missing": len(pool) - len(counts),
        "largest_skill": counts[largest],
        "rare_skills": sum(counts[skill] for skill in rare),
    }
    if selection.labels is not None:
        from sklearn.metrics import normalized_mutual_info_score

        found["nmi"] = float(normalized_mutual_info_score(skills, selection.labels))
    return found


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    nmi = f"{row['nmi']:.2f}" if "nmi" in row else "–"
    counts = " | ".join(str(row[name]) for name in ("largest_skill", "rare_skills", "skills_missing"))
    return f"| {row['name']} | {row['k'] or '–'} | {nmi} | {row['effective_skills']:.1f} | {counts} |"


if __name__ == "__main__":
    main()

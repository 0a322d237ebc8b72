"""What the official code's ways of computing features change, measured on the built-in base model and continuum.

    python benchmarks/official_features.py            measures, prints the table; minutes
    python benchmarks/official_features.py --write    also keeps results/official_features.json and the page's table

The official ways are written anew here, one sample at a time with whole logits, as the official code of Adapt-infinity
does it; no official code is run. liit's own numbers come from `liit.extract`. Run it again with --write whenever the
built-in model or continuum changes.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import liit
from liit.config import FeatureSettings, load_config
from liit.data.ingest import ingest
from liit.data.sample import Sample
from liit.demo.continuum import cached_continuum

RESULTS = Path(__file__).parent / "results" / "official_features.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "official-code.md"
BEGIN, END = "<!-- measured by benchmarks/official_features.py -->", "<!-- end of features -->"

ROWS = 600
BATCH = 16
CLUSTERS = 12
SCALARS = ("log_perplexity", "image_grounding", "el2n", "entropy")
Columns = dict[str, np.ndarray]


def sampled(rows: int, seed: int = 0) -> list[Sample]:
    """Training samples of the built-in continuum, as many of every step as there are of it."""
    config = load_config(cached_continuum())
    with tempfile.TemporaryDirectory() as folder:
        pool = liit.Pool.open_or_create(Path(folder) / "pool")
        for step in config.steps:
            for part in step.train:
                ingest(pool, part.path, part.format, part.source, part.images)
        samples = [sample for batch in pool.scan() for sample in batch]
    chosen = np.random.default_rng(seed).permutation(len(samples))[:rows]
    return [samples[i] for i in np.sort(chosen)]


def extracted(vlm: Any, samples: list[Sample], features: tuple[str, ...], **settings: Any) -> Columns:
    """The features as liit computes them."""
    with tempfile.TemporaryDirectory() as folder:
        store = liit.extract(vlm, samples, features, Path(folder) / "f", FeatureSettings(dtype="float32", **settings))
        view = store.view([sample.id for sample in samples])
        return {name: np.asarray(view[name], dtype=np.float64) for name in features}


def official_scores(vlm: Any, samples: list[Sample]) -> Columns:
    """Perplexity, EL2N, entropy and image grounding as the official code computes them, log-perplexity as a check."""
    import torch
    from torch.nn.functional import cross_entropy, one_hot

    from liit.model.batch import collate
    from liit.model.chat import ChatEncoder
    from liit.model.pixels import Pixels

    encoder, vision = ChatEncoder(vlm), Pixels(vlm)
    out: dict[str, list[float]] = {name: [] for name in ("check", *SCALARS)}
    for sample in samples:
        batch = collate(vlm, [encoder.encode(sample)], vision)
        labels = batch.pop("labels")[0, 1:]
        answer = labels != -100
        with torch.no_grad():
            whole = vlm.base(**batch).logits[0].float()
            logits, targets = whole[:-1][answer], labels[answer]
            nll = cross_entropy(logits, targets, reduction="none")
            p = whole.softmax(-1)
            error = one_hot(targets, whole.shape[-1]) - p[:-1][answer]
            perplexity = float(nll.exp().mean())
            grounding = math.nan
            if sample.images:
                blank = {k: torch.zeros_like(v) if v.is_floating_point() else v for k, v in batch.items()}
                blind = vlm.base(**blank).logits[0, :-1][answer].float()
                grounding = float(cross_entropy(blind, targets).exp()) / perplexity
        out["check"].append(float(nll.mean()))
        out["log_perplexity"].append(math.log(perplexity))
        out["image_grounding"].append(grounding)
        out["el2n"].append(float(error.pow(2).sum(1).sqrt().mean()))
        out["entropy"].append(float(-(p * (p + 1e-10).log()).sum(-1).mean()))
    return {name: np.array(values) for name, values in out.items()}


def pooled(vlm: Any, samples: list[Sample]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and position-weighted mean of last hidden states in batches: padding counted like any token, and not."""
    import torch

    from liit.model.batch import collate
    from liit.model.chat import ChatEncoder
    from liit.model.pixels import Pixels

    encoder, vision = ChatEncoder(vlm), Pixels(vlm)
    out: dict[str, list[list[np.ndarray]]] = {"mean": [[], []], "weighted": [[], []]}
    for start in range(0, len(samples), BATCH):
        batch = collate(vlm, [encoder.encode(sample) for sample in samples[start : start + BATCH]], vision)
        batch.pop("labels")
        with torch.no_grad():
            hidden = vlm.backbone(**batch, use_cache=False)[0].double()
        for side, mask in enumerate((torch.ones_like(batch["attention_mask"]), batch["attention_mask"])):
            for name, weights in (("mean", mask.double()), ("weighted", (mask.cumsum(1) * mask).double())):
                mean = (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
                out[name][side].append(mean.numpy())
    return {name: (np.concatenate(sides[0]), np.concatenate(sides[1])) for name, sides in out.items()}


def in_common(a: np.ndarray, b: np.ndarray, share: float = 0.1) -> float:
    """Of the rows with the highest `share` of scores a, how many are among those of scores b."""
    n = max(1, int(share * len(a)))
    return float(len(set(np.argsort(-a)[:n]) & set(np.argsort(-b)[:n])) / n)


def compared(official: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    from scipy.stats import spearmanr

    known = ~(np.isnan(official) | np.isnan(ours))
    a, b = official[known], ours[known]
    return {
        "rows": int(known.sum()),
        "official_mean": float(a.mean()),
        "liit_mean": float(b.mean()),
        "largest_difference": float(np.abs(a - b).max()),
        "spearman": float(spearmanr(a, b).statistic),
        "top_tenth_in_common": in_common(a, b),
    }


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / lengths)


def layers(vlm: Any, samples: list[Sample], middle: np.ndarray) -> dict[str, float]:
    """Clusters of gradients of the last layer (the official default) and of the middle one (the paper)."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    last = extracted(vlm, samples, ("gradient",), layers=-1, dim=1024)["gradient"]
    labels = [liit.selection.spherical_kmeans(x, CLUSTERS).labels for x in (last, middle)]
    skills = [sample.skill for sample in samples]
    return {
        "clusters": CLUSTERS,
        "agreement": float(adjusted_rand_score(*labels)),
        "last_with_skills": float(normalized_mutual_info_score(skills, labels[0])),
        "middle_with_skills": float(normalized_mutual_info_score(skills, labels[1])),
    }


def similarity_in_bfloat16(hidden: np.ndarray, queries: int = 20) -> dict[str, float]:
    """RDS+ with embeddings and their products in bfloat16, as in the official code, against float64."""
    import torch

    exact = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    short = torch.nn.functional.normalize(torch.from_numpy(hidden).to(torch.bfloat16), dim=1)
    rounded = (short[:queries] @ short[queries:].T).double().numpy()
    n = (len(hidden) - queries) // 10
    rows = [set(liit.round_robin(s, n).tolist()) for s in (rounded, exact[:queries] @ exact[queries:].T)]
    return {"queries": queries, "taken": n, "in_common": len(rows[0] & rows[1]) / n}


def half_precision(samples: list[Sample], ours: Columns) -> dict[str, float]:
    """Scores with the model in float16."""
    vlm = liit.load_vlm("builtin:demo", dtype="float16")
    short = extracted(vlm, samples, ("log_perplexity", "el2n", "entropy"))
    return {name: compared(short[name], ours[name])["spearman"] for name in short}


def selections(gradient: np.ndarray, official: Columns, ours: Columns) -> dict[str, Any]:
    """adapt-inf on the official scores with compat="official", and on liit's own."""
    found = []
    for scores, compat in ((official, "official"), (ours, None)):
        features = {name: scores[name] for name in SCALARS} | {"gradient": gradient, "id": np.arange(len(gradient))}
        found.append(liit.select("adapt-inf", features, len(gradient) // 5, k=CLUSTERS, compat=compat))
    experts = [[c["expert"] for c in selection.info["clusters"]] for selection in found]
    return {
        "clusters": len(experts[0]),
        "other_expert": sum(a != b for a, b in zip(*experts, strict=True)),
        "in_common": len(set(found[0].rows) & set(found[1].rows)) / len(found[0]),
    }


def measure(rows: int) -> dict[str, Any]:
    import torch

    from liit.model.lora import attach_lora

    torch.set_num_threads(1)
    samples = sampled(rows)
    vlm = liit.load_vlm("builtin:demo")
    ours = extracted(vlm, samples, (*SCALARS, "last_hidden_weighted"))
    zeros = extracted(vlm, samples, ("image_grounding",), blind="zeros")["image_grounding"]
    official = official_scores(vlm, samples)
    means = pooled(vlm, samples)
    worst = float(np.abs(official.pop("check") - ours["log_perplexity"]).max())
    least = float(cosines(means["weighted"][1], ours["last_hidden_weighted"]).min())
    if worst > 1e-3 or least < 0.9999:
        raise SystemExit(f"this script and liit.extract disagree: log-perplexity by {worst}, states by cosine {least}")
    side = [np.sign(g - 1.0) for g in (official["image_grounding"], ours["image_grounding"])]
    with_image = ~np.isnan(ours["image_grounding"])
    result: dict[str, Any] = {
        "base": vlm.base_id[:16],
        "rows": len(samples),
        "with_image": int(with_image.sum()),
        "scores": {name: compared(official[name], ours[name]) for name in SCALARS},
        "blind": compared(zeros, ours["image_grounding"])
        | {"other_side_of_one": float((side[0] != side[1])[with_image].mean())},
        "vocabulary": int(vlm.lm_head.weight.shape[0]),
        "unmasked": {
            name: {"median": float(np.median(c)), "least": float(c.min())}
            for name, c in ((name, cosines(*sides)) for name, sides in means.items())
        },
        "batch": BATCH,
        "bfloat16": similarity_in_bfloat16(ours["last_hidden_weighted"].astype(np.float32)),
        "float16": half_precision(samples, ours),
    }
    attach_lora(vlm, r=16, alpha=32, modules="all-but-vision")
    middle = extracted(vlm, samples, ("gradient",), dim=1024)["gradient"]
    result["layers"] = layers(vlm, samples, middle)
    result["selection"] = selections(middle, official, ours)
    return result


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def table(result: dict[str, Any]) -> str:
    """The page's table."""
    scores, blind, unmasked = result["scores"], result["blind"], result["unmasked"]
    layer, chosen = result["layers"], result["selection"]

    def ranks(c: dict[str, float]) -> str:
        return f"Spearman {c['spearman']:.2f}, top tenth {percent(c['top_tenth_in_common'])} in common"

    def pooling(name: str) -> str:
        median, least = unmasked[name]["median"], unmasked[name]["least"]
        return f"batches of {result['batch']}: cosine to the right one {median:.3f} (median), {least:.3f} (least)"

    rows = [
        (
            "adapt-inf: perplexity",
            "mean over tokens of exp(NLL)",
            "exp of the mean NLL",
            f"mean log {scores['log_perplexity']['official_mean']:.2f} against "
            f"{scores['log_perplexity']['liit_mean']:.2f}; {ranks(scores['log_perplexity'])}",
        ),
        (
            "adapt-inf: entropy",
            "mean over every position",
            "mean over answer tokens",
            f"{scores['entropy']['official_mean']:.2f} against {scores['entropy']['liit_mean']:.2f} nats; "
            + ranks(scores["entropy"]),
        ),
        (
            "adapt-inf: EL2N",
            "against a one-hot vector of the vocabulary for each answer token",
            "the same by its closed form",
            f"no difference beyond {scores['el2n']['largest_difference']:.0e}; {result['vocabulary']} numbers less for "
            "each answer token",
        ),
        (
            "adapt-inf: image grounding, blind image",
            "the pixels are set to zero, the image tokens stay (`blind: zeros`)",
            "the image is removed, as in the paper (`blind: drop`, the default)",
            ranks(blind),
        ),
        (
            "adapt-inf: image grounding, as a whole",
            "exp(mean NLL) without the image over mean exp(NLL) with it",
            "exp(mean NLL) both times",
            f"{ranks(scores['image_grounding'])}; on the other side of 1 for {percent(blind['other_side_of_one'])}",
        ),
        (
            "adapt-inf: precision of scoring",
            "float16, one sample at a time",
            "the model's own type, in batches; values do not depend on the batch",
            "float16: Spearman " + ", ".join(f"{name} {value:.4f}" for name, value in result["float16"].items()),
        ),
        (
            "adapt-inf: layer of the gradient",
            "the last (an option)",
            "the middle one, as in the paper; `layers: -1` is the last",
            f"{layer['clusters']} clusters of either agree at ARI {layer['agreement']:.2f}; NMI with the skills: last "
            f"{layer['last_with_skills']:.2f}, middle {layer['middle_with_skills']:.2f}",
        ),
        (
            "adapt-inf: mean hidden state",
            "mean over all positions, right for batches of one only",
            "mean over the sample's own tokens",
            pooling("mean"),
        ),
        (
            "RDS+: weighted mean",
            "the attention mask is ignored, right for batches of one only",
            "positions of the sample's own tokens",
            pooling("weighted"),
        ),
        (
            "RDS+: similarity",
            "bfloat16",
            "features as stored, products in float64",
            f"{result['bfloat16']['taken']} rows for {result['bfloat16']['queries']} queries: "
            f"{percent(result['bfloat16']['in_common'])} in common",
        ),
        (
            "adapt-inf: all scores together",
            'the official ones, and `compat="official"`',
            "the defaults",
            f"another expert in {chosen['other_expert']} of {chosen['clusters']} clusters; of a fifth of the rows "
            f"{percent(chosen['in_common'])} in common",
        ),
    ]
    lines = ["| where | official code | liit | measured |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--write", action="store_true", help="keep the JSON and put the table into the page")
    options = parser.parse_args()
    result = measure(options.rows)
    print(table(result))
    if options.write:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{table(result)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()

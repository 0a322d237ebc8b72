"""Write the continuum: pictures, rows of every step and skill, a manifest, and the YAML file that `liit run` takes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from liit.demo.continuum import easy_vqa, grounding, outline, pictures, reading, unseen, world
from liit.demo.continuum.directory import fresh_directory
from liit.demo.continuum.packages import package_versions
from liit.demo.continuum.plan import MESSAGES_STEPS, SKILLS, STEPS, UNSEEN, Skill
from liit.demo.continuum.rows import Row, Split, stream, write_llava, write_messages
from liit.demo.continuum.statistics import RULE, blind_score, near_duplicates
from liit.demo.continuum.store import ImageStore
from liit.errors import InputError

BUILDERS: dict[str, Callable[[ImageStore, int, Split], list[Row]]] = {
    "easy-vqa": easy_vqa.rows,
    "pictures": pictures.rows,
    "reading": reading.rows,
    "outline": outline.rows,
    "grounding": grounding.rows,
    "world": world.rows,
}


def build_continuum(out: Path, seed: int = 0) -> Path:
    """Build the continuum from the packages of the extra `liit[demo]`.

    Same seed and same package versions, same bytes.

    Args:
        out: Directory to make; it appears when it is complete.
        seed: Seed of everything random.

    Returns:
        The path of `continuum.yaml`.

    Raises:
        InputError: If `out` exists already and is not empty, or if a package is missing.
    """
    out, versions = Path(out), package_versions()
    with fresh_directory(out) as part:
        store = ImageStore(part / "images")
        train = {step: _shuffled(BUILDERS[step](store, seed, "train"), seed, step) for step in STEPS}
        tests, dev = _held_out(store, seed, "eval"), _held_out(store, seed, "dev")
        for step, rows in train.items():
            write = write_messages if step in MESSAGES_STEPS else write_llava
            write(part / _train_file(step), ((f"{step}-{i:05d}", row) for i, row in enumerate(rows)))
        for skill in (*SKILLS, *UNSEEN):
            for split, rows in (("eval", tests), ("dev", dev)):
                own = [row for row in rows if row.skill == skill.name]
                named = ((f"{split}-{skill.name}-{i:03d}", row) for i, row in enumerate(own))
                write_llava(part / _held_out_file(skill, split), named)
        _drop_unused(part / "images", store, [*tests, *dev, *(row for rows in train.values() for row in rows)])
        _move_development_pictures(part, store)
        manifest = _manifest(part, store, seed, train, tests, dev) | {"packages": versions}
        (part / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        (part / "continuum.yaml").write_text(_continuum_yaml(seed), encoding="utf-8")
    return out / "continuum.yaml"


def cached_continuum(cache_dir: Path | None = None, seed: int = 0) -> Path:
    """Return the path of `continuum.yaml` in the cache, after building the continuum if it is not there.

    Args:
        cache_dir: Where caches lie; `$XDG_CACHE_HOME/liit` or `~/.cache/liit` if None.
        seed: Seed of everything random.

    Raises:
        InputError: If a package of the extra is missing.
    """
    if cache_dir is None:
        cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liit"
    out = Path(cache_dir) / f"continuum-{cache_key(seed)}"
    if (out / "continuum.yaml").exists():
        return out / "continuum.yaml"
    try:
        return build_continuum(out, seed)
    except (InputError, OSError):
        # Another process finished the same directory first; what it wrote is what this one would have written.
        if (out / "continuum.yaml").exists():
            return out / "continuum.yaml"
        raise


def cache_key(seed: int) -> str:
    """Return a hash of all that the bytes depend on: the builders' source, the seed, and the package versions."""
    digest = hashlib.sha256(json.dumps([seed, package_versions()], sort_keys=True).encode())
    folder = files("liit.demo.continuum")
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith((".py", ".yaml")):
            digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()[:16]


def _shuffled(rows: list[Row], seed: int, step: str) -> list[Row]:
    return [rows[int(i)] for i in stream(seed, "train", f"order-{step}").permutation(len(rows))]


def _train_file(step: str) -> str:
    return f"train/{step}.{'jsonl' if step in MESSAGES_STEPS else 'json'}"


def _held_out(store: ImageStore, seed: int, split: Split) -> list[Row]:
    return [row for step in STEPS for row in BUILDERS[step](store, seed, split)] + unseen.rows(store, seed, split)


def _held_out_file(skill: Skill, split: str) -> str:
    return f"{split}/{skill.name}.json"


def _drop_unused(folder: Path, store: ImageStore, rows: list[Row]) -> None:
    used = {name for row in rows for name in row.images}
    for name in sorted(set(store.sha256) - used):
        (folder / name).unlink()
        del store.sha256[name], store.split[name]


def _move_development_pictures(part: Path, store: ImageStore) -> None:
    """Put them beside the development rows: only methods that need queries compute vision features of them."""
    folder = part / "dev" / "images"
    folder.mkdir()
    for name in store.sha256:
        if store.split[name] == "dev":
            (part / "images" / name).rename(folder / name)


def _manifest(
    part: Path, store: ImageStore, seed: int, train: dict[str, list[Row]], tests: list[Row], dev: list[Row]
) -> dict[str, Any]:
    pool = [row for rows in train.values() for row in rows]
    duplicates = near_duplicates(pool)
    skills = {}
    for skill in (*SKILLS, *UNSEEN):
        taught = [row for row in pool if row.skill == skill.name]
        asked = [row for row in tests if row.skill == skill.name]
        skills[skill.name] = {
            "step": skill.step,
            "metric": skill.metric,
            "train": len(taught),
            "share": round(len(taught) / len(pool), 4),
            "eval": len(asked),
            "answers": len({row.answer for row in asked}),
            "blind": blind_score(taught, asked, skill.metric) if taught else None,
        }
    written = sorted(p for p in part.rglob("*.json*") if p.is_file())
    images = hashlib.sha256("".join(store.sha256[name] for name in sorted(store.sha256)).encode())
    return {
        "seed": seed,
        "rows": {"train": len(pool), "eval": len(tests), "dev": len(dev)},
        "images": dict(sorted(Counter(store.split.values()).items())),
        "near_duplicates": {**duplicates, "share": round(sum(duplicates.values()) / len(pool), 4), "rule": RULE},
        "steps": {step: len(rows) for step, rows in train.items()},
        "skills": skills,
        "sha256": {str(p.relative_to(part)): hashlib.sha256(p.read_bytes()).hexdigest() for p in written}
        | {"images": images.hexdigest()},
    }


def _continuum_yaml(seed: int) -> str:
    template = files("liit.demo.continuum").joinpath("template.yaml").read_text(encoding="utf-8")
    steps = [
        {
            "name": step,
            "train": [
                {
                    "path": _train_file(step),
                    "format": "messages" if step in MESSAGES_STEPS else "llava-json",
                    "images": "images",
                    "source": step,
                }
            ],
            "evaluation": [_evaluation(skill) for skill in SKILLS if skill.step == step],
            "dev": [_development(skill) for skill in SKILLS if skill.step == step],
        }
        for step in STEPS
    ]
    lists = {"steps": steps, "unseen": [_evaluation(skill) for skill in UNSEEN]}
    return template.replace("\nseed: 0\n", f"\nseed: {seed}\n") + yaml.safe_dump(lists, sort_keys=False, width=120)


def _development(skill: Skill) -> dict[str, str]:
    return {"skill": skill.name, "path": _held_out_file(skill, "dev"), "images": "dev/images"}


def _evaluation(skill: Skill) -> dict[str, str]:
    return {"skill": skill.name, "path": _held_out_file(skill, "eval"), "metric": skill.metric, "images": "images"}

"""Each stage alone, from files to files. Model, training and evaluation settings come from a continuum file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from liit.cli.app import app
from liit.cli.runs import Settings
from liit.cli.show import AsJson, console, facts
from liit.errors import InputError
from liit.model.quiet import quiet_libraries

Config = Annotated[Path, typer.Option("--config", help="Continuum file that gives model and settings.")]
PoolPath = Annotated[Path, typer.Option("--pool", help="Directory of the pool.")]
Adapter = Annotated[Path | None, typer.Option(help="Adapter to start from; none: the base model.")]


@app.command()
def ingest(
    data: Annotated[Path, typer.Argument(help="The dataset file.")],
    pool: PoolPath,
    format: Annotated[str, typer.Option(help="How the file is written: llava-json or messages.")] = "llava-json",
    source: Annotated[str | None, typer.Option(help="Name of the dataset; the file's name unless given.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that image paths start from; the file's own.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a dataset file into a pool, setting bad rows aside.

    Rows set aside are counted by reason; the pool keeps them in its quarantine.
    """
    from dataclasses import asdict

    from liit.data.ingest import ingest as ingest_file
    from liit.data.pool import Pool
    from liit.lifelong.rundir import nothing_left_of

    if not data.is_file():
        raise InputError(f"data: there is no file {str(data)!r}; expected a dataset file")
    with nothing_left_of(pool):
        opened = Pool.open_or_create(pool)
        report = ingest_file(opened, data, format, source or data.stem, image_root=images, strict=strict)
    facts(asdict(report), as_json)


@app.command()
def extract(
    config: Config,
    pool: PoolPath,
    out: Annotated[Path, typer.Option(help="Directory of the feature store.")],
    features: Annotated[
        str, typer.Option(help="Feature names, separated by commas.")
    ] = "gradient,embedding,log_perplexity,el2n,entropy,image_grounding,grad_norm",
    adapter: Adapter = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Compute features of a pool's samples with one checkpoint."""
    bench, reporter = _bench(config, settings, as_json)
    from liit.data.pool import Pool
    from liit.lifelong import stages

    samples = [sample for batch in Pool.open(pool).scan() for sample in batch]
    refused = stages.refused_rows(bench, samples)
    fitting = [sample for sample in samples if sample.id not in refused]
    names = [name.strip() for name in features.split(",") if name.strip()]
    with reporter.stage(None, pool.name, "extract", len(fitting)) as progress:
        result = stages.extract_step(bench, adapter, fitting, names, out, progress)
    facts({**result, "refused": len(refused), "features_at": str(out)}, as_json)


@app.command()
def select(
    method: Annotated[str, typer.Argument(help="Name of a selector; see liit methods.")],
    pool: PoolPath,
    budget: Annotated[int, typer.Option(help="How many samples to choose.")],
    out: Annotated[Path, typer.Option(help="Directory for selection.parquet, selection.json and labels.parquet.")],
    features: Annotated[Path | None, typer.Option(help="Feature store, for selectors that need one.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    options: Annotated[
        list[str] | None, typer.Option("--option", help="Selector option, e.g. k=20 or expert=mixture. Repeatable.")
    ] = None,
    to: Annotated[str, typer.Option(help="Format of the written-back selection.")] = "llava-json",
    write: Annotated[Path | None, typer.Option("--write", help="Also write the chosen rows there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Choose samples and say why."""
    from collections import ChainMap

    import numpy as np

    from liit.config.yaml_text import read_yaml
    from liit.data.pool import Pool
    from liit.features.store import FeatureStore
    from liit.lifelong.stages import write_selection
    from liit.selection import select as choose

    if budget <= 0:
        raise InputError(f"--budget: got {budget}, expected a positive number of samples")
    if to != "llava-json":
        raise InputError(f"--to: got {to!r}, expected llava-json")
    if write is not None and not write.parent.is_dir():
        raise InputError(f"--write: there is no folder {str(write.parent)!r}")
    opened = Pool.open(pool)
    given: dict[str, Any] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not equals:
            raise InputError(f"--option {option}: expected name=value, for example k=20")
        given[name.replace("-", "_")] = read_yaml(value, f"--option {option}")[0]
    table = opened.columns(["id", "source"]).to_pydict()
    sources = dict(zip(table["id"], table["source"], strict=True))
    candidates = list(sources)
    stored_columns: Any = {}
    if features is not None:
        stored = FeatureStore(features)
        known = set(stored.stored_ids())
        candidates = [sample for sample in candidates if sample in known]
        stored_columns = stored.view(candidates)
    own = {"source": np.asarray([sources[i] for i in candidates], str), "id": np.asarray(candidates, str)}
    columns = ChainMap(own, stored_columns)  # a stored column is read when it is asked for, and only then
    selection = choose(method, columns, budget, seed, **given)
    result = write_selection(selection, method, budget, opened, candidates, out)
    left = len(opened) - len(candidates)
    if write is not None:
        opened.to_llava_json(write, [str(sample) for sample in selection.ids])
    facts({**result, "without_features": left, "selection": str(out / "selection.parquet")}, as_json)


@app.command()
def prune(
    pool: PoolPath,
    features: Annotated[Path, typer.Option(help="Feature store with the embedding of every sample.")],
    labels: Annotated[Path, typer.Option(help="labels.parquet that a clustering selector wrote.")],
    keep: Annotated[int, typer.Option(help="How many samples stay.")],
    out: Annotated[Path, typer.Option(help="Directory for pruned.parquet and prune.json.")],
    step: Annotated[int, typer.Option(help="Who prunes; kept in the ledger.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Remove the most redundant samples of a pool for good.

    Each cluster loses what is most like an older sample of it; the pool gets a new version and a ledger of what left.
    """
    from liit.data.pool import Pool
    from liit.lifelong.stages import prune_step

    if keep <= 0:
        raise InputError(f"--keep: got {keep}, expected a positive number of samples")
    facts(prune_step(Pool.open(pool), features, labels, keep, step, out), as_json)


@app.command()
def train(
    config: Config,
    pool: PoolPath,
    selection: Annotated[Path, typer.Option(help="selection.parquet: what to train on.")],
    out: Annotated[Path, typer.Option(help="Directory of the new adapter.")],
    adapter: Adapter = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on a selection.

    Training goes on from another adapter, or from the base model with a fresh one.
    """
    bench, reporter = _bench(config, settings, as_json)
    from liit.data.pool import Pool
    from liit.lifelong import stages
    from liit.lifelong.workbench import derived_seed
    from liit.model.lora import WEIGHTS

    if out.exists() and not (out.is_dir() and ((out / WEIGHTS).is_file() or not any(out.iterdir()))):
        raise InputError(f"--out: {str(out)!r} exists and is not an adapter; name a new directory")
    samples = Pool.open(pool).take(stages.read_selection(selection))
    with reporter.stage(None, selection.parent.name, "train", None) as progress:
        result = stages.train_step(
            bench, adapter, samples, out, seed=derived_seed(bench.continuum.seed, 0, "train"), progress=progress
        )
    facts({**result, "adapter": str(out)}, as_json)


@app.command()
def evaluate(
    config: Config,
    out: Annotated[Path, typer.Option(help="Directory for evaluation.json and predictions.jsonl.")],
    adapter: Adapter = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Measure one checkpoint on all skills of a continuum file."""
    import json
    import tempfile

    bench, reporter = _bench(config, settings, as_json)
    from liit.lifelong import stages

    sets = [item for _, item in bench.continuum.evaluation_sets()]
    with tempfile.TemporaryDirectory(prefix="liit-evaluation-") as scratch:
        tasks = stages.read_tasks(Path(scratch) / "pool", sets)
        total = sum(len(task.samples) for task in tasks)
        with reporter.stage(None, config.stem, "evaluate", total) as progress:
            result = stages.evaluate_step(bench, adapter, tasks, 0, out, progress)
    scores = {k: v["score"] for k, v in json.loads((out / "evaluation.json").read_text())["skills"].items()}
    facts({**result, "scores": scores}, as_json)


def _bench(config: Path, settings: list[str] | None, as_json: bool) -> tuple[Any, Any]:
    """The model and the progress display; the file is checked before the model's libraries are loaded."""
    from liit.config import load_config
    from liit.lifelong.progress import ConsoleReporter

    continuum = load_config(config, settings or ())
    quiet_libraries()
    from liit.lifelong.workbench import Workbench

    return Workbench(continuum), ConsoleReporter(console(as_json))

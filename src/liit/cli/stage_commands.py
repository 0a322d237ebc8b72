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
FEATURES = "gradient,embedding,log_perplexity,el2n,entropy,image_grounding,grad_norm"
Adapter = Annotated[Path | None, typer.Option(help="Adapter to start from; none: the base model.")]
OptimizerState = Annotated[
    Path | None, typer.Option(help="Adam's moments from `liit train`: gradients are those it would step along (LESS).")
]


@app.command()
def ingest(
    data: Annotated[Path, typer.Argument(help="The dataset: a file, a folder, or a pattern such as 'shard-*.tar'.")],
    pool: PoolPath,
    format: Annotated[str, typer.Option(help="How it is written; see docs/formats.md.")] = "llava-json",
    source: Annotated[str | None, typer.Option(help="Name of the dataset; the file's name unless given.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that image paths start from; the file's own.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    embed_images: Annotated[
        bool, typer.Option("--embed-images", help="Copy the images into the pool, so that it needs no other file.")
    ] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let image paths lead out of the folder; for files you trust.")
    ] = False,
    skill_key: Annotated[str, typer.Option(help="Key of a row's skill label.")] = "skill",
    rename: Annotated[
        bool, typer.Option("--rename", help="Give rows whose id belongs to other content a new id.")
    ] = False,
    against: Annotated[
        list[Path] | None, typer.Option(help="Evaluation data, to say what of it the pool has too. Repeatable.")
    ] = None,
    against_format: Annotated[str | None, typer.Option(help="How that is written; as --format unless given.")] = None,
    against_images: Annotated[Path | None, typer.Option(help="Folder of its images; each file's own.")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="For the pool's log.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take a dataset into a pool, setting bad rows aside.

    Rows set aside are counted by reason; liit pool show POOL --quarantine lists them.
    """
    from dataclasses import asdict

    from liit.cli.ingest_bar import ingest_bar
    from liit.data.ingest import Dataset, read_samples
    from liit.data.ingest import ingest as ingest_file
    from liit.data.leaks import find_leaks
    from liit.data.new_pool import opened_or_new

    name = source or (data.name if data.is_dir() else data.stem)
    files = Dataset(data, format, name, images).files
    evaluation = {
        str(path): read_samples(
            Dataset(path, against_format or format, path.stem, against_images, allow_outside=allow_outside)
        )
        for path in against or ()
    }
    with opened_or_new(pool) as opened, ingest_bar(console(as_json), name, files) as (rows, read):
        report = ingest_file(
            opened, data, format, name, images, skill_key, strict, allow_outside, embed_images=embed_images,
            id_conflict="rename" if rename else "quarantine", message=message, progress=rows, progress_bytes=read,
        )  # fmt: skip
    result = asdict(report)
    if evaluation:
        leaks = find_leaks(opened, {path: samples for path, (samples, _) in evaluation.items()})
        unread = sum(bad for _, bad in evaluation.values())
        result |= {"leaks": leaks if as_json else _leaks_in_words(leaks), "evaluation_rows_unread": unread}
    facts(result, as_json)


def _leaks_in_words(leaks: dict[str, Any]) -> str:
    if not leaks["by_skill"]:
        return f"none in {leaks['evaluation_rows']} rows and {leaks['evaluation_images']} images"
    each = ", ".join(
        f"{path}: {found['leaked_rows']} of {found['rows']} rows, {found['leaked_images']} of {found['images']} images"
        for path, found in leaks["by_skill"].items()
    )
    first = leaks["examples"][0]
    return f"{each}; first: {first['what']} of {first['evaluation']!r} in training row {first['training']!r}"


@app.command()
def extract(
    config: Config,
    pool: PoolPath,
    out: Annotated[Path, typer.Option(help="Directory of the feature store.")],
    features: Annotated[str, typer.Option(help="Feature names, separated by commas.")] = FEATURES,
    adapter: Adapter = None,
    optimizer_state: OptimizerState = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Compute everything anew if the store is another checkpoint's.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Compute features of a pool's samples with one checkpoint.

    What is stored is not computed again; given again after a stop, the command goes on where it was.
    """
    bench, reporter = _bench(config, settings, as_json)
    from liit.data.part import PoolPart
    from liit.data.pool import Pool
    from liit.doctor import compare, watched
    from liit.doctor.examine import examine_step
    from liit.doctor.text import compared_lines
    from liit.features import ExtractionReport
    from liit.lifelong import stages

    opened = Pool.open(pool)
    refused = stages.refused_rows(bench, (sample for batch in opened.scan() for sample in batch))
    fitting = PoolPart(opened, [sample for sample in opened.ids() if sample not in refused])
    names = [name.strip() for name in features.split(",") if name.strip()]
    prediction = examine_step(bench, adapter, fitting, names, out)
    report = ExtractionReport()
    with reporter.stage(None, pool.name, "extract", len(fitting)) as progress, watched(bench.vlm.device) as watch:

        def shown(rows: int) -> None:
            reporter.beside_rate(f"{report.tokens_per_second:,.0f} tokens/s")
            progress(rows)

        result = stages.extract_step(
            bench, adapter, fitting, names, out, shown, report, optimizer_state=optimizer_state, refresh=refresh
        )
    for line in report.notes:
        reporter.say(line)
    for line in compared_lines(compare(prediction, report, watch)):
        reporter.say(line)
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
    rows: Annotated[
        Path | None, typer.Argument(help="Also write the chosen rows there: .json, .jsonl, .parquet or .tar.")
    ] = None,
    to: Annotated[str, typer.Option(help="Format of these rows; see docs/formats.md.")] = "llava-json",
    write: Annotated[Path | None, typer.Option("--write", help="The same as ROWS.")] = None,
    as_json: AsJson = False,
) -> None:
    """Choose samples and say why."""
    from collections import ChainMap
    from dataclasses import asdict

    import numpy as np

    from liit.config.yaml_text import read_yaml
    from liit.data.export import check_target
    from liit.data.formats import get_format
    from liit.data.pool import Pool
    from liit.features.store import FeatureStore
    from liit.lifelong.stages import write_selection
    from liit.selection import select as choose

    if budget <= 0:
        raise InputError(f"--budget: got {budget}, expected a positive number of samples")
    if rows is not None and write is not None:
        raise InputError(f"--write: the rows go to {str(rows)!r} already; name one file")
    write = rows or write
    get_format(to)
    if write is not None:
        check_target(write, to)
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
        written = asdict(opened.write(write, [str(sample) for sample in selection.ids], to))
        result |= {"written": {name: written[name] for name in ("rows", "verbatim", "converted", "images")}}
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
    optimizer_state: Annotated[
        Path | None, typer.Option(help="Also write Adam's moments to this file, for `liit extract`.")
    ] = None,
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
    from liit.training import optimizer_steps

    if out.exists() and not (out.is_dir() and ((out / WEIGHTS).is_file() or not any(out.iterdir()))):
        raise InputError(f"--out: {str(out)!r} exists and is not an adapter; name a new directory")
    if adapter is not None and adapter.resolve() == out.resolve():  # a second attempt would start from the first's end
        raise InputError(f"--out: {str(out)!r} is also --adapter; name another directory")
    samples = Pool.open(pool).take(stages.read_selection(selection))
    total = optimizer_steps(len(samples), bench.continuum.training)
    with reporter.stage(None, selection.parent.name, "train", total) as progress:
        result = stages.train_step(
            bench, adapter, samples, out, seed=derived_seed(bench.continuum.seed, 0, "train"), progress=progress,
            optimizer_state=optimizer_state,
        )  # fmt: skip
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
            stages.forget_saved_skills(out)
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

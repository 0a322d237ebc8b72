"""`liit pool`: what a pool holds, how it came to be, and going back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from liit.cli.app import app
from liit.cli.show import AsJson, facts
from liit.errors import InputError

pool = typer.Typer(help="Look into a pool, go back to an earlier version, free disk.", no_args_is_help=True)
app.add_typer(pool, name="pool")

PoolArgument = Annotated[Path, typer.Argument(metavar="POOL", help="Directory of the pool.")]
Message = Annotated[str, typer.Option("--message", "-m", help="For the log.")]
_SHOWN = 20


@pool.command()
def log(path: PoolArgument, as_json: AsJson = False) -> None:
    """List the versions of a pool, newest first."""
    from liit.data.pool import Pool

    opened = Pool.open(path)
    commits = opened.log()[::-1]
    if as_json:
        print(json.dumps(commits))
        return
    oldest = commits[0]["oldest"]
    for commit in commits:
        left = "" if commit["version"] >= oldest else "  (freed)"
        said = f"  {commit['message']}" if commit["message"] else ""
        print(f"{commit['version']:>5}  {commit['time']}  {commit['kind']:<7}  {commit['rows']:>9} rows{said}{left}")


@pool.command()
def diff(
    path: PoolArgument,
    old: Annotated[int, typer.Argument(help="A version; see liit pool log.")],
    new: Annotated[int | None, typer.Argument(help="Another; the newest unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which samples came and went between two versions, and why they went."""
    from liit.data.pool import Pool

    opened = Pool.open(path)
    found = opened.difference(old, opened.version if new is None else new)
    if as_json:
        print(
            json.dumps(
                {
                    "old": found.old, "new": found.new, "rows": list(found.rows), "quarantined": found.quarantined,
                    "added": found.added.to_pylist(), "removed": found.removed.to_pylist(),
                }
            )
        )  # fmt: skip
        return
    print(f"version {found.old}: {found.rows[0]} samples; version {found.new}: {found.rows[1]} samples")
    for what, sign, table in (("added", "+", found.added), ("removed", "-", found.removed)):
        parts = ", ".join(f"{source} {count}" for source, count in found.by_source(what).items())
        print(f"{what}: {table.num_rows}{f' ({parts})' if parts else ''}")
        for row in table.slice(0, _SHOWN).to_pylist():
            print(f"  {sign} {row['id']}{_why(row)}")
        if table.num_rows > _SHOWN:
            print(f"  ... and {table.num_rows - _SHOWN} more; --json lists all")
    if found.quarantined:
        print(f"rows set aside: {found.quarantined:+d}")


def _why(row: dict[str, Any]) -> str:
    if row.get("step") is None:
        return ""
    near = f", near {row['neighbour']} ({row['similarity']:.3f})" if row["neighbour"] is not None else ""
    return f"  step {row['step']}, cluster {row['cluster']}{near}"


@pool.command()
def restore(
    path: PoolArgument,
    version: Annotated[int, typer.Argument(help="The version to bring back.")],
    message: Message = "",
    as_json: AsJson = False,
) -> None:
    """Bring an earlier version back, as a new version."""
    from liit.data.pool import Pool

    opened = Pool.open(path)
    opened.restore(version, message or f"restore version {version}")
    facts({"version": opened.version, "restored": version, "samples": len(opened)}, as_json)


@pool.command()
def gc(
    path: PoolArgument,
    keep: Annotated[int, typer.Option(help="How many of the newest versions stay readable.")] = 0,
    ignore_runs: Annotated[
        bool, typer.Option("--ignore-runs", help="Free what an unfinished run needs, too. It cannot go on then.")
    ] = False,
    message: Message = "",
    as_json: AsJson = False,
) -> None:
    """Free the disk space of what was removed. It cannot be restored after that.

    The samples, the log, the ledger, the quarantine, and the versions that a run needs to go on stay.
    """
    from liit.data.pool import Pool

    found = Pool.open(path).gc(keep, message, ignore_holds=ignore_runs)
    facts(found if as_json else {name: value for name, value in found.items() if name != "held"}, as_json)
    if not as_json:
        for holder, version in found["held"].items():
            print(f"kept for {holder}: version {version} and later; --ignore-runs frees them too")


@pool.command()
def show(
    path: PoolArgument,
    id: Annotated[str | None, typer.Argument(help="A sample's id: what it is, or when and why it left.")] = None,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="List the rows that were set aside.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a pool holds, or what is known about one sample."""
    from liit.data.history import whereabouts
    from liit.data.pool import Pool

    opened = Pool.open(path)
    if id is not None and quarantine:
        raise InputError("--quarantine: lists rows of the whole pool; leave out the id")
    if id is not None:
        facts(whereabouts(opened, id), as_json)
        return
    aside = opened.quarantine()
    if quarantine:
        for row in aside.drop_columns(["raw"]).to_pylist():
            place = f"{row['file']}:{row['line']}"
            print(json.dumps(row) if as_json else f"{place}  {row['reason']}  {row['id'] or '-'}  {row['detail']}")
        return
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("source", "skill", "format")}
    for batch in opened.batches(list(counts)):
        for name, counter in counts.items():
            counter.update(batch[name].to_pylist())
    facts(
        {
            "pool": str(path),
            "version": opened.version,
            "samples": len(opened),
            "sources": dict(sorted(counts["source"].items())),
            "skills": {name or "(unlabelled)": count for name, count in sorted(counts["skill"].items())},
            "formats": dict(sorted(counts["format"].items())),
            "removed": opened.ledger().num_rows,
            "set_aside": aside.num_rows,
            "reasons": dict(sorted(Counter(aside["reason"].to_pylist()).items())),
        },
        as_json,
    )


@pool.command()
def write(
    path: PoolArgument,
    out: Annotated[Path, typer.Argument(help="The file to write: .json, .jsonl, .parquet or .tar.")],
    to: Annotated[str, typer.Option(help="Its format; see docs/formats.md.")] = "llava-json",
    selection: Annotated[Path | None, typer.Option(help="selection.parquet; all samples unless given.")] = None,
    version: Annotated[int | None, typer.Option(help="Of the pool; the newest unless given.")] = None,
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Also write images that the pool holds, beside the rows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write samples to a file: your own rows as they were, others converted."""
    from dataclasses import asdict

    from liit.data.pool import Pool

    opened = Pool.open(path)
    if version is not None:
        opened = opened.at(version)
    if selection is not None:
        from liit.lifelong.stages import read_selection

        ids = read_selection(selection)
    else:
        ids = opened.ids()
    facts({**asdict(opened.write(out, ids, to, copy_images)), "file": str(out)}, as_json)

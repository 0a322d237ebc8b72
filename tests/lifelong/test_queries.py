"""Queries of targeted methods: development rows, a draw from the pool, a file; never an evaluation question."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tiny import STEPS, _row, differing, here, write_continuum

from liit.config import Continuum, load_config
from liit.data.pool import Pool
from liit.errors import InputError
from liit.features.store import FeatureStore
from liit.lifelong.loop import run
from liit.lifelong.queries import PER_SOURCE, QuerySource
from liit.lifelong.stages import read_tasks

PER_SKILL = 3


def with_dev(root: Path, model: Path, steps: int = 2, **changes: Any) -> Path:
    """The continuum with development rows of both skills of every step."""
    path = write_continuum(root, model, steps=steps, **changes)
    value = yaml.safe_load(path.read_text())
    for number, step in enumerate(value["steps"]):
        rows = [_row(root, step["name"], number + 7, index, "dev") for index in range(2 * PER_SKILL)]
        step["dev"] = []
        for skill in ("colour", "count"):
            own = [row for row in rows if row["skill"] == skill]
            (root / f"dev-{step['name']}-{skill}.json").write_text(json.dumps(own))
            step["dev"].append(
                {"skill": f"{step['name']}-{skill}", "path": f"dev-{step['name']}-{skill}.json", "images": "."}
            )
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def dev(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_dev(tmp_path_factory.mktemp("dev") / "c", model)


def source(continuum: Continuum, where: Path) -> QuerySource:
    tasks = read_tasks(where / "tasks", [item for _, item in continuum.evaluation_sets()])
    return QuerySource(continuum, where / "queries", tasks)


@pytest.mark.parametrize("method", ["gist", "rds-plus"])
def test_a_targeted_run_scores_the_development_rows_seen_so_far_with_its_own_checkpoint(
    dev: Path, tmp_path: Path, method: str
) -> None:
    out = run(dev, tmp_path / "out", overrides=[f"method={method}"]).path
    for number, name in enumerate(STEPS[:2], start=1):
        step = out / "steps" / f"{number:02d}-{name}"
        queries = FeatureStore(step / "queries")
        assert len(queries.stored_ids()) == number * 2 * PER_SKILL
        assert queries.key.model == FeatureStore(step / "features").key.model
        assert queries.names() == ["id", {"gist": "gradient", "rds-plus": "last_hidden_weighted"}[method]]
        facts = json.loads((step / "selection.json").read_text())
        assert (facts["trained"], facts["method"]) == (16, method)
        assert pq.read_table(step / "selection.parquet")["score"].null_count == 0
    if method == "gist":
        again = run(dev, tmp_path / "again", overrides=[f"method={method}"]).path
        assert differing(out, again) == []


def test_skills_of_later_steps_ask_nothing_yet_and_per_group_draws_the_same_few(dev: Path, tmp_path: Path) -> None:
    first = source(load_config(dev), tmp_path / "a")
    pool = Pool.create(tmp_path / "pool")
    assert Counter(first.at(1, pool, []).groups) == {"alpha-colour": 3, "alpha-count": 3}
    everything = first.at(2, pool, [])
    assert set(everything.groups) == {f"{step}-{skill}" for step in ("alpha", "beta") for skill in ("colour", "count")}
    few = source(load_config(dev, ["queries.per_group=2"]), tmp_path / "b")
    one, two = few.at(1, pool, []), few.at(2, pool, [])
    assert Counter(two.groups) == dict.fromkeys(sorted(set(everything.groups)), 2)
    assert {sample.id for sample in one.samples} < {sample.id for sample in two.samples}


def test_an_evaluation_question_among_the_queries_is_refused_under_any_name_and_with_any_answer(
    dev: Path, tmp_path: Path
) -> None:
    root = dev.parent
    row = json.loads((root / "alpha-colour.json").read_text())[0]
    question, answer = row["conversations"]
    said = [question, dict(answer, value=f"It is {answer['value']}.")]
    (root / "leak.json").write_text(json.dumps([dict(row, id="innocent", conversations=said)]))
    for overrides in (["steps.0.dev.0.path=leak.json"], ["queries.kind=file", "queries.path=leak.json"]):
        where = tmp_path / str(len(overrides))
        with pytest.raises(InputError, match="row 'innocent' is also an evaluation question of 'alpha-colour'"):
            source(load_config(dev, overrides), where).check()


def test_a_file_is_grouped_by_the_rows_own_skill(dev: Path, tmp_path: Path) -> None:
    root = dev.parent
    rows = [
        row for name in ("alpha-colour", "beta-count") for row in json.loads((root / f"dev-{name}.json").read_text())
    ]
    (root / "target.json").write_text(json.dumps(rows))
    found = source(load_config(dev, ["queries.kind=file", "queries.path=target.json"]), tmp_path)
    assert Counter(found.at(1, Pool.create(tmp_path / "pool"), []).groups) == {"colour": 3, "count": 3}


def test_an_empty_file_of_queries_is_one_line(dev: Path, tmp_path: Path) -> None:
    (dev.parent / "none.json").write_text("[]")
    with pytest.raises(InputError, match=r"none\.json has 0 rows, of which 0 are new"):
        source(load_config(dev, ["queries.kind=file", "queries.path=none.json"]), tmp_path).check()


def test_a_run_says_how_many_samples_were_no_queries_because_they_are_evaluation_questions(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_continuum(tmp_path / "c", model, steps=1, method="rds-plus", queries={"kind": "replay"})
    value = yaml.safe_load(path.read_text())
    value["steps"][0]["train"].append({"path": "alpha-colour.json", "images": ".", "source": "leaky"})
    path.write_text(yaml.safe_dump(value))
    said = here(capsys, "run", path, "--out", tmp_path / "out", "--no-report")
    assert said.code == 0
    assert re.search(
        r"step 1 alpha, extract: .*; 6 samples of the pool are evaluation questions, and no queries", said.out
    )
    stages = json.loads((tmp_path / "out/run.json").read_text())["stages"]
    facts = next(entry for entry in stages if entry["stage"] == "extract")
    assert (facts["queries"], facts["query_groups"], facts["queries_left_out"]) == (PER_SOURCE, 1, 6)


def test_a_draw_from_the_pool_is_even_over_sources_and_leaves_evaluation_questions_out(
    dev: Path, tmp_path: Path
) -> None:
    continuum = load_config(dev, ["queries.kind=replay", "method=gist"])
    from liit.data.ingest import ingest

    pool = Pool.create(tmp_path / "pool")
    for step in continuum.steps:
        ingest(pool, step.train[0].path, "llava-json", step.name)
    ingest(pool, dev.parent / "alpha-colour.json", "llava-json", "leaky", image_root=dev.parent)
    queries = source(continuum, tmp_path)
    queries.check()
    found = queries.at(2, pool, pool.ids())
    assert Counter(found.groups) == {"alpha": PER_SOURCE, "beta": PER_SOURCE}
    assert found.left_out == 6
    assert {sample.id for sample in found.samples} <= set(pool.ids())
    assert found == queries.at(2, pool, pool.ids())
    assert found != queries.at(1, pool, pool.ids())

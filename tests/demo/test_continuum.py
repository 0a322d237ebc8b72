"""What the issue demands of the built-in continuum, measured on the files and not on the plan."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

import liit.demo.continuum
from liit.config import load_config
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.evaluation.metrics import get_metric


def test_six_steps_of_distinct_sources_with_several_skills_each(built):
    sources = [step["train"][0]["source"] for step in built.config["steps"]]
    assert len(sources) == len(set(sources)) == 6
    assert all(len(step["evaluation"]) >= 3 for step in built.config["steps"])


def test_ten_to_twenty_thousand_rows_and_a_pool_of_twelve_budgets(built):
    rows = len(built.pool) + sum(len(rows) for rows in built.tests.values())
    assert 10_000 <= rows <= 20_000
    assert len(built.pool) >= 12 * built.config["budget"]


def test_the_largest_skill_is_above_30_percent_and_some_are_below_one(built):
    counts = Counter(row.skill for row in built.pool)
    assert counts.most_common(1)[0][1] > 0.30 * len(built.pool)
    rare = [n for n in counts.values() if n < 0.01 * len(built.pool)]
    assert len(rare) >= 2
    assert min(rare) >= 40


def test_about_a_third_of_the_rows_are_near_duplicates(built):
    # Counted here anew: same pictures, skill and answer; or the outline of a concept named before.
    seen, named, near = set(), set(), 0
    for row in built.pool:
        key = (row.skill, row.images, row.answer)
        again = bool(row.images) and key in seen
        near += again or (row.skill == "naming-outline" and row.answer in named)
        seen.add(key)
        if row.skill == "naming":
            named.add(row.answer)
    assert 0.28 <= near / len(built.pool) <= 0.38
    assert built.manifest["near_duplicates"]["share"] == round(near / len(built.pool), 4)


def test_no_row_comes_twice(built):
    rows = [(row.images, row.question) for row in built.pool]
    assert len(rows) == len(set(rows))
    ids = [row.id for row in built.pool] + [row.id for rows in built.tests.values() for row in rows]
    assert len(ids) == len(set(ids))


def test_evaluation_is_balanced_over_skills_and_covers_what_is_taught(built):
    assert set(built.tests) == set(built.dev)
    for held_out in (built.tests, built.dev):
        assert {len(rows) for rows in held_out.values()} == {20}
        assert {row.skill for row in built.pool} <= set(held_out)
        assert all(row.skill == skill for skill, rows in held_out.items() for row in rows)


def test_training_test_and_development_pictures_differ_in_every_file_hash(built):
    def hashes(rows, folder="images"):
        names = {name for row in rows for name in row.images}
        return {hashlib.sha256((built.root / folder / name).read_bytes()).hexdigest() for name in names}

    train, test = hashes(built.pool), hashes(row for rows in built.tests.values() for row in rows)
    dev = hashes((row for rows in built.dev.values() for row in rows), "dev/images")
    assert min(len(train), len(test), len(dev)) > 100
    assert not train & test
    assert not dev & (train | test)
    # Nothing lies there unused.
    assert len(train | test) == len(list((built.root / "images").iterdir()))
    assert len(dev) == len(list((built.root / "dev" / "images").iterdir()))


def test_text_only_questions_are_asked_in_words_that_were_not_taught(built):
    taught = {row.question for row in built.pool if not row.images}
    asked = [row for held_out in (built.tests, built.dev) for row in held_out["facts"]]
    assert len(taught) > 100
    assert len({row.question for row in asked}) == 40
    assert not taught & {row.question for row in asked}
    assert {row.answer for row in asked} <= {row.answer for row in built.pool if not row.images}


def test_pictures_are_shared_by_several_rows(built):
    uses = Counter(name for row in built.pool for name in row.images)
    assert len(uses) < 0.5 * len(built.pool)


def test_pictures_are_128_pixel_rgb_png(built):
    for path in sorted((built.root / "images").iterdir())[::97]:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (128, 128))


def test_questions_and_answers_are_short(built):
    for row in built.pool:
        assert len(row.question.split()) <= 12, row
        assert len(row.answer.split()) <= 6, row


def test_blind_answers_are_poor(built):
    skills = {name: entry for name, entry in built.manifest["skills"].items() if entry["train"]}
    for name, entry in skills.items():
        assert entry["blind"] <= (0.75 if entry["answers"] == 2 else 0.5), name
    assert sum(entry["blind"] for entry in skills.values()) / len(skills) < 0.3


def test_every_word_of_a_test_answer_has_been_taught(built):
    taught = defaultdict(set)
    for row in built.pool:
        taught[row.skill].update(row.answer.split())
    for skill, rows in built.tests.items():
        if skill in taught and skill not in ("box", "boxes"):
            assert {word for row in rows for word in row.answer.split()} <= taught[skill], skill


def test_sums_add_up(built):
    rows = [row for row in (*built.pool, *built.tests["sum"]) if row.skill == "sum"]
    assert len(rows) > 100
    for row in rows:
        total, _, result = row.answer.partition(" = ")
        assert sum(map(int, total.split(" + "))) == int(result), row


def test_the_file_is_one_that_liit_reads_and_metrics_accept_every_reference(built):
    continuum = load_config(built.root / "continuum.yaml")
    for _, entry in continuum.evaluation_sets():
        score = get_metric(entry.metric)
        assert all(score(row.answer, row.answer).value == 1.0 for row in built.tests[entry.skill])


@pytest.mark.parametrize("step", ["outline", "world"])
def test_every_row_is_accepted_by_the_readers(built, tmp_path, step):
    data = next(s for s in built.config["steps"] if s["name"] == step)["train"][0]
    report = ingest(
        Pool.create(tmp_path / "pool"),
        built.root / data["path"],
        data["format"],
        step,
        image_root=built.root / "images",
    )
    assert (report.added, report.quarantined, report.duplicates) == (len(built.train[step]), 0, 0)


def test_both_formats_are_used(built):
    assert {step["train"][0]["format"] for step in built.config["steps"]} == {"llava-json", "messages"}


def test_manifest_counts_and_hashes_are_those_of_the_files(built):
    counts = Counter(row.skill for row in built.pool)
    for skill, entry in built.manifest["skills"].items():
        assert (entry["train"], entry["eval"]) == (counts[skill], len(built.tests[skill]))
    for name, digest in built.manifest["sha256"].items():
        if name != "images":
            assert hashlib.sha256((built.root / name).read_bytes()).hexdigest() == digest


def test_questions_about_two_pictures_show_two_different_ones(built):
    two = [row for row in built.pool if len(row.images) == 2]
    assert {row.skill for row in two} == {"pair", "ordinal"}
    assert all(len(set(row.images)) == 2 for row in two)


def test_the_data_card_states_the_counts_of_the_built_files(built):
    card = Path(liit.demo.continuum.__file__).parents[1].joinpath("DATA_CARD.md").read_text(encoding="utf-8")
    for skill, entry in built.manifest["skills"].items():
        if entry["train"]:
            cells = (entry["step"], skill + r"( \(rare\))?", entry["train"], entry["metric"], f"{entry['blind']:.2f}")
            assert re.search("^" + "".join(rf"\| {cell} " for cell in cells) + r"\|", card, re.MULTILINE), skill
    pictures = built.manifest["images"]
    flat = re.sub(r"(?<=\d) (?=\d{3}\b)", "", " ".join(card.split()))
    duplicates = built.manifest["near_duplicates"]
    assert f"{len(built.pool)} training rows over {pictures['train']} pictures" in flat
    assert f"20 evaluation rows per skill over {pictures['eval']} other pictures" in flat
    dev = "(`dev/`, for choosing settings, and queries for the methods that need some)"
    assert f"development rows {dev} over {pictures['dev']} more" in flat
    assert f"({duplicates['reworded'] + duplicates['redrawn']}, {duplicates['share']:.0%})".replace("%", " %") in flat

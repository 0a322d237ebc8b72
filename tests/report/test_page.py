from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from liit.errors import InputError
from liit.report import page, summary_table, write_report
from liit.report.clusters import how_clustered
from liit.report.composition import lift_table
from liit.report.reading import load_runs

VOID = {"meta", "img", "br", "line", "circle", "polyline"}


class Structure(HTMLParser):
    """Tags and attributes of a page, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def text(run_paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(run_paths, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


def test_page_is_well_formed_and_needs_nothing_from_outside(text: str) -> None:
    structure = Structure(text)
    assert structure.wrong == []
    assert structure.open == []
    assert not {"script", "link", "iframe", "object"} & set(structure.tags)
    for tag, name, value in structure.attributes:
        if name in {"src", "href", "data", "srcset"}:
            assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value[:60])
        assert not name.startswith("on")
    assert "url(" not in text
    assert "@import" not in text


def test_every_link_of_the_navigation_has_its_section(text: str) -> None:
    structure = Structure(text)
    ids = {value for _, name, value in structure.attributes if name == "id"}
    anchors = {value[1:] for tag, name, value in structure.attributes if tag == "a" and name == "href"}
    assert anchors <= ids
    assert {"comparison", "accuracy", "trained", "clusters", "pruned", "data", "scored", "time"} <= anchors


def test_page_shows_numbers_clusters_pairs_and_what_was_set_aside(text: str) -> None:
    for expected in (
        "mean over s of a[T][s]",
        "chosen k = 20",
        "ペルーの首都はどこですか。",
        "cosine similarity",
        "image missing",
        "2 evaluation pictures are also in the pool",
        "rare skills",
        "data:image/jpeg;base64,",
    ):
        assert expected in text


def test_one_run_has_a_result_and_several_have_a_comparison(text: str, run_paths: list[Path], tmp_path: Path) -> None:
    alone = write_report(run_paths[:1], tmp_path / "report.html").read_text(encoding="utf-8")
    for html, title, other in ((alone, "Result", "Comparison"), (text, "Comparison", "Result")):
        assert f"<h2>{title}</h2>" in html
        assert f'<a href="#comparison">{title}</a>' in html
        assert f"<h2>{other}</h2>" not in html


def test_costs_have_their_ratio_beside_them(text: str, run_paths: list[Path]) -> None:
    row = summary_table(run_paths)[0]
    assert row["cost_ratio"] == pytest.approx(row["select_seconds"] / row["train_seconds"])
    assert "selection / training" in text
    assert f'<td data-label="selection / training"><span>{row["cost_ratio"]:.2f}' in text
    assert "Choosing the samples took, of the time that training on them took: adapt-inf" in text


def test_every_number_carries_the_title_of_its_column_which_a_narrow_screen_shows_beside_it(
    text: str, run_paths: list[Path]
) -> None:
    table = text.partition('<table class="numbers">')[2].partition("</table>")[0]
    titles = re.findall(r'<th scope="col" title="[^"]*">([^<&]*)', table)
    assert re.findall(r'data-label="([^"]*)"', table) == titles * len(run_paths)
    assert "average accuracy" in titles
    assert "content: attr(data-label)" in text


@pytest.mark.parametrize(
    ("info", "expected", "never"),
    [
        ({"selector": "adapt-inf", "without_gradient": 0}, "clusters of their gradients", "hidden states"),
        (
            {"selector": "adapt-inf-embedding", "without_embedding": 0},
            "clusters of their mean hidden states, not of gradients. The budget is split evenly",
            "clusters of their gradients",
        ),
        ({"selector": "adapt-inf", "without_gradient": 0, "expert": "mixture"}, "every scoring function", "highest"),
        (
            {"selector": "semdedup", "without_vector": 0, "no entropies": True},
            "The rule of semdedup: clusters of embeddings, even budgets",
            "scoring function",
        ),
        ({"selector": "of a package that is gone", "no entropies": True}, "Each step groups the pool.", "The rule"),
    ],
)
def test_what_is_said_about_clusters_is_what_the_method_does(
    run_paths: list[Path], tmp_path: Path, info: dict[str, object], expected: str, never: str
) -> None:
    path = Path(shutil.copytree(run_paths[0], tmp_path / "run"))
    for file in path.glob("steps/*/selection.json"):
        document = json.loads(file.read_text())
        del document["selector"]["without_gradient"]
        document["selector"] |= info
        if "no entropies" in info:
            for cluster in document["selector"]["clusters"]:
                del cluster["entropies"]
        file.write_text(json.dumps(document))
    said = how_clustered(load_runs([path])[0])
    assert expected in said
    assert never not in said
    html = write_report([path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert said in html
    assert ('<dl class="experts">' in html) == ("no entropies" not in info)


def test_hostile_text_stays_text(hostile_paths: list[Path], tmp_path: Path) -> None:
    text = write_report(hostile_paths, tmp_path / "report.html").read_text(encoding="utf-8")
    structure = Structure(text)
    assert "script" not in structure.tags
    assert structure.wrong == []
    assert structure.open == []
    assert not any(name.startswith("on") for _, name, _ in structure.attributes)
    assert text.count("&lt;script&gt;") > 100
    assert "{{ 7 * 7 }}" in text  # shown, not computed


def test_same_runs_give_the_same_bytes(run_paths: list[Path], tmp_path: Path) -> None:
    first = write_report(run_paths[:2], tmp_path / "a.html").read_bytes()
    assert first == write_report(run_paths[:2], tmp_path / "b.html").read_bytes()


def test_pictures_stop_at_the_budget_and_the_page_says_so(
    run_paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PICTURE_BYTES", 20_000)
    text = write_report(run_paths, tmp_path / "report.html").read_text(encoding="utf-8")
    assert sum(map(len, re.findall(r'src="(data:[^"]*)"', text))) <= 20_000
    assert "pictures were left out" in text
    assert "picture left out to keep the page small" in text


def test_a_directory_gets_report_html_and_no_part_stays(run_paths: list[Path], tmp_path: Path) -> None:
    assert write_report(run_paths[2:3], tmp_path) == tmp_path / "report.html"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_report_leaves_the_old_one(run_paths: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(InputError):
        write_report([tmp_path], out)
    assert out.read_text() == "old"


def test_one_unfinished_run_without_a_pool_has_a_report(run_paths: list[Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(run_paths[0], tmp_path / "run"))
    shutil.rmtree(path / "pool")
    for step in sorted((path / "steps").iterdir())[1:]:
        shutil.rmtree(step)
    text = write_report([path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "not finished (0 of 6 steps evaluated)" in text
    assert Structure(text).wrong == []


def test_lift_is_the_ratio_of_shares(run_paths: list[Path]) -> None:
    runs = load_runs(run_paths)
    table = lift_table(runs)
    assert table is not None
    chosen = runs[0].steps[-1].selection
    assert chosen is not None
    pool = [skill for _, skill in runs[0].steps[-1].pool.values()]
    share = chosen.table["skill"].to_pylist().count("boxes") / chosen.table.num_rows
    lifts = {skill: row_lifts for skill, _, _, _, row_lifts in table.rows}
    assert lifts["boxes"][0].ratio == pytest.approx(share / (pool.count("boxes") / len(pool)))
    multitask = table.runs.index("multitask")
    assert all(row[multitask].ratio == pytest.approx(1) for row in lifts.values())

from __future__ import annotations

from pathlib import Path

import numpy as np

from liit.report.heatmap import contrast, heat_css, heat_map, level, schemes
from liit.report.reading import load_run


def test_text_is_readable_on_every_colour_of_both_schemes() -> None:
    for colours in schemes():
        assert min(contrast(colour) for colour in colours) >= 4.5


def test_lightness_alone_orders_the_colours() -> None:
    def grey(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2

    light, dark = ([grey(colour) for colour in colours] for colours in schemes())
    assert np.all(np.diff(light) < 0)
    assert np.all(np.diff(dark) > 0)


def test_levels_cover_zero_to_one_and_nothing_else() -> None:
    assert [level(value) for value in (-1.0, 0.0, 0.5, 1.0, 3.0)] == [0, 0, 10, 20, 20]
    assert all(f".q{level(value)} " in heat_css() for value in (0.0, 1.0))


def test_cells_are_marked_by_when_a_skill_is_taught(run_paths: list[Path]) -> None:
    picture = heat_map(load_run(run_paths[0]))
    column = picture.skills.index("count")  # introduced by step 3
    marks = [cells[column].css.split()[0] for _, cells, _ in picture.rows]
    assert marks[:4] == ["before", "before", "before", "own"]
    assert not {"before", "own"} & set(marks[4:])
    assert all(cells[-1].css.startswith("before") for _, cells, _ in picture.rows)  # riddles: never taught
    assert sum(group.width for group in picture.groups) == len(picture.skills)


def test_a_step_without_evaluation_is_shown_as_such(run_paths: list[Path]) -> None:
    name, cells, mean = heat_map(load_run(run_paths[4])).rows[2]
    assert name == "2 drawings"
    assert {cell.text for cell in [*cells, mean]} == {"·"}
    assert "not evaluated" in cells[0].title

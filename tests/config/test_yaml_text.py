"""YAML as people mean it: what is read is what is written, and nothing but plain data."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from liit.config.yaml_text import read_yaml, write_yaml
from liit.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("010", 10),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'3'", "3"),
        ("0x10", "0x10"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read = read_yaml(text, "x")[0]
    assert read == value
    assert type(read) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    _, places = read_yaml("a: 1\nb:\n  - c: 2\n    d: 3\n  - 4\n", "f.yaml")
    assert places == {
        (): "f.yaml, line 1",
        ("a",): "f.yaml, line 1",
        ("b",): "f.yaml, line 2",
        ("b", 0): "f.yaml, line 3",
        ("b", 0, "c"): "f.yaml, line 3",
        ("b", 0, "d"): "f.yaml, line 4",
        ("b", 1): "f.yaml, line 5",
    }


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    value, _ = read_yaml("base: &b {x: 1, y: 2}\nitem: {<<: *b, y: 3}\n", "x")
    assert value["item"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "x: {a: 1, b: 2, a: 1}", "- {a: 1, 'a': 2}"], ids=["top", "flow", "quoted"]
)
def test_a_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="key 'a' is given twice"):
        read_yaml(text, "x")


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "? [1, 2]\n: 3", "a: !!set {x}", "a: !!binary aGk=", "a: 1\n---\nb: 2", "\x00"]
)
def test_anything_but_plain_data_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_yaml(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml")
    assert "\n" not in str(caught.value)


def test_aliases_that_multiply_are_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InputError, match="without end"):
        read_yaml("\n".join(rows), "x")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
@example({"a": "1e3", "b": "no", "c": "", "d": "~", "e": "<<", "null": 1e-05, "1": "0o7", "f": 1e22})
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    assert read_yaml(write_yaml(value), "x")[0] == value

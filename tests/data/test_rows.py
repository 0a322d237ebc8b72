from __future__ import annotations

import json
from pathlib import Path

import pytest

from liit.data.containers import json_text, read_rows
from liit.errors import InputError


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


ROWS = ['{"id": 1, "x": "\\u00e9 ] } , [ {"}', '{ "id":2,\n  "x": "é \\" \\\\" }', '{"id":"3","x":[[{}],"a"],"y":1.50}']


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
def test_rows_keep_their_own_text_whatever_the_buffer(tmp_path: Path, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(json_text, "_CHUNK", chunk)
    path = write(tmp_path / "a.json", "\n [\n" + " ,\n".join(ROWS) + "\n] \n")
    found = list(read_rows(path))
    assert [row.text for row in found] == ROWS
    assert [row.value for row in found] == list(map(json.loads, ROWS))
    assert [row.line for row in found] == [3, 4, 6]
    assert [row.number for row in found] == [1, 2, 3]


@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_a_broken_row_costs_one_row(tmp_path: Path, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(json_text, "_CHUNK", chunk)
    bad = ["{'id': 1}", '{"id": 1,}', '{"id": nul}', "nothing", '{"a": 1} {"b": 2}', '{"x": "\n"}']
    text = "[" + ",\n".join(row for pair in zip(bad, ROWS * 2, strict=True) for row in pair) + "]"
    found = list(read_rows(write(tmp_path / "a.json", text)))
    assert [row.text for row in found if row.error] == bad
    assert [row.text for row in found if not row.error] == ROWS * 2


@pytest.mark.parametrize(
    "text", ["[", "[{", '[{"a": 1}', '[{"a": 1},', '[{"a": 1}, {"b": "x', '[{"a": 1}] x', "[1] [2]"]
)
def test_a_cut_list_is_an_error_that_names_the_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"a\.json.*line 1"):
        list(read_rows(write(tmp_path / "a.json", text)))


def test_json_lines_keep_lines_and_skip_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\ufeff{"a": "\u2028"}\r\n\n{bad\n  {"a": 2}')
    assert [(row.number, row.line, row.value, bool(row.error)) for row in read_rows(path)] == [
        (1, 1, {"a": "\u2028"}, False),
        (2, 3, None, True),
        (3, 4, {"a": 2}, False),
    ]


def test_json_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    assert len(list(read_rows(write(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n')))) == 2


def test_bytes_that_are_not_utf8_spoil_only_their_row(tmp_path: Path) -> None:
    lines = list(read_rows(write(tmp_path / "a.jsonl", b'{"a": "\xff"}\n{"a": "\xc3\xa9"}\n')))
    array = list(read_rows(write(tmp_path / "a.json", b'[{"a": "\xff"}, {"a": "\xc3\xa9"}]')))
    for bad, good in (lines, array):
        assert bad.error is not None
        assert bad.error[0] == "not-utf8"
        assert "\\xff" in bad.text
        assert good.value == {"a": "é"}


def test_hostile_nesting_and_numbers_are_errors_of_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "[" + "[" * 100000 + "]" * 100000 + ', {"a": ' + "9" * 5000 + '}, {"a": 1}]')
    assert [bool(row.error) for row in read_rows(path)] == [True, True, False]


def test_a_very_long_row_is_read_in_linear_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_text, "_CHUNK", 1024)
    path = write(tmp_path / "a.json", json.dumps([{"image": "A" * 5_000_000}, {"b": 1}]))
    assert [len(row.text) > 100 for row in read_rows(path)] == [True, False]


@pytest.mark.parametrize("text", ["", " \n ", "id,image\n1,2\n", '{\n "a": 1\n}', "null"])
def test_files_of_another_kind_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"a\.json"):
        list(read_rows(write(tmp_path / "a.json", text)))


def test_missing_file_and_broken_parquet_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list(read_rows(tmp_path / "no.json"))
    with pytest.raises(InputError, match="Parquet"):
        list(read_rows(write(tmp_path / "a.parquet", b"PAR1 but not really")))


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(write(tmp_path / "a.json", " [ ] "))) == []

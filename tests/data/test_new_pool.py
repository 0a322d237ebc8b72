"""A command that fails leaves no pool that it made, and never one that others use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from liit.data.lock import write_lock
from liit.data.new_pool import opened_or_new
from liit.data.pool import Pool
from liit.data.sample import Message, Sample
from liit.errors import InputError

SAMPLE = Sample("1", (Message("user", "?"), Message("assistant", "a")))


def failing_command(path: Path, between: Callable[[], object]) -> None:
    with opened_or_new(path):
        between()
        raise InputError("wrong")


def fail(path: Path, between: Callable[[], object] = lambda: None) -> None:
    with pytest.raises(InputError, match="wrong"):
        failing_command(path, between)


def test_a_pool_that_was_made_is_taken_back_with_its_folders(tmp_path: Path) -> None:
    fail(tmp_path / "a/b/pool")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    fail(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    with opened_or_new(tmp_path / "a/pool") as pool:
        pool.add([SAMPLE])
    assert len(Pool.open(tmp_path / "a/pool")) == 1


def test_a_pool_that_was_there_stays(pool) -> None:
    fail(pool.path)
    assert Pool.open(pool.path).version == 1


def test_what_another_process_has_put_in_meanwhile_stays(tmp_path: Path) -> None:
    fail(tmp_path / "pool", lambda: Pool.open(tmp_path / "pool").add([SAMPLE]))
    assert Pool.open(tmp_path / "pool").ids() == ["1"]


def test_a_pool_that_another_process_writes_to_stays(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fail(tmp_path / "pool", lambda: stack.enter_context(write_lock(tmp_path / "pool")))
        assert Pool.open(tmp_path / "pool").version == 1


def test_a_pool_that_another_makes_meanwhile_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Pool.create

    def create(path: Path) -> Pool:
        inner(path).add([SAMPLE])
        return inner(path)

    monkeypatch.setattr(Pool, "create", create)
    assert Pool.open_or_create(tmp_path / "pool").ids() == ["1"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(InputError, match="is not empty"):
        Pool.open_or_create(tmp_path / "mine")


def test_a_lock_of_a_pool_that_is_gone_is_not_held(pool) -> None:
    caught: list[InputError] = []

    def wait() -> None:
        try:
            write_lock(pool.path, 30).__enter__()
        except InputError as error:
            caught.append(error)

    with write_lock(pool.path):
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.2)
        (pool.path / "lock").unlink()
    waiting.join()
    assert len(caught) == 1
    assert "was taken away by another process" in str(caught[0])

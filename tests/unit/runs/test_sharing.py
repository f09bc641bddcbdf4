"""A run that another process works on: it is waited for as long as that one lives, and taken as it leaves it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fused_ray.config import RunConfig
from fused_ray.core.pools import LocalPool
from fused_ray.errors import Interrupted
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import finish
from fused_ray.runs.progress import Progress
from fused_ray.storage import lock
from tests.unit.runs.test_studies import base


@pytest.fixture
def shared(tmp_path: Path) -> RunConfig:
    """A run that makes a model in a store."""
    short = {"pretrain": {"rounds": 1}, "retrain": {"rounds": 0}, "audit": {"enabled": False}}
    place = {"dir": str(tmp_path / "store" / "one"), "plots": "none"}
    return RunConfig.from_dict(base(tmp_path) | short | {"output": place})


@pytest.fixture
def other(shared: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """Another's hold on that run, which outlasts every deadline: a minute passes between two looks at the lock."""
    directory = RunDirectory.create(shared.output.dir, shared)
    directory.lock(0)
    clock = iter(range(0, 10**9, 61))
    passing = SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=time.sleep)
    monkeypatch.setattr(lock, "time", passing)
    return directory


def hearing(once: Callable[[], object]) -> tuple[list[str], Callable[[Progress], None]]:
    """The notes that are told, and a listener; at the first note something happens."""
    notes: list[str] = []

    def hear(progress: Progress) -> None:
        for note in progress.notes:
            if not notes:
                once()
            if note not in notes:
                notes.append(note)

    return notes, hear


def no_pool(*about: Any) -> Any:
    """Nothing is to be computed."""
    raise AssertionError("the run was made once more")


def test_what_another_finishes_is_taken(shared: RunConfig, other: RunDirectory) -> None:
    def done() -> None:
        other.write_json("result.json", {"made": "elsewhere"})
        other.unlock()

    notes, hear = hearing(done)
    assert finish(shared, no_pool, hear).result == {"made": "elsewhere"}
    assert notes == [f"process {os.getpid()} works on {other.path}; this one waits until it is done"]


def test_what_another_leaves_is_gone_on_with(shared: RunConfig, other: RunDirectory) -> None:
    notes, hear = hearing(other.unlock)
    run = finish(shared, LocalPool, hear)
    assert run.result["starts"] == 1
    assert notes[0].startswith("process ")
    run.lock(0)  # it was let go of
    run.unlock()


def test_the_wait_ends_where_the_user_wants_to_stop(shared: RunConfig, other: RunDirectory) -> None:
    stop: list[bool] = []
    _, hear = hearing(lambda: stop.append(True))
    with pytest.raises(Interrupted, match=f"process {os.getpid()} worked on"):
        finish(shared, LocalPool, hear, lambda: bool(stop))


def test_two_may_begin_it_at_once(shared: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    create = RunDirectory.create

    def late(*about: Any) -> RunDirectory:
        (create(*about).path / "result.json").write_text("{}")  # the other was faster by a little
        return create(*about)

    monkeypatch.setattr(RunDirectory, "create", late)
    assert finish(shared, no_pool).finished

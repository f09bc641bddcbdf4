"""A run that went on without clients that failed says so wherever it tells of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fused_ray import FusedRayError, RunConfig, load_run, run
from fused_ray.core.pools import ClientDone, LocalPool
from fused_ray.core.work import Work
from fused_ray.errors import ClientFailedError, Interrupted, NotWrittenError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import execute
from fused_ray.runs.report import show_result
from fused_ray.studies.display import failures
from fused_ray.types import PartialSum, Payload


class Failing(LocalPool):
    """Client 2 fails in a round, as `federation.on_failure=skip` has it."""

    where = ("unlearn", 2)

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        there = [client for client in clients if client != 2 or (work.phase, work.round) != self.where]
        return super().train(work, payload, there, done, keep_updates)


class FailingEarly(Failing):
    where = ("pretrain", 1)


def values_of(path: Path) -> dict[str, Any]:
    return {
        "data": {"limit": 300}, "federation": {"clients": 4, "on_failure": "skip"}, "pretrain": {"rounds": 1},
        "unlearn": {"rounds": 2, "layers": ["fc3"]}, "retrain": {"rounds": 0}, "audit": {"enabled": False},
        "engine": {"backend": "local"}, "output": {"dir": str(path), "plots": "none"},
    }  # fmt: skip


def test_it_is_told_and_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig.from_dict(values_of(tmp_path / "run"))
    result = execute(RunDirectory.create(config.output.dir, config), config, Failing)
    assert result["failures"] == 1
    told = "unlearn round 2: 1 of 4 clients failed and were left out; the same run may give other bits another time"
    assert told in result["notes"]
    found = load_run(config.output.dir)
    rows = {(row["phase"], row["round"]): row for row in found.rounds.to_pylist()}
    row = rows["unlearn", 2]
    assert [row[f"clients_{name}"] for name in ("expected", "received", "used")] == [4, 3, 3]
    assert 3 * rows["unlearn", 1]["bytes_up"] == 4 * row["bytes_up"], "it sent nothing"
    assert rows["unlearn", 1]["bytes_down"] - rows["unlearn", 1]["bytes_once"] == row["bytes_down"], "it was sent to"
    there = [row["client"] for row in found.clients.to_pylist() if (row["phase"], row["round"]) == ("unlearn", 2)]
    assert there == [0, 1, 3]
    show_result(found.path, config, result)
    assert result["failures_of_model"] == 0
    assert "NOT BIT-REPRODUCIBLE: 1 times a client failed and was left out of a round." in capsys.readouterr().out


def test_a_model_that_was_made_so_marks_what_is_made_of_it(tmp_path: Path) -> None:
    config = RunConfig.from_dict(values_of(tmp_path / "first"))
    first = execute(RunDirectory.create(config.output.dir, config), config, FailingEarly)
    assert (first["failures"], first["failures_of_model"]) == (1, 1)
    second = {"pretrain": {"from": str(tmp_path / "first")}, "engine": {"backend": "local"}}
    second |= {"unlearn": {"rounds": 1, "layers": ["fc3"]}, "retrain": {"rounds": 0}, "audit": {"enabled": False}}
    second |= {"output": {"dir": str(tmp_path / "second"), "plots": "none"}}
    taken = RunConfig.from_dict(second)
    assert taken.federation.on_failure == "skip"
    result = run(taken)
    assert (result["failures"], result["failures_of_model"]) == (1, 1)
    with pytest.raises(FusedRayError, match="the method federaser goes back over rounds"):
        RunConfig.from_dict(second, ["unlearn.method=federaser", "forget.scenario=client"])
    other = RunConfig.from_dict(second, ["federation.on_failure=fail", f"output.dir={tmp_path / 'third'}"])
    with pytest.raises(FusedRayError, match=r"federation\.on_failure"):
        run(other)


def test_studies_tell_how_many_of_their_runs_are_so() -> None:
    rows = [{"failures": 0}, {"failures": 2}, {"failures": None}]
    (line,) = failures(rows)
    assert line.startswith("NOT BIT-REPRODUCIBLE: clients failed and were left out in 1 of 3 runs")
    assert not [*failures(rows[:1])]


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (ClientFailedError("client 2 failed 3 times"), "client 2 failed 3 times"),
        (Interrupted("stopped in unlearn round 1"), None),
        (NotWrittenError("the disk is full"), None),
    ],
)
def test_why_the_last_start_failed_is_kept_until_the_next(
    tmp_path: Path, error: FusedRayError, kept: str | None
) -> None:
    config = RunConfig.from_dict(values_of(tmp_path / "run"))
    directory = RunDirectory.create(config.output.dir, config)

    def no_pool(*_: object) -> LocalPool:
        raise error

    with pytest.raises(type(error)):
        execute(directory, config, no_pool)
    assert directory.read_json("starts.json").get("error") == kept
    directory.lock(0)
    directory.started("2026-01-01T00:00:00+00:00")
    directory.unlock()
    found = directory.read_json("starts.json")
    assert found.keys() == {"starts"}
    assert len(found["starts"]) == 2

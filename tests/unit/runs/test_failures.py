"""A run that went on without clients that failed says so wherever it tells of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fused_ray import RunConfig, load_run
from fused_ray.core.pools import ClientDone, LocalPool
from fused_ray.core.work import Work
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import execute
from fused_ray.runs.report import show_result
from fused_ray.types import PartialSum, Payload


class Failing(LocalPool):
    """Client 2 fails in the second round of unlearning, as `federation.on_failure=skip` has it."""

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        there = [client for client in clients if (work.phase, work.round, client) != ("unlearn", 2, 2)]
        return super().train(work, payload, there, done, keep_updates)


def test_it_is_told_and_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, Any] = {
        "data": {"limit": 300}, "federation": {"clients": 4, "on_failure": "skip"}, "pretrain": {"rounds": 1},
        "unlearn": {"rounds": 2, "layers": ["fc3"]}, "retrain": {"rounds": 0}, "audit": {"enabled": False},
        "engine": {"backend": "local"}, "output": {"dir": str(tmp_path / "run"), "plots": "none"},
    }  # fmt: skip
    config = RunConfig.from_dict(values)
    result = execute(RunDirectory.create(config.output.dir, config), config, Failing)
    assert result["failures"] == 1
    told = "unlearn round 2: 1 of 4 clients failed and were left out; the same run may give other bits another time"
    assert told in result["notes"]
    run = load_run(config.output.dir)
    rows = {(row["phase"], row["round"]): row for row in run.rounds.to_pylist()}
    row = rows["unlearn", 2]
    assert [row[f"clients_{name}"] for name in ("expected", "received", "used")] == [4, 3, 3]
    assert 3 * rows["unlearn", 1]["bytes_up"] == 4 * row["bytes_up"], "it sent nothing"
    assert rows["unlearn", 1]["bytes_down"] - rows["unlearn", 1]["bytes_once"] == row["bytes_down"], "it was sent to"
    there = [row["client"] for row in run.clients.to_pylist() if (row["phase"], row["round"]) == ("unlearn", 2)]
    assert there == [0, 1, 3]
    show_result(run.path, config, result)
    assert "NOT BIT-REPRODUCIBLE: 1 times a client failed and was left out of a round." in capsys.readouterr().out

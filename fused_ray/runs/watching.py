"""A run that another process works on, here or on another machine: how far it is, by what it writes to disk alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.config import RunConfig
from fused_ray.errors import RunDirectoryError
from fused_ray.runs import display
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.earlier import left_out
from fused_ray.runs.progress import RECENT, Estimate, Finished, Progress
from fused_ray.runs.report import show_result
from fused_ray.runs.screen import Screen

Row = Mapping[str, Any]
_COLUMNS = ["phase", "round", "started_at", "train_seconds", "aggregate_seconds", "evaluate_seconds", "ra", "fa",
            "bytes_up", "clients_expected", "clients_used"]  # fmt: skip


class WatchedRun:
    """A run to look at again and again; of its rounds, only new ones are read."""

    def __init__(self, directory: RunDirectory) -> None:
        """Raises RunDirectoryError where its configuration cannot be read."""
        self.directory, self._config = directory, directory.config
        self._known: dict[tuple[str, int], Row] = {}

    def listening(self, screen: Screen) -> AbstractContextManager[Callable[[Progress], None]]:
        """What shows its progress on a screen."""
        return display.listening(screen)

    def lines(self, progress: Progress) -> list[str]:
        """Its progress for whoever looks once."""
        return display.lines(progress)

    def show_outcome(self) -> None:
        """What came of it, once it is finished."""
        show_result(self.directory.path, self._config, self.directory.result)

    def look(self) -> Progress:
        """How far it is now, in whole rounds. Raises RunDirectoryError where a file cannot be read."""
        rows, (started, _) = self._rows(), self.directory.times
        begun = started.timestamp() if started else time.time()
        return progress_of(self._config, rows, begun, time.time())

    def _rows(self) -> list[Row]:
        """Of rounds.parquet, in the order of phases and rounds."""
        known: dict[tuple[str, int], Row] = {}
        for part in sorted((self.directory.path / "rounds.parquet").glob("[!._]*.parquet")):
            try:
                key = part.name, part.stat().st_mtime_ns
                known[key] = self._known.get(key) or _read(part)
            except FileNotFoundError:  # a round that was not saved, and is made again
                continue
        self._known = known
        return list(known.values())


def _read(part: Path) -> Row:
    try:
        row: Row = pq.read_table(part, columns=_COLUMNS).to_pylist()[0]
        return row
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise RunDirectoryError(f"{part} cannot be read: {error}") from None


def progress_of(config: RunConfig, rows: list[Row], begun: float, now: float) -> Progress:
    """Where a run is by its finished rounds; times are seconds since 1970."""
    estimate = Estimate(config)
    for row in rows:
        estimate.over(row["phase"], row["round"], _seconds(row))
    to_come = (phase for phase, count in estimate.rounds.items() if estimate.finished.get(phase, 0) < count)
    phase = next(to_come, rows[-1]["phase"] if rows else "start")
    finished, rounds = estimate.finished.get(phase, 0), estimate.rounds.get(phase, 0)
    told = [row for row in rows if row["ra"] is not None]
    return Progress(
        phase=phase,
        round=min(finished + 1, rounds),
        rounds=rounds,
        finished=finished,
        ra=told[-1]["ra"] if told else None,
        fa=told[-1]["fa"] if told else None,
        bytes_up=rows[-1]["bytes_up"] if rows else 0,
        seconds=max(0.0, now - begun),
        round_seconds=estimate.each(phase),
        seconds_left=estimate.left(),
        failures=left_out(config, rows),
        recent=tuple(_finished(row, estimate, begun) for row in rows[-RECENT:]),
    )


def _seconds(row: Row) -> float:
    """What a round took."""
    return float(row["train_seconds"] + row["aggregate_seconds"] + row["evaluate_seconds"])


def _finished(row: Row, estimate: Estimate, begun: float) -> Finished:
    started: datetime = row["started_at"]
    rounds: int = row["round"]  # of a phase that has no plan, as many as there were
    return Finished(
        phase=row["phase"],
        round=row["round"],
        rounds=estimate.rounds.get(row["phase"], rounds),
        ra=row["ra"],
        fa=row["fa"],
        bytes_up=row["bytes_up"],
        seconds=started.timestamp() + _seconds(row) - begun,
    )

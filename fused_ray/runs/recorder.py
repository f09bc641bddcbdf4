"""The recorder of a run: what the simulation tells it goes to checkpoints, which must not fail, and to who listens."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fused_ray.config import schedule
from fused_ray.core.adapter import Adapter
from fused_ray.core.rounds import RoundRecord, Saved
from fused_ray.core.timetable import Timetable
from fused_ray.errors import ConfigError, Interrupted, RunDirectoryError
from fused_ray.runs.checkpoints import Checkpoints
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.events import ClientsDone, PhaseBegins, RoundBegins, RunBegins
from fused_ray.runs.rows import Rows, held
from fused_ray.runs.sinks import Sinks, Tables
from fused_ray.types import FloatVector, ImageData, IntVector, PartialSum, Payload, Scenario

_DEVICES = "devices_sha256"


def facts_of(data: ImageData, scenario: Scenario, clock: Timetable | None = None) -> dict[str, Any]:
    """What tells a run's data from others: their hash, and what the clients hold of them, in figures.

    Of clients whose devices decide who counts also what tells these from others.
    """
    decides = clock is not None and clock.config.deployment.decides
    devices = hashlib.sha256(repr(clock.devices).encode()).hexdigest() if clock is not None and decides else None
    return {
        "data_sha256": data.sha256,
        "partition_sha256": scenario.partition_sha256,
        "examples": scenario.held.sizes.tolist(),
        "retained": scenario.retained.sizes.tolist(),
        **({_DEVICES: devices} if devices else {}),
    }


def check_same_data(directory: RunDirectory, facts: Mapping[str, Any]) -> None:
    """Raise RunDirectoryError where the run began with other data, or other devices, than these facts tell of."""
    if not (directory.path / "scenario.json").exists():
        return
    # earlier versions did not write the data's hash
    known = {"data_sha256": facts["data_sha256"], **directory.read_json("scenario.json")}
    if known.get(_DEVICES) != facts.get(_DEVICES, known.get(_DEVICES)):
        raise RunDirectoryError(
            f"{directory.path} cannot go on: when it began, its clients had other devices, which decide who counts; "
            "restore the file that deployment.trace names, or begin a new run"
        )
    if any(known.get(name) != fact for name, fact in facts.items()):
        raise RunDirectoryError(
            f"{directory.path} cannot go on: when it began, its images or labels were others, or its clients held "
            "other data, or normalised them by another mean and deviation; restore the data set it was started with, "
            "or begin a new run"
        )


class DirectoryRecorder:
    """Records one run. `stopped` says whether the user wants it to end."""

    def __init__(
        self,
        directory: RunDirectory,
        data: ImageData,
        scenario: Scenario,
        *,
        checkpoints: Checkpoints,
        sinks: Sinks,
        stopped: Callable[[], bool] = lambda: False,
        clock: Timetable | None = None,
    ) -> None:
        self._config, self._checkpoints, self._sinks, self._stopped = directory.config, checkpoints, sinks, stopped
        self._rows, self._constants = Rows(directory.config, data, scenario), (data.mean, data.std)
        self._phase, self._round, self._of, self._began = "start", 0, 0, 0.0
        facts = facts_of(data, scenario, clock) | {"mean": list(data.mean), "std": list(data.std)}
        check_same_data(directory, facts)
        directory.write_json("scenario.json", facts)
        directory.write_table("held", held(data, scenario), later=True)
        self._tables = Tables(directory)
        self._tables.drop_beyond(checkpoints.finished)
        rounds = schedule.rounds(directory.config)
        told = directory.config.model_copy(deep=True)
        sinks(RunBegins(directory=directory.path, config=told, rounds=rounds, finished=checkpoints.finished))

    def resume(self, phase: str) -> Saved | None:
        try:
            return self._checkpoints.last(phase)
        except KeyError:
            method = self._config.unlearn.method
            raise ConfigError(
                f"unlearn.method: {method} has a phase {phase!r} that its Method.phases does not name"
            ) from None

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        if phase != self._phase:
            self._sinks(PhaseBegins(phase=phase, rounds=rounds, finished=round - 1))
        self._phase, self._round, self._of, self._began = phase, round, rounds, time.time()
        self._sinks(RoundBegins(phase=phase, round=round, rounds=rounds, clients=clients))
        self.clients_done(0)

    def clients_done(self, count: int) -> None:
        if self._stopped():
            raise Interrupted(f"stopped in {self._phase} round {self._round}")
        if count:
            self._sinks(ClientsDone(count))

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        over = self._rows.over(record, total, predictions, rounds=self._of, started_at=self._began)
        self._tables(over)  # before the checkpoint: what is saved has its rows
        self._checkpoints.save(record.phase, saved)
        self._sinks(over)
        missing = record.clients_expected - record.clients_used
        if missing and not self._config.deployment.decides:
            self._sinks.note(
                f"{record.phase} round {record.round}: {missing} of {record.clients_expected} clients failed and were "
                "left out; the same run may give other bits another time"
            )

    def save_model(self, name: str, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._checkpoints.save_model(name, state, self._constants)

    def save_adapter(self, adapter: Adapter, values: FloatVector, about: Mapping[str, Any]) -> None:
        self._checkpoints.save_adapter(adapter, values, about)

    def save_history(self, round: int, payload: Payload) -> None:
        self._checkpoints.save_history(round, payload)

    def history(self, round: int) -> Payload:
        return self._checkpoints.history(round)

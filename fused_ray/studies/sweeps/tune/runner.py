"""Runner: a warm worker for trials, with a pool of client actors that stays from trial to trial.

Runners are made before a sweep's trials, each with a fixed share of the cluster, and leased to one trial after the
other by a broker. So no choice of concurrency can deadlock, and whatever Tune does with its own actors, clients stay
warm.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.core.lease import Lease
from fused_ray.engine.pool import RayPool
from fused_ray.errors import FusedRayError, Interrupted
from fused_ray.runs import execute as single
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.progress import Progress
from fused_ray.studies.sweeps import rows
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.execute import models_of, preparer, run_trial
from fused_ray.studies.sweeps.trials import Trial

_WAIT = 10.0
"""Seconds after which an asker is told that there is nothing new yet."""


class Runner:
    """Runs one trial at a time. With `step_by_step`, a round begins only once the one before has been asked for."""

    _reports: list[rows.Report]
    _end: rows.Report | None
    """The trial's last report, once it is over."""
    _asked: int
    """The latest report that was asked for."""
    _heard: int
    """The last round that was heard of."""
    _stop: threading.Event

    def __init__(self, config: SweepConfig, group: PlacementGroup) -> None:
        self._config, self._lease = config, Lease(partial(RayPool, group=group))
        self._prepare, self._step_by_step = preparer(), config.scheduler != "none"
        self._changed = threading.Condition()
        self._reset()

    def run(self, trial: Trial) -> None:
        """Run a trial from beginning to end; `report` tells what comes of it meanwhile."""
        self._trial = trial
        try:
            # in a grid they are all there; a proposed trial may be the first that needs them
            for config in models_of(self._config, trial):
                single.finish(config, self._lease, stopped=self._stop.is_set, prepare=self._prepare)
            config = self._config.run(trial)
            status = run_trial(config, self._lease, self._hear, self._stop.is_set, self._prepare)
        except Interrupted:
            status = rows.STOPPED
        except FusedRayError as error:
            status = f"{rows.FAILED}its shared models: {error}"
        except Exception as error:  # of whatever kind: the other trials go on
            status = f"{rows.FAILED}{type(error).__name__}: {error}"
        with self._changed:
            self._end = self._last_report(status)
            self._changed.notify_all()

    @ray.method(concurrency_group="control")
    def report(self, number: int) -> rows.Report | None:
        """The trial's report of that number, from 0, or its last one with `status`; None: not yet, ask again."""
        with self._changed:
            self._asked = max(self._asked, number)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._reports) > number or self._end, timeout=_WAIT)
            return self._reports[number] if len(self._reports) > number else self._end

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """End the trial after at most half a second of rounds."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def ready(self) -> None:
        """Answers when no trial is running and the next one may."""
        self._reset()

    def _reset(self) -> None:
        self._reports, self._end = [], None
        self._asked, self._heard = 0, 0
        self._stop = threading.Event()

    def _rows(self, status: str) -> list[rows.Row]:
        run = RunDirectory.open(self._config.run(self._trial).output.dir)
        return rows.of_trial(self._trial, status, run, None)

    def _last_report(self, status: str) -> rows.Report:
        found = self._rows(status) if status in (rows.DONE, rows.STOPPED) else [{}]
        return rows.report(found[-1]) | {"status": status}

    def _hear(self, progress: Progress) -> None:
        """After a round; what comes after the last one is the trial's end."""
        if progress.phase != "unlearn" or progress.finished in (self._heard, 0, progress.rounds):
            return
        self._heard = progress.finished
        report = rows.report(self._rows(rows.STOPPED)[-1])
        with self._changed:
            self._reports.append(report)
            self._changed.notify_all()
            if self._step_by_step:
                self._changed.wait_for(lambda: self._asked >= len(self._reports) or self._stop.is_set())


_RemoteRunner = ray.remote(concurrency_groups={"control": 4})(Runner)  # type: ignore[call-overload]


def start_runner(config: SweepConfig, group: PlacementGroup, node: str) -> Any:
    """A runner on the node of the sweep's driver, so that all files are written there."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return _RemoteRunner.options(num_cpus=0, scheduling_strategy=here).remote(config, group)

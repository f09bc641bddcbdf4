"""Runner: a warm worker for trials, with a pool of client actors that stays from trial to trial.

Runners are made before a sweep's trials, each with a fixed share of the cluster, and leased to one trial after the
other by a broker. So no choice of concurrency can deadlock, and whatever Tune does with its own actors, clients stay
warm.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.engine.lease import Lease
from fused_ray.engine.pool import RayPool
from fused_ray.errors import FusedRayError, Interrupted
from fused_ray.results import execute as single
from fused_ray.results.directory import RunDirectory
from fused_ray.results.recorder import Progress
from fused_ray.results.sweep import rows
from fused_ray.results.sweep.execute import models_of, preparer, run_trial
from fused_ray.trials import SweepConfig, Trial

Report = dict[str, Any]
"""What Tune hears after a round: round, ra, fa, ca, bytes_up_total, seconds, score; `status` and done at the end."""
_WAIT = 10.0
"""Seconds after which an asker is told that there is nothing new yet."""


class Runner:
    """Runs one trial at a time. With `step_by_step`, a round begins only once the one before has been asked for."""

    _reports: list[Report]
    _end: Report | None
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
    def report(self, number: int) -> Report | None:
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

    def _last_report(self, status: str) -> Report:
        found = self._rows(status) if status in (rows.DONE, rows.STOPPED) else [{}]
        return report_of(found[-1]) | {"status": status}

    def _hear(self, progress: Progress) -> None:
        """After a round; what comes after the last one is the trial's end."""
        if progress.phase != "unlearn" or progress.finished in (self._heard, 0, progress.rounds):
            return
        self._heard = progress.finished
        report = report_of(self._rows(rows.STOPPED)[-1])
        with self._changed:
            self._reports.append(report)
            self._changed.notify_all()
            if self._step_by_step:
                self._changed.wait_for(lambda: self._asked >= len(self._reports) or self._stop.is_set())


def report_of(row: Mapping[str, Any]) -> Report:
    """Tune's view of a row of trials.parquet; what is not known is NaN, which no scheduler or searcher prefers."""
    report = {name: row.get(name) for name in ("ra", "fa", "ca", "bytes_up_total")}
    report |= {"seconds": row.get("seconds_total"), "round": row.get("round") or 0}
    known = report["ra"] is not None and report["fa"] is not None
    report["score"] = row["ra"] - row["fa"] if known else None
    return {name: math.nan if value is None else value for name, value in report.items()}


class Broker:
    """Leases runners to trials, and makes a new one for one that died."""

    _reports: list[Report]
    _end: Report | None
    """The trial's last report, once it is over."""
    _asked: int
    """The latest report that was asked for."""
    _heard: int
    """The last round that was heard of."""
    _stop: threading.Event

    def __init__(self, config: SweepConfig, groups: list[PlacementGroup], node: str, first: int) -> None:
        self._config, self._node, self._next = config, node, first
        self._free: asyncio.Queue[tuple[Any, PlacementGroup]] = asyncio.Queue()
        self._held: dict[str, tuple[Any, PlacementGroup]] = {}
        self._over: set[str] = set()
        for group in groups:
            self._free.put_nowait((self._start(group), group))

    async def begin(self, name: str, trial: Trial | None, values: dict[str, Any]) -> tuple[Any, Trial]:
        """Start Tune's trial of that name on a free runner, once there is one; a proposed trial gets its number."""
        runner, group = await self._free.get()
        if name in self._over:
            self._free.put_nowait((runner, group))
            raise RuntimeError("the trial was over before it began")
        if trial is None:
            trial = self._config.trial(self._next, values)
            self._next += 1
        self._held[name] = runner, group
        if trial.config is not None:
            runner.run.remote(trial)
        return runner, trial

    async def end(self, name: str) -> None:
        """Take a trial's runner back; a trial that still runs is stopped."""
        self._over.add(name)
        runner, group = self._held.pop(name, (None, None))
        if runner is None or group is None:
            return
        try:
            await runner.stop.remote()
            await runner.ready.remote()
        except RayError:
            with contextlib.suppress(RayError):
                ray.kill(runner)
            runner = self._start(group)
        self._free.put_nowait((runner, group))

    def _start(self, group: PlacementGroup) -> Any:
        """A runner on the node of the sweep's driver, so that all files are written there."""
        here = NodeAffinitySchedulingStrategy(self._node, soft=False)
        return _RemoteRunner.options(num_cpus=0, scheduling_strategy=here).remote(self._config, group)


_RemoteRunner = ray.remote(concurrency_groups={"control": 4})(Runner)  # type: ignore[call-overload]
_RemoteBroker = ray.remote(num_cpus=0)(Broker)


def start_broker(config: SweepConfig, groups: list[PlacementGroup], node: str, first: int) -> Any:
    """A broker on the driver's node, with a runner for each placement group."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return _RemoteBroker.options(scheduling_strategy=here).remote(config, groups, node, first)

"""Runner: a warm worker for a study's runs, with a pool of client actors that stays from run to run.

Runners are made before the runs, each with a fixed share of the cluster, and leased to one after the other by a
broker. So no choice of concurrency can deadlock, and whatever Tune does with its own actors, clients stay warm.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.core.lease import Lease
from fused_ray.core.standard import standard
from fused_ray.engine.pool import RayPool
from fused_ray.errors import Interrupted, in_one_line
from fused_ray.runs.progress import Progress
from fused_ray.studies.status import FAILED, STOPPED
from fused_ray.studies.study import Item, Plan
from fused_ray.studies.tools import Tools, preparer

Report = dict[str, Any]
_WAIT = 10.0
"""Seconds after which an asker is told that there is nothing new yet."""


class Runner:
    """Carries out one run at a time. Step by step, a round begins only once the one before has been asked for."""

    _reports: list[Report]
    _end: Report | None
    """The run's last report, once it is over."""
    _asked: int
    """The latest report that was asked for."""
    _heard: int
    """The last round that was heard of."""
    _stop: threading.Event

    def __init__(self, plan: Plan, group: PlacementGroup) -> None:
        self._plan, self._lease = plan, Lease(partial(RayPool, group=group))
        self._prepare = preparer()
        self._changed = threading.Condition()
        self._reset()

    def run(self, item: Item) -> None:
        """Carry out a run from beginning to end; `report` tells what comes of it meanwhile."""
        self._item = item
        try:
            with standard():
                status = self._plan.carry_out(item, Tools(self._lease, self._prepare, self._hear, self._stop.is_set))
        except (Exception, SystemExit) as error:  # of whatever kind: the other runs go on
            asked = isinstance(error, Interrupted) and self._stop.is_set()
            status = STOPPED if asked else f"{FAILED}{in_one_line(error)}"
        with self._changed:
            self._end = {**self._plan.report(item, status), "status": status}
            self._changed.notify_all()

    @ray.method(concurrency_group="control")
    def report(self, number: int) -> Report | None:
        """The run's report of that number, from 0, or its last one with `status`; None: not yet, ask again."""
        with self._changed:
            self._asked = max(self._asked, number)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._reports) > number or self._end, timeout=_WAIT)
            return self._reports[number] if len(self._reports) > number else self._end

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """End the run after at most half a second of rounds."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def ready(self) -> None:
        """Answers when nothing is running and the next run may."""
        self._reset()

    def _reset(self) -> None:
        self._reports, self._end = [], None
        self._asked, self._heard = 0, 0
        self._stop = threading.Event()

    def _hear(self, progress: Progress) -> None:
        """After a round; what comes after the last one is the run's end."""
        if progress.phase != "unlearn" or progress.finished in (self._heard, 0, progress.rounds):
            return
        self._heard = progress.finished
        if not (report := self._plan.report(self._item, STOPPED)):
            return  # nobody asks
        with self._changed:
            self._reports.append(report)
            self._changed.notify_all()
            if self._plan.step_by_step:
                self._changed.wait_for(lambda: self._asked >= len(self._reports) or self._stop.is_set())


_RemoteRunner = ray.remote(concurrency_groups={"control": 4})(Runner)  # type: ignore[call-overload]


def start_runner(plan: Any, group: PlacementGroup, node: str) -> Any:
    """A runner for the plan behind a reference, on the driver's node, so that all files are written there."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return _RemoteRunner.options(num_cpus=0, scheduling_strategy=here).remote(plan, group)

"""DriverActor: does one job (a run, a comparison, a sweep) on the entrypoint's node; only it writes the job's folder.

The script that submitted the job holds no model; it asks for progress, which has a concurrency group of its own, so
that a long round never delays the answer or a request to stop.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.comparison import CompareConfig
from fused_ray.config import RunConfig
from fused_ray.engine.lease import Lease
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import version_note
from fused_ray.results.comparison.directory import ComparisonDirectory
from fused_ray.results.comparison.execute import execute as execute_comparison
from fused_ray.results.directory import RunDirectory
from fused_ray.results.execute import audit, execute
from fused_ray.results.place import Mark
from fused_ray.results.sweep.directory import SweepDirectory
from fused_ray.results.sweep.execute import Sweep
from fused_ray.results.sweep.execute import execute as execute_sweep
from fused_ray.trials import SweepConfig


class Job(Protocol):
    """What a driver does: a small record that travels to it. It goes for the folder of a mark, not for a later one."""

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        """Do it, tell of progress, end with Interrupted when stopped; returns the content of result.json."""
        ...


@dataclass(frozen=True)
class RunJob:
    """A run in its prepared directory, on a pool of its own."""

    path: str
    mark: Mark | None
    config: RunConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        return execute(RunDirectory.open(self.path, self.mark), self.config, RayPool, hear, stopped, notes)


@dataclass(frozen=True)
class AuditJob:
    """The audit of a finished run, on a pool of its own."""

    path: str
    mark: Mark | None
    config: RunConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        return audit(RunDirectory.open(self.path, self.mark), self.config, RayPool, hear, stopped)


@dataclass(frozen=True)
class CompareJob:
    """A comparison in its prepared directory, all of it on one pool."""

    path: str
    mark: Mark | None
    config: CompareConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        with contextlib.closing(Lease(RayPool)) as lease:
            directory = ComparisonDirectory.open(self.path, self.mark)
            return execute_comparison(directory, self.config, lease, hear, stopped, notes)


@dataclass(frozen=True)
class SweepJob:
    """A sweep in its prepared directory: its shared models on one pool, its trials by Ray Tune."""

    path: str
    mark: Mark | None
    config: SweepConfig

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        from fused_ray.engine.tune import Tuning

        tuning = Tuning(self.config)  # refuses at once what does not fit
        with contextlib.closing(Lease(RayPool)) as lease:

            def run_trials(sweep: Sweep) -> None:
                lease.close()  # its cores are the trials' now
                tuning(sweep)

            directory = SweepDirectory.open(self.path, self.mark)
            return execute_sweep(directory, self.config, lease, run_trials, hear, stopped, notes)


class DriverActor:
    """One job. `run` blocks until it is over; the other methods answer meanwhile."""

    def __init__(self, job: Job) -> None:
        self._job, self._progress = job, None
        self._stop = threading.Event()

    def run(self) -> dict[str, Any]:
        """The content of result.json. Raises what the job raises."""
        note = version_note()
        result: dict[str, Any] = self._job(self._hear, self._stop.is_set, (note,) if note else ())
        return result

    @ray.method(concurrency_group="control")
    def progress(self) -> Any:
        """Where the job is; None before it has said anything."""
        return self._progress

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """End the job after at most half a second of rounds; `run` raises Interrupted."""
        self._stop.set()

    def _hear(self, progress: Any) -> None:
        self._progress = progress


_RemoteDriver = ray.remote(concurrency_groups={"control": 2})(DriverActor)  # type: ignore[call-overload]


def start_driver(job: Job) -> Any:
    """A driver actor on this process's node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return _RemoteDriver.options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote(job)

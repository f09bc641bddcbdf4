"""DriverActor: does one job (a run, a comparison, a sweep) on the entrypoint's node; only it writes the job's folder.

The script that submitted the job holds no model; it asks for progress, which has a concurrency group of its own, so
that a long round never delays the answer or a request to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.engine.session import version_note


class Job(Protocol):
    """What a driver does: a small record that travels to it. It goes for the folder of a mark, not for a later one."""

    def __call__(self, hear: Callable[[Any], None], stopped: Callable[[], bool], notes: Sequence[str]) -> Any:
        """Do it, tell of progress, end with Interrupted when stopped; returns the content of result.json."""
        ...


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

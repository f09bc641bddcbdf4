"""DriverActor: runs one simulation on the node of the entrypoint and is the only writer of its run directory.

The script that submitted the run holds no model; it asks for progress, which has a concurrency group of its own, so
that a long round never delays the answer or a request to stop.
"""

from __future__ import annotations

import threading
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.config import RunConfig
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import version_note
from fused_ray.results.directory import RunDirectory
from fused_ray.results.execute import execute
from fused_ray.results.recorder import Progress


class DriverActor:
    """One run. `run` blocks until it is over; the other methods answer meanwhile."""

    def __init__(self, path: str, config: RunConfig) -> None:
        self._directory, self._config = RunDirectory.open(path), config
        self._progress = Progress()
        self._stop = threading.Event()

    def run(self) -> dict[str, Any]:
        """The content of result.json. Raises what the run raises."""
        note = version_note()
        return execute(
            self._directory, self._config, RayPool, self._hear, self._stop.is_set, notes=(note,) if note else ()
        )

    @ray.method(concurrency_group="control")
    def progress(self) -> Progress:
        """Where the run is."""
        return self._progress

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """End the run after at most half a second; `run` raises Interrupted."""
        self._stop.set()

    def _hear(self, progress: Progress) -> None:
        self._progress = progress


_RemoteDriver = ray.remote(concurrency_groups={"control": 2})(DriverActor)  # type: ignore[call-overload]


def start_driver(path: str, config: RunConfig) -> Any:
    """A driver actor on this process's node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return _RemoteDriver.options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote(path, config)

"""A broker that leases runners to runs. Like Tune's actor of a trial, it imports no PyTorch, to start fast."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray.engine.reason import reason
from fused_ray.errors import ClientFailedError
from fused_ray.studies.tune.waiting import Waiting

Propose = Callable[[int, dict[str, Any]], Any]
"""The run of that number at a point that a search proposed."""
Leased = tuple[Any, PlacementGroup]
"""A runner and what it runs its clients in."""


class Broker:
    """Leases runners to runs, and makes a new one for one that died."""

    def __init__(
        self, plan: list[Any], source: Propose | Waiting | None, runners: list[Leased], node: str, first: int
    ) -> None:
        """`source` is where runs come from that Tune does not name; None: it names them all."""
        (self._plan,) = plan  # a reference: what is behind it imports PyTorch
        self._source, self._node, self._next = source, node, first
        self._last: dict[Any, str] = {}
        """The group of the last run in each part of the cluster."""
        self._free: asyncio.Queue[Leased] = asyncio.Queue()
        self._held: dict[str, Leased] = {}
        self._over: set[str] = set()
        for pair in runners:
            self._free.put_nowait(pair)

    async def ready(self) -> None:
        """Answers while the broker lives."""

    async def begin(self, name: str, item: Any | None, values: dict[str, Any]) -> tuple[Any, Any]:
        """Start Tune's trial of that name on a free runner, once there is one; a proposed one gets its number."""
        runner, group = await self._free.get()
        if name in self._over:
            self._free.put_nowait((runner, group))
            raise RuntimeError("the trial was over before it began")
        if isinstance(self._source, Waiting):
            self._last[group.id], item = self._source.take(self._last.get(group.id))
        elif item is None:
            assert self._source is not None, "the runs of a list are told"
            item = self._source(self._next, values)
            self._next += 1
        self._held[name] = runner, group
        if item.config is not None:
            runner.run.remote(item)
        return runner, item

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
            from fused_ray.studies.tune.runner import start_runner  # imports PyTorch, which a broker rarely needs

            runner = start_runner(self._plan, group, self._node)
        self._free.put_nowait((runner, group))


def check_broker(broker: Any) -> None:
    """Raises ClientFailedError if the broker died: trials that it was to start were never run, whatever they say."""
    try:
        ray.get(broker.ready.remote())
    except RayError as error:
        raise ClientFailedError(f"the process that gives workers to trials died: {reason(error)}") from None


_RemoteBroker = ray.remote(num_cpus=0)(Broker)


def start_broker(plan: Any, source: Propose | Waiting | None, runners: list[Leased], node: str, first: int = 0) -> Any:
    """A broker on the driver's node; what a search proposes gets its number from `first` on."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return _RemoteBroker.options(scheduling_strategy=here).remote([plan], source, runners, node, first)

"""What a run asks of the cluster's autoscaler: room for all of its actors, from the start until they have started.

Ray keeps one such request for the whole cluster, until another one takes its place. So it is withdrawn as soon as the
actors are there, whose nodes then stay because of them, and at every other end. Ray does not tell whether a cluster has
an autoscaler: so it is asked only where `engine.autoscale` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status

from fused_ray.config import RunConfig
from fused_ray.core.pools import ClientPool
from fused_ray.engine.cluster import cluster_nodes
from fused_ray.engine.placement import fitting, wish
from fused_ray.errors import Interrupted
from fused_ray.types import ImageData, Scenario

MakePool = Callable[[RunConfig, ImageData, Scenario], ClientPool]
_POLL = 0.5
"""Seconds between two looks at the cluster."""
_SILENCE = 15.0
"""Seconds after which an autoscaler that starts nothing will not: it looks about every five."""


class Request:
    """Something that was asked of the autoscaler, or nothing; `notes` tell what."""

    def __init__(self, notes: tuple[str, ...] = ()) -> None:
        self.notes = notes

    def until(self, make: MakePool) -> MakePool:
        """The same, after which nothing is asked any more."""

        def made(config: RunConfig, data: ImageData, scenario: Scenario) -> ClientPool:
            pool = make(config, data, scenario)
            if self.notes:
                withdraw()
            return pool

        return made


@contextmanager
def asked(config: RunConfig, stopped: Callable[[], bool]) -> Iterator[Request]:
    """With `engine.autoscale`: what the actors want is asked for, and waited for up to `engine.wait_nodes` seconds.

    What has not come by then is done without. Nothing is asked any more when this ends, whatever ends it. Raises
    Interrupted when it is stopped while it waits.
    """
    if not config.engine.autoscale:
        yield Request()
        return
    try:
        yield Request((_waited(config, stopped),))
    finally:
        withdraw()


def withdraw() -> None:
    """Ask for nothing any more."""
    request_resources(bundles=[])


def _waited(config: RunConfig, stopped: Callable[[], bool]) -> str:
    """What was asked and what has come of it.

    Ray's second autoscaler starts nothing if it cannot have all that is asked: then the most that it can is searched.
    """
    actors, each = wish(config.federation)
    began = since = time.monotonic()
    wanted, too_many = actors, actors + 1
    _ask(config, wanted)
    while (there := _room(config)) < actors and there + 1 < too_many:
        if stopped():
            raise Interrupted("stopped")
        now = time.monotonic()
        if now - began > config.engine.wait_nodes:
            break
        if now - since > _SILENCE and _nothing_starts():
            too_many = wanted
        if there >= wanted or wanted == too_many:
            wanted, since = max(there + 1, (there + too_many) // 2), now
            _ask(config, wanted)
        time.sleep(_POLL)
    _ask(config, max(1, min(there, actors)))  # so that what is there stays
    what = " + ".join(f"{amount:g} {kind}" for kind, amount in each.items())
    came = "all" if there >= actors else f"room for {there}"
    return f"asked the autoscaler for {actors} x ({what}): {came} there after {time.monotonic() - began:.0f} s"


def _ask(config: RunConfig, actors: int) -> None:
    _, each = wish(config.federation)
    labels = dict(config.federation.actor_labels)
    request_resources(bundles=[each] * actors, bundle_label_selectors=[labels] * actors if labels else None)


def _room(config: RunConfig) -> int:
    return fitting(config.federation, cluster_nodes())


def _nothing_starts() -> bool:
    """Whether the autoscaler is one that tells of what it does, and it tells of no node that is to come."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    tells = status.stats.autoscaler_version not in (None, "0")
    return tells and not status.pending_launches and not status.pending_nodes

"""Clusters that need not be there, and where the actors of a run would stand on them."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field, field_validator

from fused_ray.config import FederationConfig, Section
from fused_ray.config.fields import Counts, Real
from fused_ray.errors import PlacementError

_MOST = 1_000_000
"""Clients: each is placed."""


class Paper(Section):
    """Clusters that need not be there, whose rounds are predicted."""

    clusters: tuple[str, ...] = ("4x16c", "16x64c")
    """In the words of `--cluster` of `fused-ray plan`; an actor on each core."""
    clients: Counts = (1_000, 10_000, 100_000)
    """Clients, up to 1,000,000."""
    network_gbps: Annotated[Real, Field(gt=0)] = 10.0
    """Gigabits a second between the driver's node and all others together: assumed, not measured."""

    @field_validator("clusters")
    @classmethod
    def _in_words(cls, clusters: tuple[str, ...]) -> tuple[str, ...]:
        from fused_ray.engine.cluster_text import nodes_of  # only studies with paper need the engine

        for cluster in clusters:
            try:
                nodes = nodes_of(cluster)
                if min(node.cpus for node in nodes) < 1:
                    raise ValueError(f"{cluster!r}: each node needs a core for an actor")
                seats(cluster, FederationConfig(), 1)  # where one client has a place, any number has
            except PlacementError as error:
                said = str(error).removeprefix("--cluster: ")
                raise ValueError(said if cluster in said else f"{cluster!r}: {said}") from None
        return clusters

    @field_validator("clients")
    @classmethod
    def _placeable(cls, clients: tuple[int, ...]) -> tuple[int, ...]:
        if max(clients, default=0) > _MOST:
            raise ValueError(f"{max(clients):,} clients are more than {_MOST:,}; name fewer")
        return clients


def seats(cluster: str, federation: FederationConfig, clients: int) -> tuple[str, Counter[str]]:
    """The first node, where the driver is, and how many actors of so many clients stand on each: one on each core.

    Where actors may stand here (`federation.actor_labels`) says nothing of a cluster on paper. Raises PlacementError.
    """
    from fused_ray.engine.cluster_text import nodes_of
    from fused_ray.engine.placement import plan

    nodes = nodes_of(cluster)
    wanted = federation.model_copy(
        update={
            "clients": clients,
            "clients_per_actor": "auto",
            "actor_cpus": 1.0,
            "actor_gpus": 0.0,
            "actor_labels": {},
        }
    )
    return nodes[0].name, Counter(seat.node for seat in plan(wanted, [1] * clients, nodes).seats)

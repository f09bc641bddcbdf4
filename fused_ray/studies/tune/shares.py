"""How many of a study's runs go on at a time, and what of the cluster each of them gets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from fused_ray.config import RunConfig
from fused_ray.config.labels import selects
from fused_ray.engine.cluster import cluster_nodes
from fused_ray.engine.placement import Node, plan, shares
from fused_ray.errors import PlacementError

AUTO = 4
"""Most runs at a time where max_concurrent is auto."""


def shared_out(
    runs: Iterable[RunConfig], wanted: int | Literal["auto"], count: int, most: int = AUTO
) -> list[list[Node]]:
    """Even shares of the cluster for so many runs at a time; `auto`: as many as fit, at most `most`.

    Raises PlacementError where the clients of one of the runs do not fit on a share.
    """
    placed = {run.federation: None for run in runs}
    nodes = cluster_nodes()
    nodes = [node for node in nodes if any(selects(wanted.actor_labels, node.labels) for wanted in placed)] or nodes
    # as on the whole cluster, where their models are made
    with_gpus = any(plan(federation, [1] * federation.clients, nodes).on_gpus for federation in placed)
    units = sum(int(node.gpus if with_gpus else node.cpus) for node in nodes)
    number = min(max(1, min(most, units)) if wanted == "auto" else wanted, count)
    while True:
        try:
            parts = shares(nodes, number, with_gpus)
            for federation in placed:
                for part in parts:
                    plan(federation, [1] * federation.clients, part)
            return parts
        except PlacementError as error:
            if wanted != "auto" or number == 1:
                told, field = str(error), "max_concurrent: "
                raise PlacementError(told if told.startswith(field) else f"{field}{number} at a time: {told}") from None
        number -= 1


def reserve(parts: list[list[Node]], limit: float) -> list[PlacementGroup]:
    """A placement group for each part. Raises PlacementError if others hold what they need for that many seconds."""
    groups = []
    for part in parts:
        bundles = [{"CPU": node.cpus} | ({"GPU": node.gpus} if node.gpus else {}) for node in part]
        # on the nodes that were counted with: left to itself, Ray packs parts of two nodes onto one
        where = [{"ray.io/node-id": node.name} for node in part]
        groups.append(placement_group(bundles, bundle_label_selector=where))
    for group in groups:
        if not group.wait(timeout_seconds=limit):
            for held in groups:
                remove_placement_group(held)
            raise PlacementError(
                f"max_concurrent: the cluster's cores for {len(parts)} at a time did not come free within {limit:g} s "
                "(engine.start_timeout of the base); lower max_concurrent or raise the limit"
            )
    return groups

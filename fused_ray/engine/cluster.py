"""What the cluster that this process is connected to has, and what of it is free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.util.placement_group import PlacementGroup, placement_group_table

from fused_ray.config import EngineConfig, FederationConfig
from fused_ray.engine.placement import Node, Plan, selected
from fused_ray.errors import PlacementError
from fused_ray.types import Identity

_POLL = 0.25
"""Seconds between two looks at the cluster."""
_RELEASE = 3.0
"""Seconds that what ended just now may take to give back what it held."""


def cluster_nodes() -> list[Node]:
    """The live nodes by name, each with all that it has."""
    return [
        Node(
            n["NodeID"],
            n["Resources"].get("CPU", 0.0),
            n["Resources"].get("GPU", 0.0),
            n["Resources"].get("memory", 0.0),
            labels=n["Labels"],
        )
        for n in sorted(ray.nodes(), key=lambda n: n["NodeID"])
        if n["Alive"]
    ]


def free_nodes(ours: Iterable[Identity] = ()) -> list[Node]:
    """The live nodes by name, each with what nobody holds but these actors."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    free = {node.node_id: node.available_resources() for node in (*status.active_nodes, *status.idle_nodes)}
    own: dict[str, tuple[float, float]] = {}
    for actor in ours:
        cpus, gpus = own.get(actor.node, (0.0, 0.0))
        own[actor.node] = cpus + actor.cpus, gpus + actor.gpus
    found = []
    for node in cluster_nodes():
        there = free.get(node.name, {"CPU": node.cpus, "GPU": node.gpus})
        cpus, gpus = own.get(node.name, (0.0, 0.0))
        cpus, gpus = (
            min(whole, round(there.get(kind, 0.0) + mine, 4))
            for whole, kind, mine in ((node.cpus, "CPU", cpus), (node.gpus, "GPU", gpus))
        )
        memory = min(node.memory, there.get("memory", node.memory))  # our actors reserve none
        left = replace(node, cpus=cpus, gpus=gpus, memory=memory)
        found.append(replace(left, others_cpus=node.cpus - cpus, others_gpus=node.gpus - gpus))
    return found


def group_nodes(group: PlacementGroup) -> list[Node]:
    """The part of each live node that a placement group has reserved; memory is shared out by CPU cores."""
    nodes = {node.name: node for node in cluster_nodes()}
    held: dict[str, Node] = {}
    for index, name in placement_group_table(group)["bundles_to_node_id"].items():
        if name in nodes:  # a bundle of a lost node is being placed anew
            bundle, node = group.bundle_specs[index], nodes[name]
            had = held.get(name, replace(node, cpus=0.0, gpus=0.0, memory=0.0))
            cpus, gpus = bundle.get("CPU", 0.0), had.gpus + bundle.get("GPU", 0.0)
            memory = had.memory + node.memory * cpus / max(node.cpus, 1.0)
            held[name] = replace(node, cpus=had.cpus + cpus, gpus=gpus, memory=memory)
    return list(held.values())


def bundles(group: PlacementGroup) -> dict[str, int]:
    """The bundle of a placement group on each node that has one of it."""
    found: dict[str, list[int]] = {}
    for index, name in placement_group_table(group)["bundles_to_node_id"].items():
        found.setdefault(name, []).append(index)
    return {name: indices[0] for name, indices in found.items() if len(indices) == 1}


def alive() -> set[str]:
    """The names of the live nodes; one that has just gone is among them until that is noticed."""
    return {n["NodeID"] for n in ray.nodes() if n["Alive"]}


def nodes_from_here(federation: FederationConfig) -> list[str]:
    """The names of the live nodes that may have actors and have cores for them, the one that this process is on first.

    Raises PlacementError if `actor_labels` allows none.
    """
    here = ray.get_runtime_context().get_node_id()
    names = [node.name for node in selected(federation, cluster_nodes()) if node.cpus > 0]
    return sorted(names, key=lambda name: (name != here, name))


def await_nodes(engine: EngineConfig) -> None:
    """Until `engine.min_nodes` are there. Raises PlacementError after `engine.wait_nodes` seconds."""
    deadline = time.monotonic() + engine.wait_nodes
    while (there := len(alive())) < engine.min_nodes:
        if time.monotonic() > deadline:
            raise PlacementError(
                f"{there} of {engine.min_nodes} nodes (engine.min_nodes) are there after {engine.wait_nodes:g} s "
                "(engine.wait_nodes); start the others, or ask for fewer"
            )
        time.sleep(_POLL)


def plan_beside_others(make: Callable[[list[Node]], Plan], ours: Iterable[Identity], limit: float) -> Plan:
    """A plan with what others leave: at once where that makes no difference, else once it stays so for a moment.

    Where they leave too little, they are waited for. Raises PlacementError where the whole cluster does not do, at
    once, and where what they leave does not within so many seconds.
    """
    began, ours = time.monotonic(), list(ours)
    wished = make(cluster_nodes())
    while True:
        waited = time.monotonic() - began
        try:
            found = make(free_nodes(ours))
            if len(found.seats) == len(wished.seats) or waited > min(_RELEASE, limit):
                return found
        except PlacementError as error:
            if waited > limit:
                raise PlacementError(f"{error}; waited for others for {limit:g} s (engine.start_timeout)") from None
        time.sleep(_POLL)

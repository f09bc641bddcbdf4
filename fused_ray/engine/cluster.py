"""What the cluster that this process is connected to has."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, placement_group_table

from fused_ray.engine.placement import Node


def cluster_nodes() -> list[Node]:
    """The live nodes, each with all that it has."""
    return [
        Node(
            n["NodeID"],
            n["Resources"].get("CPU", 0.0),
            n["Resources"].get("GPU", 0.0),
            n["Resources"].get("memory", 0.0),
        )
        for n in ray.nodes()
        if n["Alive"]
    ]


def group_nodes(group: PlacementGroup) -> list[Node]:
    """The part of each live node that a placement group has reserved; memory is shared out by CPU cores."""
    nodes = {node.name: node for node in cluster_nodes()}
    held: dict[str, Node] = {}
    for index, name in placement_group_table(group)["bundles_to_node_id"].items():
        if name in nodes:  # a bundle of a lost node is being placed anew
            bundle, node = group.bundle_specs[index], nodes[name]
            had = held.get(name, Node(name, 0.0, 0.0, 0.0))
            cpus = bundle.get("CPU", 0.0)
            memory = node.memory * cpus / max(node.cpus, 1.0)
            held[name] = Node(name, had.cpus + cpus, had.gpus + bundle.get("GPU", 0.0), had.memory + memory)
    return list(held.values())


def alive() -> set[str]:
    """The names of the live nodes; one that has just gone is among them until that is noticed."""
    return {n["NodeID"] for n in ray.nodes() if n["Alive"]}

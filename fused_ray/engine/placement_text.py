"""A placement for people: what each node gets and what is left of it. Nothing is started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fused_ray.config import RunConfig
from fused_ray.engine.placement import ACTOR_BYTES, Node, Plan, plan, selected, told
from fused_ray.errors import PlacementError


@dataclass(frozen=True)
class Part:
    """What a node has of a plan."""

    node: Node
    actors: int
    cpus: float
    """CPU cores of each actor."""
    gpus: float
    clients: tuple[int, int]
    """Of its actors: the fewest and the most."""
    at_once: int
    """Actors that work at once."""


def placement_lines(config: RunConfig, examples: Sequence[int], nodes: Sequence[Node]) -> list[str]:
    """Where the actors of clients with these many examples would be, line by line. Raises PlacementError.

    The memory of an actor is the most that it may take: what it is planned with, and its cache of the frozen part.
    """
    found = _plan(config, examples, nodes)
    cache = min(found.cache, config.engine.prefix_cache_mb * 1e6)
    parts = [part for part in _parts(found, nodes) if part.actors]
    used = {part.node.name for part in parts}
    sizes = sorted(map(len, found.clients))
    lines = [
        f"{_count(len(examples), 'client')} in {_count(len(sizes), 'actor')} ({_range(sizes[0], sizes[-1])} each) on "
        f"{len(used)} of {_count(len(nodes), 'node')}"
    ]
    lines += [_line(alike, cache) for alike in _alike(parts)]
    if idle := [node for node in nodes if node.name not in used]:
        lines.append(f"no actor on {_names(idle)}{_why(config, found, nodes)}")
    cpus = sum(node.cpus for node in nodes) - sum(seat.cpus for seat in found.seats)
    gpus = sum(node.gpus for node in nodes) - sum(seat.gpus for seat in found.seats)
    lines.append(f"left over: {_amount(cpus)} CPU, {_amount(gpus)} GPU{_others(nodes)}")
    return lines


def placed(config: RunConfig, examples: Sequence[int], nodes: Sequence[Node]) -> dict[str, Any]:
    """The same in plain values, nodes without an actor among them. Raises PlacementError."""
    found = _plan(config, examples, nodes)
    parts = {part.node.name: part for part in _parts(found, nodes)}
    cache = min(found.cache, config.engine.prefix_cache_mb * 1e6)
    return {
        "clients": len(examples),
        "actors": len(found.clients),
        "bytes_of_actor": ACTOR_BYTES + cache,
        "nodes": [
            {
                **{
                    name: getattr(node, name)
                    for name in ("name", "cpus", "gpus", "memory", "others_cpus", "others_gpus")
                },
                "actors": part.actors if part else 0,
                "cpus_of_actor": part.cpus if part else None,
                "gpus_of_actor": part.gpus if part else None,
                "clients_of_actor": list(part.clients) if part else None,
                "at_once": part.at_once if part else 0,
            }
            for node in nodes
            for part in [parts.get(node.name)]
        ],
    }


def _plan(config: RunConfig, examples: Sequence[int], nodes: Sequence[Node]) -> Plan:
    """With what others leave. Raises PlacementError, which tells where a run would wait for them."""
    try:
        return plan(config.federation, examples, nodes)
    except PlacementError as error:
        whole = [replace(n, cpus=n.cpus + n.others_cpus, gpus=n.gpus + n.others_gpus) for n in nodes]
        try:
            plan(config.federation, examples, whole)
        except PlacementError:
            raise error from None
        limit = config.engine.start_timeout
        raise PlacementError(f"{error}; a run waits up to {limit:g} s (engine.start_timeout) for others") from None


def _parts(found: Plan, nodes: Sequence[Node]) -> list[Part]:
    """By node, in the order given."""
    held: dict[str, list[int]] = defaultdict(list)
    share = {seat.node: seat for seat in found.seats}
    for seat, clients in zip(found.seats, found.clients, strict=True):
        held[seat.node].append(len(clients))
    return [
        Part(node, len(own), share[node.name].cpus, share[node.name].gpus, (min(own), max(own)), found.room[node.name])
        for node in nodes
        if (own := held[node.name])
    ]


def _alike(parts: Sequence[Part]) -> list[list[Part]]:
    """Nodes with the same offer that get the same."""
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        groups[repr(replace(part, node=replace(part.node, name=""), clients=(0, 0)))].append(part)
    return list(groups.values())


def _line(alike: Sequence[Part], cache: float) -> str:
    part, each = alike[0], " each" if len(alike) > 1 else ""
    node, memory = part.node, ACTOR_BYTES + cache
    fewest, most = min(p.clients[0] for p in alike), max(p.clients[1] for p in alike)
    gpus = f" + {_amount(part.gpus)} GPU" if part.gpus else ""
    at_once = f", {part.at_once} at once" if part.at_once < part.actors else ""
    left = f"{_amount(node.cpus - part.actors * part.cpus)} CPU"
    left += f", {_amount(node.gpus - part.actors * part.gpus)} GPU" if node.gpus else ""
    return (
        f"{_names([p.node for p in alike])} ({_offer(node)}): {_count(part.actors, 'actor')}{each}{at_once}, an actor "
        f"with {_amount(part.cpus)} CPU{gpus}, {_range(fewest, most)} {'client' if most == 1 else 'clients'} and up to "
        f"{memory / 1e9:.1f} GB; left: {left}, {(node.memory - part.actors * memory) / 1e9 + 0:.1f} GB"
    )


def _offer(node: Node) -> str:
    gpus = f", {_amount(node.gpus)} GPU" if node.gpus else ""
    labels = {key: value for key, value in node.labels.items() if not key.startswith("ray.io/")}
    return f"{_amount(node.cpus)} CPU{gpus}, {node.memory / 1e9:.1f} GB" + (f", {told(labels)}" if labels else "")


def _names(nodes: Sequence[Node]) -> str:
    first = nodes[0].name
    return first if len(nodes) == 1 else f"{first} and {len(nodes) - 1} alike"


def _why(config: RunConfig, found: Plan, nodes: Sequence[Node]) -> str:
    """Why nodes have no actor, as far as it is a rule."""
    reasons = []
    if len(selected(config.federation, nodes)) < len(nodes):
        reasons.append(f"actors go to nodes with {told(config.federation.actor_labels)}")
    if found.on_gpus and any(node.gpus + node.others_gpus == 0 for node in nodes):
        reasons.append("actors have GPUs")
    return f": {', and '.join(reasons)}" if reasons else ""


def _others(nodes: Sequence[Node]) -> str:
    cpus, gpus = sum(node.others_cpus for node in nodes), sum(node.others_gpus for node in nodes)
    return f" (others hold {_amount(cpus)} CPU and {_amount(gpus)} GPU beside)" if cpus or gpus else ""


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def _amount(value: float) -> str:
    return f"{round(value, 4) + 0:g}"


def _range(fewest: int, most: int) -> str:
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"

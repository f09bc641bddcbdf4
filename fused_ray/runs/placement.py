"""Where a run's actors would be, on a cluster that is there or only described. Nothing is started."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from fused_ray.config import RunConfig
from fused_ray.data import datasets, scenarios
from fused_ray.engine.cluster_text import nodes_of
from fused_ray.engine.placement import Node
from fused_ray.engine.placement_text import placed, placement_lines
from fused_ray.runs.screen import make_screen


def show(config: RunConfig, cluster: str) -> None:
    """Print it line by line. `cluster` are nodes in words (`engine.cluster_text`), or `auto` for those that are there.

    Raises PlacementError where the actors do not fit or the words are none, SessionError where no cluster is there.
    """
    screen = make_screen()
    for line in placement_lines(config, *_given(config, cluster)):
        screen.tell(line)


def described(config: RunConfig, cluster: str) -> dict[str, Any]:
    """The same in plain values."""
    return placed(config, *_given(config, cluster))


def _given(config: RunConfig, cluster: str) -> tuple[list[int], list[Node]]:
    """The clients' examples, and the nodes."""
    nodes = _live(config.engine.address) if cluster == "auto" else nodes_of(cluster)
    data = datasets.load(config.data, config.seed)
    examples: list[int] = scenarios.build(config, data).held.sizes.tolist()
    return examples, nodes


def _live(address: str | None) -> list[Node]:
    """The nodes that are there, with what others leave of them, by numbers and the begin of their names."""
    from fused_ray.engine.cluster import free_nodes
    from fused_ray.engine.session import session

    with session(address or os.environ.get("RAY_ADDRESS") or "auto"):
        nodes = free_nodes()
    return [replace(node, name=f"node {number} ({node.name[:8]})") for number, node in enumerate(nodes, 1)]

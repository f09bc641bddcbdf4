"""A cluster that need not be there, from a line of text: 1x4c, 2x8c/1g/32GB."""

from __future__ import annotations

import re
from dataclasses import replace

from fused_ray.engine.placement import Node
from fused_ray.errors import PlacementError

CORE_BYTES = 4e9
"""Memory a core of a node of which none is told, bytes; a node without cores has as much as one with one."""
_MOST = 10_000
"""Nodes."""
_FORM = (
    "write nodes as [COUNTx]CORESc[/GPUSg][/MEMORYGB][/LABEL=VALUE], and what others hold as /-CORESc or /-GPUSg, such "
    "as 1x4c, 2x8c/1g/32GB/zone=a/-2c"
)
_NUMBER = r"(\d{1,6}(?:\.\d{1,4})?)"


def nodes_of(text: str) -> list[Node]:
    """The nodes that a text describes. Raises PlacementError with one line where it is none of that form."""
    found: list[Node] = []
    for item in text.split(","):
        count, node = _item(item.strip())
        if len(found) + count > _MOST:
            raise PlacementError(f"--cluster: more than {_MOST:,} nodes; {_FORM}")
        found += [replace(node, name=f"node {len(found) + number + 1}") for number in range(count)]
    return found


def _item(item: str) -> tuple[int, Node]:
    """How many nodes there are of a kind, and one of it."""
    match = re.fullmatch(rf"(?:(\d{{1,6}})x)?{_NUMBER}c((?:/[^/]+)*)", item)
    if match is None or match[1] == "0":
        raise PlacementError(f"--cluster: {item!r}: {_FORM}")
    node = Node("", float(match[2]), 0.0, max(1.0, float(match[2])) * CORE_BYTES)
    for part in match[3].split("/")[1:]:
        node = _with(node, part, item)
    if min(node.cpus, node.gpus) < 0:
        raise PlacementError(f"--cluster: {item!r}: others hold more than there is")
    return int(match[1] or 1), node


def _with(node: Node, part: str, item: str) -> Node:
    key, equals, value = part.partition("=")
    if equals and key and value:
        return replace(node, labels={**node.labels, key: value})
    match = re.fullmatch(rf"(-?){_NUMBER}(c|g|GB|MB)", part)
    held, amount, unit = match.groups() if match else ("", "0", "")
    if held and unit == "c":
        return replace(node, cpus=node.cpus - float(amount), others_cpus=node.others_cpus + float(amount))
    if held and unit == "g":
        return replace(node, gpus=node.gpus - float(amount), others_gpus=node.others_gpus + float(amount))
    if not held and unit == "g":
        return replace(node, gpus=node.gpus + float(amount))
    if not held and unit in ("GB", "MB"):
        return replace(node, memory=float(amount) * (1e9 if unit == "GB" else 1e6))
    raise PlacementError(f"--cluster: {item!r}: {part!r} is no part of a node; {_FORM}")

"""What a user reads of a placement, and the words for a cluster that is not there."""

from __future__ import annotations

import pytest

from fused_ray import RunConfig
from fused_ray.engine.cluster_text import nodes_of
from fused_ray.engine.placement import Node
from fused_ray.engine.placement_text import placement_lines
from fused_ray.errors import PlacementError


def lines(cluster: str, clients: int, *fields: str) -> list[str]:
    return placement_lines(RunConfig.from_dict({}, fields), [100] * clients, nodes_of(cluster))


def test_a_cluster_in_words() -> None:
    assert nodes_of("1x4c, 2x8c/1g/32GB/zone=a/kind=spot/-2c,0c") == [
        Node("node 1", 4.0, 0.0, 16e9),
        Node("node 2", 6.0, 1.0, 32e9, others_cpus=2.0, labels={"zone": "a", "kind": "spot"}),
        Node("node 3", 6.0, 1.0, 32e9, others_cpus=2.0, labels={"zone": "a", "kind": "spot"}),
        Node("node 4", 0.0, 0.0, 4e9),
    ]
    assert nodes_of("0.5c/500MB/2g/-1g") == [Node("node 1", 0.5, 1.0, 5e8, others_gpus=1.0)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'': write nodes as"),
        ("4", "'4': write nodes as"),
        ("4c,", "'': write nodes as"),
        ("0x4c", "'0x4c': write nodes as"),
        ("4c//1g", "'4c//1g': write nodes as"),
        ("4c/1", "'4c/1': '1' is no part of a node"),
        ("4c/-3GB", "'4c/-3GB': '-3GB' is no part of a node"),
        ("4c/=a", "'4c/=a': '=a' is no part of a node"),
        ("4c/-5c", "'4c/-5c': others hold more than there is"),
        ("6000x1c, 6000x1c", "more than 10,000 nodes"),
    ],
)
def test_other_words_are_refused_with_the_form(text: str, complaint: str) -> None:
    with pytest.raises(PlacementError) as refused:
        nodes_of(text)
    assert str(refused.value).startswith(f"--cluster: {complaint}")
    assert "\n" not in str(refused.value)


def test_each_node_is_told_with_what_is_left_of_it() -> None:
    assert lines("4c/10GB, 2x8c/20GB", 25) == [
        "25 clients in 20 actors (1 to 2 each) on 3 of 3 nodes",
        # 10 GB / 4 and 20 GB / 8: 2.5 GB an actor, of which the cache takes .3 GB less but no more than 2.048 GB
        "node 1 (4 CPU, 10.0 GB): 4 actors, an actor with 1 CPU, 2 clients and up to 2.3 GB; left: 0 CPU, 0.6 GB",
        "node 2 and 1 alike (8 CPU, 20.0 GB): 8 actors each, an actor with 1 CPU, 1 to 2 clients and up to 2.3 GB; "
        "left: 0 CPU, 1.2 GB",
        "left over: 0 CPU, 0 GPU",
    ]


def test_shares_of_gpus_what_others_hold_and_nodes_without_actors_are_told() -> None:
    found = lines("4c, 4c/2g/-1c/12GB/zone=a", 8, "federation.clients_per_actor=1", "federation.actor_labels={zone: a}")
    assert found == [
        "8 clients in 8 actors (1 each) on 1 of 2 nodes",
        # 12 GB / 8 = 1.5 GB an actor; 3 cores and 2 GPUs for 8
        "node 2 (3 CPU, 2 GPU, 12.0 GB, zone=a): 8 actors, an actor with 0.375 CPU + 0.25 GPU, 1 client and up to "
        "1.5 GB; left: 0 CPU, 0 GPU, 0.0 GB",
        "no actor on node 1: actors go to nodes with zone=a, and actors have GPUs",
        "left over: 4 CPU, 0 GPU (others hold 1 CPU and 0 GPU beside)",
    ]


def test_actors_that_take_turns_are_told() -> None:
    assert (
        "6 actors, 2 at once, an actor with 0.3333 CPU, 1 client" in lines("2c", 6, "federation.clients_per_actor=1")[1]
    )


def test_where_a_run_would_wait_for_others_is_told() -> None:
    with pytest.raises(PlacementError, match=r"hold 0 such actors;.*; a run waits up to 180 s .engine\.start_timeout."):
        lines("4c/-4c", 8)
    with pytest.raises(PlacementError, match=r"hold 0 such actors; raise.*actor_gpus$"):
        lines("4c/-4c", 8, "federation.actor_gpus=1")

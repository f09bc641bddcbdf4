"""Placement is arithmetic: every client once, on actors that fit, or a refusal that shows the sum."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_ray.config import FederationConfig
from fused_ray.engine.placement import ACTOR_BYTES, Node, fitting, plan, shares, wish
from fused_ray.errors import PlacementError

GB = 1e9
EVEN = [100] * 50


def federation(**values):
    return FederationConfig(**values)


def nodes(*offers):
    """Nodes of (cores, cards, bytes of memory, what others hold), 64 GB where memory is left out."""
    return [Node(f"node {i}", *([*offer, 64 * GB] if len(offer) == 2 else offer)) for i, offer in enumerate(offers)]


def sizes(found):
    return sorted(len(clients) for clients in found.clients)


def shares_of(found):
    return {(seat.cpus, seat.gpus) for seat in found.seats}


def assert_every_client_once(found, count):
    assert sorted(client for clients in found.clients for client in clients) == list(range(count))


# -- cores


def test_fifty_clients_on_two_cores_share_two_actors():
    found = plan(federation(), EVEN, nodes((2, 0)))
    assert sizes(found) == [25, 25]
    assert shares_of(found) == {(1.0, 0.0)}
    assert_every_client_once(found, 50)


def test_actors_hold_about_as_many_examples_each():
    examples = [10 * (client + 1) for client in range(50)]
    found = plan(federation(), examples, nodes((2, 0)))
    loads = [sum(examples[client] for client in clients) for clients in found.clients]
    assert sizes(found) == [25, 25]
    assert max(loads) - min(loads) <= max(examples)


def test_every_client_has_an_actor_where_there_are_cores_enough():
    found = plan(federation(), EVEN, nodes((32, 0), (32, 0)))
    assert sizes(found) == [1] * 50
    assert shares_of(found) == {(1.0, 0.0)}


def test_the_cores_of_all_nodes_count_and_no_core_spans_two():
    assert sizes(plan(federation(), EVEN, nodes((2, 0), (3, 0)))) == [10] * 5
    assert len(plan(federation(actor_cpus=2), EVEN, nodes((3, 0), (3, 0))).clients) == 2


@pytest.mark.parametrize(
    ("per_actor", "actors", "share"), [(1, 50, 0.04), (7, 8, 0.25), (50, 1, 1.0), (60, 1, 1.0), (25, 2, 1.0)]
)
def test_a_given_number_of_clients_an_actor_is_kept_and_cores_are_shared(per_actor, actors, share):
    found = plan(federation(clients_per_actor=per_actor), EVEN, nodes((2, 0)))
    assert len(found.clients) == actors
    assert max(sizes(found)) <= per_actor
    assert shares_of(found) == {(share, 0.0)}
    assert_every_client_once(found, 50)


def test_more_cores_than_there_are_are_refused_with_the_sum():
    with pytest.raises(PlacementError, match=r"50 clients in 50 actors need 50 x \(1 CPU \+ 0 GPU\).* hold 4 such"):
        plan(federation(clients_per_actor=1, actor_cpus=1), EVEN, nodes((2, 0), (2, 0)))


# -- cards


def test_the_cards_are_taken_where_there_are_any():
    found = plan(federation(), EVEN, nodes((64, 4)))
    assert sizes(found) == [12, 12, 13, 13]
    assert shares_of(found) == {(1.0, 1.0)}


def test_fifty_actors_share_four_cards():
    found = plan(federation(clients_per_actor=1), EVEN, nodes((64, 4)))
    assert sizes(found) == [1] * 50
    assert shares_of(found) == {(1.0, 0.0769)}  # 13 to a card
    assert 4 * math.floor(1 / 0.0769) >= 50


def test_given_fractions_fill_each_card_by_itself():
    found = plan(federation(actor_gpus=0.25), EVEN, nodes((64, 2), (64, 1)))
    assert len(found.clients) == 12
    assert {gpus for _, gpus in shares_of(found)} == {0.25}
    assert_every_client_once(found, 50)


def test_a_fraction_that_would_span_two_cards_is_refused_with_the_sum():
    two_cards = nodes((16, 2))  # 2 + 2 actors of 0.4 fit, although 5 x 0.4 is 2
    with pytest.raises(PlacementError, match=r"need 5 x \(1 CPU \+ 0.4 GPU\).* 2 GPU hold 4 such actors"):
        plan(federation(clients=5, clients_per_actor=1, actor_gpus=0.4), [9] * 5, two_cards)
    assert len(plan(federation(clients=5, actor_gpus=0.4), [9] * 5, two_cards).clients) == 4
    assert len(plan(federation(clients=4, clients_per_actor=1, actor_gpus=0.4), [9] * 4, two_cards).clients) == 4


@pytest.mark.parametrize("per_actor", ["auto", 1, 50])
def test_one_and_a_half_cards_are_refused(per_actor):
    with pytest.raises(PlacementError, match=r"1.5 GPU\).* hold 0 such actors"):
        plan(federation(clients_per_actor=per_actor, actor_gpus=1.5), EVEN, nodes((64, 8)))


def test_whole_cards_are_granted():
    found = plan(federation(actor_gpus=2), EVEN, nodes((64, 4), (64, 3)))
    assert (len(found.clients), shares_of(found)) == (3, {(1.0, 2.0)})


@pytest.mark.parametrize("per_actor", ["auto", 1, 50])
def test_a_card_is_refused_where_there_is_none(per_actor):
    with pytest.raises(PlacementError, match=r"1 GPU\), but the 1 node\(s\) with 64 CPU and 0 GPU hold 0"):
        plan(federation(clients_per_actor=per_actor, actor_gpus=1), EVEN, nodes((64, 0)))


def test_cards_can_be_left_alone():
    found = plan(federation(actor_gpus=0), EVEN, nodes((2, 4)))
    assert (len(found.clients), shares_of(found)) == (2, {(1.0, 0.0)})


# -- memory


def test_actors_are_packed_into_the_memory_there_is():
    found = plan(federation(), EVEN, nodes((64, 0, 3.5 * ACTOR_BYTES)))
    assert sizes(found) == [16, 17, 17]


def test_more_actors_than_the_memory_holds_are_refused_with_the_sum():
    with pytest.raises(
        PlacementError, match=r"50 actors of 300 MB need 15.0 GB, but the nodes' memory \(2.0 GB\) holds 6"
    ):
        plan(federation(clients_per_actor=1), EVEN, nodes((64, 0, 2 * GB)))


# -- properties

OFFER = st.tuples(st.integers(1, 16), st.integers(0, 4), st.floats(1e8, 1e10))
FEDERATION = st.builds(
    FederationConfig,
    clients_per_actor=st.integers(1, 30) | st.just("auto"),
    actor_cpus=st.floats(0.01, 4) | st.just("auto"),
    actor_gpus=st.floats(1e-4, 3)
    | st.just(0.0)
    | st.sampled_from([0.1, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.5, 1, 2])
    | st.just("auto"),
)


@given(FEDERATION, st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.lists(OFFER, min_size=1, max_size=4))
def test_a_plan_fits_and_holds_every_client_once(wanted, examples, offers):
    there = nodes(*offers)
    try:
        found = plan(wanted, examples, there)
    except PlacementError:
        return
    assert_every_client_once(found, len(examples))
    assert all(found.clients)
    assert max(sizes(found)) <= math.ceil(len(examples) / len(found.clients))
    if wanted.clients_per_actor != "auto":
        assert max(sizes(found)) <= wanted.clients_per_actor
    assert len(found.seats) == len(found.clients)
    for node in there:
        seats = [seat for seat in found.seats if seat.node == node.name]
        assert len(set(seats)) <= 1
        for seat in seats[:1]:
            assert wanted.actor_cpus in ("auto", seat.cpus)
            assert wanted.actor_gpus in ("auto", seat.gpus)
            assert len(seats) <= packed(seat, node)
            assert len(seats) * (ACTOR_BYTES + found.cache) <= node.memory * (1 + 1e-9)


def packed(seat, node):
    """How many actors with a seat's shares can be put on a node, one after the other, card by card."""
    count, cores, cards = 0, node.cpus, [1.0] * int(node.gpus)
    while cores >= seat.cpus - 1e-6:
        if seat.gpus > 1:
            if seat.gpus != int(seat.gpus) or len(cards) < seat.gpus:
                break
            cards = cards[int(seat.gpus) :]
        elif seat.gpus:
            free = [i for i, card in enumerate(cards) if card >= seat.gpus - 1e-6]
            if not free:
                break
            cards[free[0]] -= seat.gpus
        cores -= seat.cpus
        count += 1
    return count


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 16))
def test_every_client_is_placed_once_on_at_most_as_many_actors_as_cores(examples, cores):
    found = plan(federation(), examples, nodes((cores, 0)))
    assert len(found.clients) == min(len(examples), cores)
    assert_every_client_once(found, len(examples))


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 500))
def test_equal_clients_are_spread_evenly(count, cores, examples):
    found = sizes(plan(federation(), [examples] * count, nodes((cores, 0))))
    assert len(found) == min(count, cores)
    assert found[-1] - found[0] <= 1


def test_cores_of_nodes_without_cards_do_not_count_where_actors_have_gpus():
    found = plan(federation(actor_gpus=0.1), [100] * 10, nodes((8, 0), (4, 1)))
    assert len(found.clients) == 10
    assert shares_of(found) == {(0.4, 0.1)}


# -- twelve clusters: actors and their shares by node, or why not

HEAD = (4, 0)
CLUSTERS = {
    "one laptop": ([(8, 0)], {}, 50, {"node 0": (8, 1.0, 0.0)}),
    "uneven nodes take actors by their cores": (
        *([(4, 0), (16, 0), (2, 0)], {}, 11),
        {"node 0": (2, 1.0, 0.0), "node 1": (8, 1.0, 0.0), "node 2": (1, 1.0, 0.0)},
    ),
    "fractions of cores, from the node itself": (
        *([(2, 0), (6, 0)], {"clients_per_actor": 1}, 16),
        {"node 0": (4, 0.5, 0.0), "node 1": (12, 0.5, 0.0)},
    ),
    "a GPU node among ten of cores: the cores": (
        *([(8, 1)] + [(64, 0)] * 10, {}, 700),
        {"node 0": (8, 1.0, 0.0)} | {f"node {i}": (64, 1.0, 0.0) for i in range(1, 11)},
    ),
    "GPUs that are worth more than the other nodes' cores": (
        *([(8, 4), (32, 0)], {}, 50),
        {"node 0": (4, 1.0, 1.0)},
    ),
    "a quarter of a GPU each, and fewer cores than actors": (
        *([(4, 8)], {"actor_gpus": 0.25}, 32),
        {"node 0": (32, 0.125, 0.25)},
    ),
    "GPUs with few and with many cores": (
        *([(8, 4), (32, 4)], {"clients_per_actor": 1}, 50),
        {"node 0": (25, 0.32, 0.1428), "node 1": (25, 1.0, 0.1428)},
    ),
    "a head without GPUs holds no actor": (
        *([HEAD, (16, 2), (16, 2)], {}, 12),
        {"node 1": (2, 1.0, 1.0), "node 2": (2, 1.0, 1.0)},
    ),
    "a head without cores": ([(0, 0), (4, 0)], {}, 12, {"node 1": (4, 1.0, 0.0)}),
    "little memory on one node": (
        *([(8, 0, 2.5 * ACTOR_BYTES), (8, 0)], {}, 16),
        {"node 0": (2, 1.0, 0.0), "node 1": (8, 1.0, 0.0)},
    ),
    "what others hold is left to them": (
        *([(1, 0, 64 * GB, 7, 0), (8, 0)], {}, 50),
        {"node 0": (1, 1.0, 0.0), "node 1": (8, 1.0, 0.0)},
    ),
    "others hold all": (
        *([(0, 0, 64 * GB, 8, 0), (0, 2, 64 * GB, 16, 2)], {"actor_gpus": 0}, 50),
        "50 clients in 1 actors need 1 x (1 CPU + 0 GPU), but the 2 node(s) with 0 CPU and 2 GPU (others hold 24 CPU "
        "and 2 GPU) hold 0 such actors",
    ),
}


@pytest.mark.parametrize(("offers", "wanted", "clients", "expected"), CLUSTERS.values(), ids=CLUSTERS)
def test_a_cluster(offers, wanted, clients, expected):
    if isinstance(expected, str):
        with pytest.raises(PlacementError) as refused:
            plan(federation(**wanted), [100] * clients, nodes(*offers))
        assert str(refused.value).startswith(expected)
        return
    found = plan(federation(**wanted), [100] * clients, nodes(*offers))
    seats = Counter(found.seats)
    assert {seat.node: (count, seat.cpus, seat.gpus) for seat, count in seats.items()} == expected
    assert_every_client_once(found, clients)
    for node, (count, _, gpus) in expected.items():  # all of a node's GPU actors work at once, else one a core
        assert min(count, found.room[node]) == (count if gpus else min(count, int(dict(named(offers))[node][0])))


def named(offers):
    return [(f"node {i}", offer) for i, offer in enumerate(offers)]


def test_nobody_computes_on_cores_because_others_hold_the_gpus():
    with pytest.raises(PlacementError, match=r"8 CPU and 0.5 GPU .others hold 0 CPU and 1.5 GPU. hold 0 such"):
        plan(federation(), EVEN, nodes((8, 0.5, 64 * GB, 0, 1.5)))


def test_the_caches_of_a_nodes_actors_fit_into_its_memory():
    found = plan(federation(), EVEN, nodes((4, 0, 4 * GB), (2, 0, 6 * GB)))
    assert found.cache == 1 * GB - ACTOR_BYTES


# -- even shares for trials that run at once


def test_shares_are_even_and_whole() -> None:
    found = shares(nodes((5, 0), (2, 0)), 3, with_gpus=False)
    assert [[(n.name, n.cpus, n.gpus) for n in share] for share in found] == [
        [("node 0", 2.0, 0.0)],
        [("node 0", 2.0, 0.0)],
        [("node 0", 1.0, 0.0), ("node 1", 1.0, 0.0)],
    ]
    assert found[0][0].memory == pytest.approx(64 * GB * 2 / 5)


def test_shares_of_gpus_take_their_part_of_the_cores_along() -> None:
    (one, two) = shares(nodes((9, 2), (16, 0)), 2, with_gpus=True)
    assert [(n.name, n.cpus, n.gpus) for n in (*one, *two)] == [("node 0", 4.0, 1.0)] * 2


def test_more_shares_than_cores_are_refused() -> None:
    with pytest.raises(PlacementError, match="3 trials at a time need 3 whole CPUs, but the 1 node"):
        shares(nodes((2, 0)), 3, with_gpus=False)
    with pytest.raises(PlacementError, match="need 2 whole GPUs"):
        shares(nodes((64, 1)), 2, with_gpus=True)


@given(offers=st.lists(st.integers(1, 9), min_size=1, max_size=5), count=st.integers(1, 12))
def test_shares_fit_beside_each_other(offers: list[int], count: int) -> None:
    there_are = nodes(*((cores, 0) for cores in offers))
    if count > sum(offers):
        with pytest.raises(PlacementError):
            shares(there_are, count, with_gpus=False)
        return
    found = shares(there_are, count, with_gpus=False)
    assert {sum(node.cpus for node in share) for share in found} == {sum(offers) // count}
    for node in there_are:
        assert sum(part.cpus for share in found for part in share if part.name == node.name) <= node.cpus


# -- labels


def labelled(*labels):
    """Nodes of four cores with these labels."""
    return [replace(node, labels=own) for node, own in zip(nodes(*[(4, 0)] * len(labels)), labels, strict=True)]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ({}, [0, 1, 2, 3]),
        ({"zone": "a"}, [0, 1]),
        ({"zone": "!a"}, [2, 3]),
        ({"zone": "in(a, b)"}, [0, 1, 2]),
        ({"zone": "!in(a, b)"}, [3]),
        ({"zone": "a", "kind": "spot"}, [1]),
    ],
)
def test_actors_go_to_the_nodes_with_the_labels_alone(wanted, chosen):
    there = labelled({"zone": "a"}, {"zone": "a", "kind": "spot"}, {"zone": "b"}, {})
    found = plan(federation(actor_labels=wanted), EVEN, there)
    assert Counter(seat.node for seat in found.seats) == {f"node {number}": 4 for number in chosen}
    assert_every_client_once(found, 50)


def test_gpus_of_nodes_without_the_labels_do_not_count():
    there = [replace(node, labels={"zone": zone}) for node, zone in zip(nodes((8, 0), (8, 8)), "ab", strict=True)]
    assert plan(federation(), EVEN, there).on_gpus
    found = plan(federation(actor_labels={"zone": "a"}), EVEN, there)
    assert (shares_of(found), found.room) == ({(1.0, 0.0)}, {"node 0": 8})


def test_labels_that_no_node_has_are_refused_with_those_that_there_are():
    with pytest.raises(
        PlacementError,
        match=r"^federation\.actor_labels: none of 3 node\(s\) has zone=c, kind=spot: zone is a or b or unset, kind is "
        r"unset; change the labels, or start such a node",
    ):
        plan(federation(actor_labels={"zone": "c", "kind": "spot"}), EVEN, labelled({"zone": "a"}, {"zone": "b"}, {}))


def test_shares_keep_the_labels():
    there = labelled({"zone": "a"}, {"zone": "b"})
    assert [[part.labels for part in share] for share in shares(there, 2, False)] == [[{"zone": "a"}], [{"zone": "b"}]]


@pytest.mark.parametrize("labels", [{"zone ": "a"}, {"": "a"}, {"zone": ""}, {"zone": "in()"}, {"zone": "!!a"}])
def test_a_selector_that_ray_would_not_read_is_refused(labels):
    with pytest.raises(ValueError, match=r"is no (name|value) of a label; write such as"):
        federation(actor_labels=labels)


# -- what an autoscaler is asked for


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, (50, {"CPU": 1.0})),
        ({"clients_per_actor": 7}, (8, {"CPU": 1.0})),
        ({"actor_cpus": 0.5}, (50, {"CPU": 0.5})),
        ({"actor_gpus": 0.25}, (50, {"GPU": 0.25})),
        ({"actor_cpus": 2, "actor_gpus": 1}, (50, {"CPU": 2.0, "GPU": 1.0})),
    ],
)
def test_a_wish_is_an_actor_for_every_client_or_pack(wanted, expected):
    assert wish(federation(clients=50, **wanted)) == expected


def test_what_fits_is_counted_on_the_nodes_with_the_labels():
    there = labelled({"zone": "a"}, {"zone": "b"})
    assert fitting(federation(), there) == 8
    assert fitting(federation(actor_cpus=1.5, actor_labels={"zone": "a"}), there) == 2
    assert fitting(federation(actor_labels={"zone": "c"}), there) == 0
    assert fitting(federation(actor_gpus=0.4), nodes((4, 2))) == 4  # two on each GPU

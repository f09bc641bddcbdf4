"""Critical layers: hand-computed sensitivities and their order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_ray.core.layers import (
    Sensitivity,
    allocate,
    choose,
    density_count,
    distances,
    layer_parameters,
    layer_vector,
    rank,
    sensitivities,
)
from fused_ray.types import ClientReport

LAYERS = ("A", "B")
BEFORE = {"A.weight": np.array([[1, 2], [3, 4]], np.float32), "A.bias": np.zeros(2, np.float32)}
BEFORE |= {"B.weight": np.array([1, -1], np.float32)}
ONE = {"A.weight": np.array([[1.1, 2], [3, 3.8]], np.float32), "A.bias": np.array([0.1, 0], np.float32)}
ONE |= {"B.weight": np.array([1.2, -1], np.float32)}
TWO = {"A.weight": np.array([[1, 1.6], [3.4, 4]], np.float32), "A.bias": np.array([0, -0.4], np.float32)}
TWO |= {"B.weight": np.array([1, -1.4], np.float32)}
ENTRIES = {"A": 6, "B": 2}


def report(client, examples, found):
    return ClientReport(client, examples, 0.0, 0.0, 0.0, 0.0, 0, found)


def reports():
    return [report(0, 30, distances(ONE, BEFORE, LAYERS)), report(1, 10, distances(TWO, BEFORE, LAYERS))]


def test_distances_are_the_l1_norms_of_change_and_layer():
    assert np.allclose(distances(ONE, BEFORE, LAYERS), [0.4, 10, 0.2, 2], atol=1e-6)
    assert np.allclose(distances(TWO, BEFORE, LAYERS), [1.2, 10, 0.4, 2], atol=1e-6)


def test_sensitivities_of_two_layers_by_hand():
    a, b = sensitivities(reports(), LAYERS, ENTRIES)
    assert (a.layer, b.layer) == LAYERS
    assert (a.sum, a.mean, a.relative) == pytest.approx((0.6, 0.1, 0.06), abs=1e-6)
    assert (b.sum, b.mean, b.relative) == pytest.approx((0.25, 0.125, 0.125), abs=1e-6)


def test_the_sum_and_the_mean_rank_the_layers_in_opposite_order():
    found = sensitivities(reports(), LAYERS, ENTRIES)
    assert [item.layer for item in rank(found, "sum", None)] == ["A", "B"]
    assert [item.layer for item in rank(found, "mean", None)] == ["B", "A"]
    assert [item.layer for item in rank(found, "relative", None)] == ["B", "A"]


def test_the_input_layer_comes_last_unless_it_is_a_candidate():
    found = [Sensitivity("in", 9, 9, 9), Sensitivity("mid", 1, 1, 1), Sensitivity("out", 2, 2, 2)]
    assert [item.layer for item in rank(found, "mean", "in")] == ["out", "mid", "in"]
    assert [item.layer for item in rank(found, "mean", None)] == ["in", "out", "mid"]


def test_ties_keep_the_order_of_the_model():
    found = [Sensitivity(name, 1, 1, 1) for name in ("one", "two", "three")]
    assert [item.layer for item in rank(found, "relative", None)] == ["one", "two", "three"]
    assert [item.layer for item in rank(found, "relative", "one")] == ["two", "three", "one"]


def test_the_order_in_which_reports_arrive_changes_no_bit():
    random = np.random.default_rng(0)
    some = [report(c, 3 + 7 * c, (random.random(), 1.5, random.random(), 0.7)) for c in range(5)]
    expected = sensitivities(some, LAYERS, ENTRIES)
    for order in itertools.permutations(some):
        assert sensitivities(order, LAYERS, ENTRIES) == expected


def test_a_layer_without_a_bias_is_its_weight_alone():
    assert layer_parameters(BEFORE, "B") == ["B.weight"]
    assert layer_vector(BEFORE, "B").tolist() == [1, -1]


def test_a_layers_entries_are_its_weight_then_its_bias_in_logical_order():
    assert layer_parameters(reversed(list(BEFORE)), "A") == ["A.weight", "A.bias"]
    state = {"A.bias": np.array([5, 6], np.float32), "A.weight": np.asfortranarray([[1, 2], [3, 4]], np.float32)}
    assert layer_vector(state, "A").tolist() == [1, 2, 3, 4, 5, 6]


def test_layers_whose_names_begin_alike_are_not_mixed_up():
    state = {"fc1.weight": np.zeros(1), "fc11.weight": np.ones(1), "fc11.bias": np.ones(1), "x.fc1.bias": np.ones(1)}
    assert layer_parameters(state, "fc1") == ["fc1.weight"]


def test_a_layer_of_zeros_has_no_relative_sensitivity():
    zeros = [report(0, 5, (0.5, 0.0))]
    assert sensitivities(zeros, ("A",), {"A": 5}) == [Sensitivity("A", 0.1, 0.5, 0.0)]


NAMES = ("in", "one", "two", "three", "out")


def test_layers_are_chosen_by_sensitivity_from_the_end_or_at_random():
    ranking = [Sensitivity(name, 0, 0, 0) for name in ("two", "out", "in", "one", "three")]
    assert choose("critical", NAMES, 2, ranking, None, 0, 0) == ["two", "out"]
    assert choose("critical", NAMES, 2, ranking, None, 0, 0, ["out"]) == ["in", "two"]
    assert choose("last", NAMES, 1, [], None, 0, 0, ["out", "three"]) == ["two"]
    assert choose("last", NAMES, 2, [], None, 0, 0) == ["three", "out"]
    drawn = {tuple(choose("random", NAMES, 2, [], None, 0, draw)) for draw in range(40)}
    assert len(drawn) == 10
    assert choose("random", NAMES, 2, [], None, 5, 1) == choose("random", NAMES, 2, [], None, 5, 1)


@pytest.mark.parametrize("selection", ["critical", "random", "last"])
def test_the_input_layer_is_chosen_only_when_nothing_else_is_left(selection):
    ranking = [Sensitivity(name, 0, 0, 0) for name in NAMES]
    for draw in range(10):
        assert "in" not in choose(selection, NAMES, 4, ranking, "in", 0, draw)
    assert choose(selection, NAMES, 5, ranking, "in", 0, 0) == list(NAMES)


def found_with(*readings):
    return [Sensitivity(f"l{i}", mean=reading, sum=0, relative=0) for i, reading in enumerate(readings)]


def test_a_budget_is_shared_by_reading_times_entries():
    """Weights 1 * 10, 3 * 10, 2 * 30: 10, 30 and 60 of 100, so 20 values are 2, 6 and 12."""
    entries = {"l0": 10, "l1": 10, "l2": 30}
    assert allocate(20, found_with(1, 3, 2), "mean", entries) == {"l0": 2, "l1": 6, "l2": 12}


def test_the_largest_remainder_gets_what_rounding_leaves():
    """Weights 10, 30, 60 of 9 values: 0.9, 2.7, 5.4; the two left over go to 0.9 and 2.7."""
    assert allocate(9, found_with(1, 3, 2), "mean", {"l0": 10, "l1": 10, "l2": 30}) == {"l0": 1, "l1": 3, "l2": 5}
    assert allocate(1, found_with(1, 1), "mean", {"l0": 4, "l1": 4}) == {"l0": 1, "l1": 0}


def test_what_a_full_layer_cannot_take_goes_to_the_others():
    """30 values over weights 90, 10, 20: 22.5 for a layer of 9; the other 21 are shared 7 to 14."""
    assert allocate(30, found_with(10, 1, 1), "mean", {"l0": 9, "l1": 10, "l2": 20}) == {"l0": 9, "l1": 7, "l2": 14}


def test_layers_that_did_not_move_get_what_the_others_cannot_take():
    assert allocate(5, found_with(1, 0, 0), "mean", {"l0": 2, "l1": 10, "l2": 20}) == {"l0": 2, "l1": 1, "l2": 2}
    assert allocate(99, found_with(1, 0), "mean", {"l0": 2, "l1": 3}) == {"l0": 2, "l1": 3}


@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.floats(0, 1e3), st.integers(1, 1000)), min_size=1, max_size=30),
)
def test_a_budget_is_spent_exactly_and_no_layer_holds_more_than_it_can(budget, layers):
    entries = {f"l{i}": size for i, (_, size) in enumerate(layers)}
    counts = allocate(budget, found_with(*(reading for reading, _ in layers)), "mean", entries)
    assert sum(counts.values()) == min(budget, sum(entries.values()))
    assert all(0 <= counts[name] <= entries[name] for name in entries)


def test_attention_keeps_its_queries_keys_and_values_in_one_layer():
    state = {"a.in_proj_bias": np.array([5, 6], np.float32), "a.in_proj_weight": np.array([[1, 2], [3, 4]], np.float32)}
    state["a.out_proj.weight"] = np.array([[7]], np.float32)
    assert layer_parameters(state, "a") == ["a.in_proj_weight", "a.in_proj_bias"]
    assert layer_vector(state, "a").tolist() == [1, 2, 3, 4, 5, 6]
    assert layer_parameters(state, "a.out_proj") == ["a.out_proj.weight"]


def test_density_count_rounds_to_the_nearest_and_leaves_one() -> None:
    assert [density_count(0.5, n) for n in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert density_count(1.0, 7) == 7
    assert density_count(1e-9, 100) == 1
    assert density_count(0.1, 25) == 3

"""The exact sum: the same bits in any order, the true mean, and no silent overflow."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fused_ray.core.aggregate import BOUND_BITS, ExactSum, check_values, scale_bits, scale_of
from fused_ray.errors import NumericsError

BOUND = 2**BOUND_BITS
SIZE = 4
VALUE = st.floats(-BOUND, BOUND, width=32) | st.floats(-(2.0**-30), 2.0**-30, width=32)  # above and near the resolution
CLIENT = st.tuples(arrays(np.float32, SIZE, elements=VALUE), st.integers(min_value=1, max_value=5000))


def exact_sum(clients, bits):
    result = ExactSum(len(clients[0][0]), bits)
    for values, weight in clients:
        result.add(values, weight)
    return result


@given(st.lists(CLIENT, min_size=1, max_size=8), st.data())
def test_any_order_and_grouping_gives_the_same_bits(clients, data):
    bits = scale_bits(sum(weight for _, weight in clients))
    expected = exact_sum(clients, bits)
    shuffled = data.draw(st.permutations(clients))
    merged = ExactSum(SIZE, bits)
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        group = exact_sum(shuffled[:size], bits)
        merged.merge(group.total, group.weight, group.high)
        shuffled = shuffled[size:]
    assert merged.total.dtype == np.int64
    assert merged.total.tobytes() == expected.total.tobytes()
    assert merged.weight == expected.weight
    assert merged.mean().dtype == np.float32
    assert merged.mean().tobytes() == expected.mean().tobytes()


@given(st.lists(CLIENT, min_size=1, max_size=8))
def test_the_sum_is_the_whole_number_that_rational_arithmetic_gives(clients):
    bits = scale_bits(sum(weight for _, weight in clients))
    found = exact_sum(clients, bits).total
    for index in range(SIZE):
        # Python rounds a Fraction half to even, as the fixed point is defined
        assert found[index] == sum(weight * round(Fraction(float(v[index])) * 2**bits) for v, weight in clients)


@given(st.lists(CLIENT, min_size=1, max_size=8))
def test_the_mean_is_the_rational_one_to_within_the_resolution(clients):
    n = sum(weight for _, weight in clients)
    bits = scale_bits(n)
    found = exact_sum(clients, bits).mean()
    for index in range(SIZE):
        true = sum(weight * Fraction(float(values[index])) for values, weight in clients) / n
        half_step = Fraction(1, 2 ** (bits + 1))
        rounding = Fraction(float(np.spacing(np.abs(found[index])))) / 2 * (1 + Fraction(1, 2**20))
        assert abs(Fraction(float(found[index])) - true) <= half_step + rounding


@pytest.mark.parametrize(
    ("examples", "bits"), [(1, 52), (2, 51), (3, 50), (4, 50), (5, 49), (60_000, 36), (65_536, 36), (65_537, 35)]
)
def test_the_scale_leaves_room_for_all_examples(examples, bits):
    assert scale_bits(examples) == bits


def test_the_resolution_for_sixty_thousand_examples_is_as_stated():
    assert 2.0 ** -scale_bits(60_000) == pytest.approx(1.5e-11, rel=0.05)


@pytest.mark.parametrize("examples", [1, 2, 3, 1023, 1024, 1025, 60_000, 65_536, 65_537, 10_000_001])
def test_the_bound_with_the_full_weight_does_not_overflow(examples):
    bits = scale_bits(examples)
    values = np.array([BOUND, -BOUND, 1.0], np.float32)
    found = exact_sum([(values, examples)], bits)
    assert found.total.tolist() == [BOUND * 2**bits * examples, -BOUND * 2**bits * examples, 2**bits * examples]
    assert found.mean().tolist() == values.tolist()
    last = exact_sum([(values, examples - 1), (values, 1)] if examples > 1 else [(values, 1)], bits)
    assert last.total.tolist() == found.total.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1024.5, -1024.5, 3e38])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_value_that_cannot_be_added_is_refused_with_the_clients_name(bad, position):
    values = np.zeros(3, np.float32)
    values[position] = bad
    with pytest.raises(NumericsError, match="client 17, pretrain round 3"):
        check_values(values, "client 17, pretrain round 3")


def test_values_up_to_the_bound_and_none_at_all_pass_the_check():
    check_values(np.array([1024, -1024, 0.0, -0.0, 1e-45], np.float32), "client 0")
    check_values(np.zeros(0, np.float32), "client 0")


@given(st.integers(1, 60_000), arrays(np.float32, SIZE, elements=st.floats(-BOUND, BOUND, width=32)))
def test_a_single_client_gets_back_what_the_scale_can_represent(weight, values):
    bits = 36
    kept = (np.rint(values * 2.0**20) / 2.0**20).astype(np.float32)
    assert exact_sum([(kept, weight)], bits).mean().tolist() == kept.tolist()


def test_the_sum_is_the_same_over_vectors_longer_than_a_chunk():
    values = np.linspace(-3, 3, 40_001, dtype=np.float32)
    found = exact_sum([(values, 7), (values[::-1].copy(), 5)], 40)
    whole = np.rint(values.astype(np.float64) * 2**40).astype(np.int64)
    assert np.array_equal(found.total, 7 * whole + 5 * whole[::-1])


def test_nothing_is_set_aside_for_large_values_where_none_can_be():
    values, exact = np.ones(1_000_000, np.float32), ExactSum(1_000_000, 36)
    tracemalloc.start()
    try:
        exact.add(values, 3)
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


def test_large_values_are_found_in_every_part_that_is_fixed():
    """By hand: 3000 = 1 * 2048 + 952, and 5000 = 2 * 2048 + 904."""
    exact = ExactSum(6, 20)
    exact.add(np.array([1, 3000, 2, 3, 5000, 4], np.float32), 3, ((1, 2), (4, 6)))
    assert exact.high.tolist() == [0, 3, 0, 0, 6, 0]
    assert exact.total.tolist() == [3 * value * 2**20 for value in (1, 952, 2, 3, 904, 4)]
    assert exact.mean().tolist() == [1, 3000, 2, 3, 5000, 4]


def test_values_between_two_steps_go_to_the_nearest_and_from_the_middle_to_the_even_one():
    steps = np.array([0.25, 0.75, 0.5, 1.5, 2.5, -0.5, -1.5, -1.25], np.float32)
    assert exact_sum([(steps * np.float32(2.0**-36), 3)], 36).total.tolist() == [0, 3, 0, 6, 6, 0, -6, -3]


def test_federated_averaging_of_two_clients_by_hand():
    clients = [(np.array([1, 2, 0.5], np.float32), 30), (np.array([3, -2, 0.25], np.float32), 10)]
    assert exact_sum(clients, scale_bits(40)).mean().tolist() == [1.5, 1.0, 0.4375]


# --- two limbs: more examples than one has bits for


MANY = st.integers(min_value=1, max_value=2**32)
CROWD = st.lists(st.tuples(arrays(np.float32, SIZE, elements=VALUE), MANY), min_size=1, max_size=8)


def wide_sum(clients):
    result = ExactSum(SIZE, *scale_of(2**35))
    for values, weight in clients:
        result.add(values, weight)
    return result


@pytest.mark.parametrize(("examples", "scale"), [(60_000, (36, 0)), (2**22, (30, 0)), (2**22 + 1, (17, 27))])
def test_one_limb_up_to_four_million_examples_and_then_two(examples, scale):
    assert scale_of(examples) == scale
    assert scale_of(2**35) == (17, 27)


def test_two_limbs_by_hand():
    """1/2 + 2**-40 is 2**16 steps of the upper limb and 2**4 of the lower; -2**-20 is -2**24 of the lower alone."""
    values, big = np.array([0.5, -(2.0**-20), 1024, 3 * 2.0**-46], np.float32), 2**30
    exact = ExactSum(4, *scale_of(2**35))
    exact.add(values, big)
    exact.add(np.array([2.0**-40, 0, -1024, 0], np.float32), big)
    assert exact.total.tolist() == [2**46, 0, 0, 0]
    assert exact.low.tolist() == [2**34, -(2**54), 0, 2**30]  # 3/4 of a step is one
    assert exact.mean().tolist() == [np.float32(0.25 + 2.0**-41), -(2.0**-21), 0, 2.0**-45]


def test_the_largest_values_of_as_many_examples_as_there_may_be_fit_two_limbs():
    values = np.array([BOUND, -BOUND, BOUND - 2.0**-14, 2.0**-18], np.float32)
    exact = wide_sum([(values, 2**35)])
    assert exact.mean().tolist() == values.tolist()
    with pytest.raises(AssertionError):
        scale_of(2**35 + 1)


@given(CROWD, st.data())
def test_two_limbs_are_the_same_bits_in_any_order_and_grouping(clients, data):
    expected, shuffled = wide_sum(clients), data.draw(st.permutations(clients))
    merged = ExactSum(SIZE, *scale_of(2**35))
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        group = wide_sum(shuffled[:size])
        merged.merge(group.total, group.weight, group.high, group.low)
        shuffled = shuffled[size:]
    assert (merged.total.tobytes(), merged.low.tobytes()) == (expected.total.tobytes(), expected.low.tobytes())
    assert merged.mean().tobytes() == expected.mean().tobytes()


@given(CROWD)
def test_two_limbs_are_the_whole_number_and_the_mean_that_rational_arithmetic_gives(clients):
    found, n = wide_sum(clients), sum(weight for _, weight in clients)
    mean = found.mean()
    for index in range(SIZE):
        whole = sum(weight * round(Fraction(float(v[index])) * 2**44) for v, weight in clients)
        assert int(found.total[index]) * 2**27 + int(found.low[index]) == whole
        true = Fraction(whole, n * 2**44)
        # rounded once to float32, but for float64's own rounding where that is near the middle of two
        near = Fraction(float(np.spacing(np.abs(mean[index])))) / 2 * (1 + Fraction(1, 2**20))
        assert abs(Fraction(float(mean[index])) - true) <= near


def test_a_million_clients_of_a_thousand_examples_with_values_of_a_millionth():
    """One limb would be wrong by 8%: its resolution there is 2**-22."""
    values = np.array([1e-6, -1e-6, 1.1e-6, 0.9e-6], np.float32)
    exact = ExactSum(SIZE, *scale_of(10**9))
    for _ in range(1000):
        exact.add(values, 10**6)
    assert np.abs(exact.mean() / values.astype(np.float64) - 1).max() < 1e-6

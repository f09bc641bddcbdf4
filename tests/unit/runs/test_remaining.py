"""Time left, by hand."""

from __future__ import annotations

import pytest

from fused_ray.runs.remaining import Remaining, seconds_left, told

COST = {"pretrain": 1.0, "unlearn": 0.5, "retrain": 1.0}


def test_nothing_is_said_before_anything_was_measured() -> None:
    assert seconds_left({"pretrain": 10}, {}, COST) is None
    assert seconds_left({"pretrain": 10}, {"pretrain": []}, COST) is None


def test_all_phases_count_not_the_running_one_alone() -> None:
    """8 of 10 rounds are done at 4 s each: 8 s are left of the phase, but 5 x 2 + 10 x 4 more of the run."""
    left = {"pretrain": 2.0, "unlearn": 5.0, "retrain": 10.0}
    assert seconds_left(left, {"pretrain": [4.0] * 8}, COST) == 8 + 10 + 40


def test_a_measurement_takes_the_place_of_a_guess() -> None:
    left = {"unlearn": 4.0, "retrain": 10.0}
    assert seconds_left(left, {"pretrain": [4.0], "unlearn": [1.0]}, COST) == 4 * 1 + 10 * 4


def test_the_nearest_measured_kind_is_the_measure() -> None:
    """An adapter's rounds alone are known: a full one is taken to cost twice as much."""
    assert seconds_left({"retrain": 3.0}, {"unlearn": [1.5]}, COST) == 3 * 3.0


def test_a_slow_first_round_and_old_ones_do_not_count() -> None:
    assert seconds_left({"pretrain": 1.0}, {"pretrain": [60.0, 2.0, 2.0]}, COST) == 2.0
    assert seconds_left({"pretrain": 1.0}, {"pretrain": [9.0] * 10 + [1.0] * 5}, COST) == 1.0


def test_part_of_a_round_and_what_is_done() -> None:
    assert seconds_left({"pretrain": 0.25, "unlearn": 0.0}, {"pretrain": [4.0]}, COST) == 1.0
    assert seconds_left({"pretrain": -1.0}, {"pretrain": [4.0]}, COST) == 0.0


def test_runs_of_several_kinds_one_after_the_other() -> None:
    left = Remaining(["base", "base", "cell", "cell"], {"base": 10.0, "cell": 2.0})
    left.begin("a", "base", 100.0)
    assert left.seconds_left(101.0) is None
    assert left.seconds_left(102.0, 20.0) == (20 - 2) + 20 + 4 + 4  # the first is known to take 20 s
    left.end("a", 130.0)
    left.begin("b", "base", 130.0)
    assert left.seconds_left(140.0) == (30 - 10) + 6 + 6
    assert left.seconds_left(200.0) == 6 + 6  # longer than expected: nothing is left of it
    left.end("b", 200.0)
    left.begin("c", "cell", 200.0)
    assert left.seconds_left(201.0) == (2 / 10 * 50 - 1) + 10  # by the median of 30 and 70
    left.end("c", 204.0)
    left.begin("d", "cell", 204.0)
    assert left.seconds_left(204.0) == 4.0


def test_two_runs_side_by_side_take_half_the_time() -> None:
    left = Remaining(["cell"] * 6, {"cell": 1.0})
    left.begin("a", "cell", 0.0)
    left.begin("b", "cell", 0.0)
    left.end("a", 10.0)
    left.begin("c", "cell", 10.0)
    # b should be over, c takes 10 more, three more of 10 wait
    assert left.seconds_left(10.0) == (0 + 10 + 3 * 10) / 2
    left.skip("cell")
    assert left.seconds_left(14.0) == (0 + 6 + 2 * 10) / 2


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (87.2, "87 s"), (99.4, "99 s"), (100, "2 min"), (3600, "60 min"), (7200, "2.0 h")],
)
def test_times_for_people(seconds: float, expected: str) -> None:
    assert told(seconds) == expected

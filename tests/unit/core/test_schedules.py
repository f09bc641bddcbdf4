"""Learning rates round by round, by hand."""

from __future__ import annotations

from math import sqrt

import pytest

from fused_ray.config import TrainConfig
from fused_ray.core.schedules import scheduled

FOUR = {
    "constant": ({}, [1, 1, 1, 1]),
    "linear": ({}, [1, 0.75, 0.5, 0.25]),
    "cosine": ({}, [1, (1 + sqrt(0.5)) / 2, 0.5, (1 - sqrt(0.5)) / 2]),
    "step": ({"every": 2, "factor": 0.1}, [1, 1, 0.1, 0.1]),
}


@pytest.mark.parametrize("name", FOUR)
def test_four_rounds_by_hand(name):
    args, factors = FOUR[name]
    train = TrainConfig(lr=0.2, schedule=name, schedule_args=args)
    assert [scheduled(train, round, 4).lr for round in range(1, 5)] == pytest.approx([0.2 * f for f in factors])


@pytest.mark.parametrize("name", FOUR)
def test_a_warm_up_comes_before_all_of_the_schedule(name):
    args, factors = FOUR[name]
    train = TrainConfig(lr=1.0, schedule=name, schedule_args=args, warmup=3)
    found = [scheduled(train, round, 7).lr for round in range(1, 8)]
    assert found == pytest.approx([0.25, 0.5, 0.75, *factors])


def test_a_phase_that_is_shorter_than_the_warm_up_ends_in_it():
    train = TrainConfig(lr=1.0, schedule="linear", warmup=3)
    assert [scheduled(train, round, 2).lr for round in (1, 2)] == [0.25, 0.5]


def test_without_a_schedule_the_rate_is_the_very_number():
    assert scheduled(TrainConfig(lr=0.1), 3, 7) == TrainConfig(lr=0.1)

"""Who takes part in a round: how many, who, and that it depends on seed, phase and round alone."""

from __future__ import annotations

import numpy as np
import pytest

from fused_ray.core import participation

SIZES = np.array([10, 20, 30, 40])


@pytest.mark.parametrize(
    ("wanted", "candidates", "number"),
    [(1.0, 7, 7), (0.5, 7, 4), (0.5, 6, 3), (0.1, 4, 1), (0.01, 4, 1), (2.0, 7, 2), (9.0, 7, 7), (0.25, 10, 3)],
)
def test_how_many(wanted: float, candidates: int, number: int) -> None:
    assert participation.count(wanted, candidates) == number


@pytest.mark.parametrize("sampling", ["uniform", "weighted"])
def test_a_draw_has_no_repeats_and_is_its_own_in_every_round(sampling: participation.Sampling) -> None:
    draws = [participation.drawn(SIZES, 2, sampling, 3, "p", round).tolist() for round in range(1, 30)]
    assert all(len(set(draw)) == 2 and draw == sorted(draw) for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 3
    assert participation.drawn(SIZES, 2, sampling, 3, "p", 7).tolist() == draws[6]
    assert [participation.drawn(SIZES, 2, sampling, 4, "p", round).tolist() for round in range(1, 30)] != draws
    assert participation.drawn(SIZES, 4, sampling, 3, "p", 1).tolist() == [0, 1, 2, 3]


def test_how_often_each_is_drawn() -> None:
    """Of 4,000 draws, four standard deviations at most from what is expected."""
    rounds = 4000
    for sampling, shares in (("uniform", np.full(4, 0.25)), ("weighted", SIZES / 100)):
        counted = np.zeros(4)
        for round in range(rounds):
            counted[participation.drawn(SIZES, 1, sampling, 0, "often", round)] += 1
        allowed = 4 * np.sqrt(shares * (1 - shares) * rounds)
        assert (np.abs(counted - shares * rounds) < allowed).all()


def test_the_second_of_a_weighted_draw_is_weighted_among_those_that_are_left() -> None:
    """P(pair {2, 3}) = .3 * .4/.7 + .4 * .3/.6 = .37142..."""
    rounds = 4000
    pairs = [tuple(participation.drawn(SIZES, 2, "weighted", 1, "pairs", round)) for round in range(rounds)]
    share = 0.3 * 0.4 / 0.7 + 0.4 * 0.3 / 0.6
    assert abs(pairs.count((2, 3)) - share * rounds) < 4 * np.sqrt(share * (1 - share) * rounds)


def test_everybody_is_everybody_in_every_round() -> None:
    who = participation.participants([1, 4, 9], lambda client: 5, 1.0, "uniform", 0, "unlearn")
    assert who == [1, 4, 9]
    assert participation.of_round(who, 3) == [1, 4, 9]


def test_some_are_always_there_and_the_share_is_of_the_others() -> None:
    candidates = [1, 2, 4, 5, 9]
    who = participation.participants(candidates, lambda client: client, 0.5, "weighted", 0, "unlearn", always=[4])
    assert callable(who)
    for round in range(1, 20):
        assert 4 in who(round)
        assert len(who(round)) == 1 + 2
        assert set(who(round)) <= set(candidates)
    assert {client for round in range(1, 20) for client in who(round)} == set(candidates)


def test_phases_draw_apart() -> None:
    def rounds(phase: str) -> list[object]:
        who = participation.participants(range(20), lambda client: 5, 0.3, "uniform", 0, phase)
        return [participation.of_round(who, round) for round in range(1, 5)]

    assert rounds("pretrain") == rounds("pretrain")
    assert rounds("pretrain") != rounds("retrain")

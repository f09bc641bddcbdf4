"""The virtual clock's arithmetic, against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fused_ray.config.deployment import DeploymentConfig
from fused_ray.core.deployment import (
    Cycle,
    Daily,
    Device,
    Task,
    client_seconds,
    close,
    compute_seconds,
    daily,
    devices,
    drawn,
    drops_out,
    forgotten_after,
    over_selected,
    transfer_seconds,
)

DEVICE = Device(forward_s=0.05, down_mbps=6.1, up_mbps=6.1, latency_s=0.0)


def test_a_pass_over_a_hundred_examples_takes_three_forwards_each() -> None:
    assert compute_seconds(100, 0.05) == pytest.approx(15.0)  # FedScale: batch 20, 5 steps, 50 ms


def test_a_model_both_ways() -> None:
    size = 181_381
    assert 2 * transfer_seconds(size, 6.1) == pytest.approx(0.4758, abs=5e-5)
    # FedScale's kbit are of 1,024 bits
    assert 2 * transfer_seconds(size, 6.1 * 1.024) == pytest.approx(0.4646, abs=5e-5)
    task = Task(examples=100, bytes_down=size, bytes_up=size)
    assert client_seconds(DEVICE, task) == pytest.approx(15.4758, abs=5e-5)


def test_ten_steps_at_300_mbps() -> None:
    device = Device(forward_s=0.02, down_mbps=300, up_mbps=300, latency_s=0)
    task = Task(examples=10, bytes_down=181_381, bytes_up=181_381)
    assert client_seconds(device, task, train_factor=2) == pytest.approx(0.4097, abs=5e-5)  # APPFL


def test_the_frozen_prefix_goes_forward_only() -> None:
    assert compute_seconds(100, 0.05, 3, learning=0.25) == pytest.approx(100 * 0.05 * 1.5)
    assert compute_seconds(100, 0.05, 3, learning=0) == pytest.approx(5.0)


def test_only_messages_that_are_sent_have_a_latency() -> None:
    device = Device(forward_s=0.0, down_mbps=8, up_mbps=8, latency_s=0.25)
    assert client_seconds(device, Task(examples=1, bytes_down=1_000_000, bytes_up=1_000_000)) == pytest.approx(2.5)
    assert client_seconds(device, Task(examples=1, bytes_down=0, bytes_up=1_000_000)) == pytest.approx(1.25)


@pytest.mark.parametrize("mbps", [0.0, -1.0, math.nan])
def test_no_bandwidth_is_refused(mbps: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        transfer_seconds(1, mbps)


def test_a_client_comes_and_goes() -> None:
    """On for 300 s, off for 600, and 100 s into that when the clock starts."""
    cycle = Cycle(on_s=300, off_s=600, phase_s=100)
    assert cycle.wait(0) == cycle.wait(199) == 0
    assert cycle.wait(200) == 600  # it goes away at 200, and is back at 800
    assert cycle.wait(799) == 1
    assert cycle.wait(800) == 0
    idle = Task(examples=0, bytes_down=0, bytes_up=0)
    away = Device(forward_s=1, down_mbps=1, up_mbps=1, latency_s=0, availability=cycle)
    assert client_seconds(away, idle, now=500) == 300
    assert client_seconds(DEVICE, idle, now=500) == 0


def test_four_times_as_many_are_there_by_day() -> None:
    hour = 3600.0
    assert daily(0.5, 0) == pytest.approx(0.5)
    assert daily(0.5, 6 * hour) == pytest.approx(0.8)
    assert daily(0.5, 18 * hour) == pytest.approx(0.2)
    clients = [Daily(seed=1, client=client, share=0.5) for client in range(400)]
    for at, share in ((6.5, 0.8), (18.5, 0.2)):
        there = np.mean([client.wait(at * hour) == 0 for client in clients])
        assert abs(there - share) < 4 * math.sqrt(share * (1 - share) / 400)
    (away, *_) = (client for client in clients if client.wait(6.5 * hour))
    back = 6.5 * hour + away.wait(6.5 * hour)
    assert back % hour == 0  # an hour is as it is from its beginning on
    assert away.wait(back) == 0 < away.wait(back - 1)


def test_a_device_is_what_the_trace_says_and_else_the_profile() -> None:
    config = DeploymentConfig.model_validate({"profile": "hospitals", "availability": "cycle"})
    trace = {"ms_per_sample": np.array([20.0, 40.0]), "on_s": np.array([10.0, 5.0]), "phase_s": np.array([0.0, 7.0])}
    first, second = devices(config, 0, 2, 10**9, trace)
    assert (first.forward_s, second.forward_s, second.up_mbps) == (0.02, 0.04, 300)
    assert second.availability == Cycle(on_s=5, off_s=600, phase_s=7)
    (plain,) = devices(DeploymentConfig(profile="hospitals"), 0, 1, 10**9, {})
    assert plain.forward_s == pytest.approx(1e9 / (0.472e12 / 2))


def test_over_selection_asks_more_than_are_needed() -> None:
    assert over_selected(10, 1.3, 50) == 13
    assert over_selected(3, 1.3, 50) == 3  # int(3.9)
    assert over_selected(10, 1.3, 11) == 11
    ended = close({k: float(k) for k in range(1, 14)}, {}, wanted=10)
    assert ended.seconds == 10
    assert ended.counted == tuple(range(1, 11))


FINISHES = {0: 2.0, 1: 5.0, 2: 9.0}


@pytest.mark.parametrize(
    ("deadline", "longest", "seconds", "counted"),
    [
        (4.0, 8.0, 5.0, (0, 1)),  # stretched until two are in
        (4.0, 4.5, 4.5, ()),  # they never are
        (4.0, None, 4.0, ()),
        (6.0, None, 6.0, (0, 1)),  # the deadline, not the second's 5
        (20.0, None, 9.0, (0, 1, 2)),  # nobody is late
        (None, None, 9.0, (0, 1, 2)),
    ],
)
def test_a_deadline(deadline: float | None, longest: float | None, seconds: float, counted: tuple[int, ...]) -> None:
    ended = close(FINISHES, {}, wanted=3, quorum=2, deadline=deadline, longest=longest)
    assert (ended.seconds, ended.counted) == (seconds, counted)


def test_all_time_out() -> None:
    ended = close({0: 11.0}, {1: 3.0}, wanted=2, deadline=10)
    assert (ended.seconds, ended.counted) == (10.0, ())


def test_who_drops_out_is_missed_when_it_would_have_been_in() -> None:
    ended = close({0: 2.0, 1: 3.0}, {2: 9.0}, wanted=3, quorum=2)
    assert (ended.seconds, ended.counted) == (9.0, (0, 1))
    assert close({0: 2.0}, {1: 9.0}, wanted=1).seconds == 2.0  # nobody waits for it where others suffice
    lost = close({}, {0: 4.0, 1: 5.0}, wanted=2)
    assert (lost.seconds, lost.counted) == (5.0, ())
    few = close({0: 2.0}, {1: 9.0, 2: 30.0}, wanted=3, quorum=2, deadline=4, longest=20)
    assert (few.seconds, few.counted) == (20.0, ())


def test_as_many_drop_out_as_the_probability_says() -> None:
    gone = [drops_out(3, "unlearn", round, client, 0.08) for round in range(50) for client in range(40)]
    assert abs(np.mean(gone) - 0.08) < 4 * math.sqrt(0.08 * 0.92 / 2000)
    assert not any(drops_out(3, "unlearn", 1, client, 0.0) for client in range(40))
    assert gone != [drops_out(3, "retrain", round, client, 0.08) for round in range(50) for client in range(40)]


def test_a_lone_client() -> None:
    assert close({7: 3.0}, {}, wanted=1).counted == (7,)
    assert close({7: 3.0}, {}, wanted=1, deadline=3.0).counted == (7,)
    late = close({7: 3.1}, {}, wanted=1, deadline=3.0)
    assert (late.seconds, late.counted) == (3.0, ())


def test_a_client_is_the_same_whatever_else_is_drawn_and_whoever_draws() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    law = {"lognormal": (55.0, 0.65)}
    forwards = [drawn(law, 3, "ms_per_sample", client) for client in range(500)]
    backwards = [drawn(law, 3, "ms_per_sample", client) for client in reversed(range(500))]
    assert forwards == backwards[::-1]
    assert drawn(law, 3, "up_mbps", 0) != forwards[0] != drawn(law, 4, "ms_per_sample", 0)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]
    logs = np.log(np.array(forwards) / 55)
    assert abs(logs.mean()) < 3 * 0.65 / math.sqrt(500)
    assert logs.std() == pytest.approx(0.65, rel=0.1)


def test_a_quarter_of_phones_are_below_three_megabits() -> None:
    law = {"lognormal": (6.1, 1.1)}
    share = np.mean([drawn(law, 0, "up_mbps", client) < 3 for client in range(2000)])
    assert share == pytest.approx(0.26, abs=0.03)


def test_constant_and_uniform() -> None:
    assert drawn(300, 0, "up_mbps", 5) == 300
    values = [drawn({"uniform": (2.0, 4.0)}, 0, "up_mbps", client) for client in range(200)]
    assert 2 <= min(values) < 2.1
    assert 3.9 < max(values) <= 4


def test_forgotten_is_for_three_rounds() -> None:
    assert forgotten_after([0.9, 0.05, 0.2, 0.05, 0.04, 0.05, 0.9], 0.05) == 4
    assert forgotten_after([0.0, 0.0], 0.05) is None
    assert forgotten_after([0.0, 0.0, 0.0], 0.05) == 1
    assert forgotten_after([None, 0.0, 0.0, 0.0], 0.05) == 2
    assert forgotten_after([], 0.05) is None

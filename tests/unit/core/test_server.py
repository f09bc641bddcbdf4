"""What the server makes of a round: formulas by hand, over two clients, two values and two rounds of the real loop."""

from __future__ import annotations

import dataclasses
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_ray.config.parts.aggregates import TrimmedConfig
from fused_ray.core.aggregates import median, trimmed_mean
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation, Phase
from fused_ray.core.server import check_memory, served
from fused_ray.core.standard import standard
from fused_ray.core.work import Update, compute
from fused_ray.errors import ConfigError, NumericsError
from fused_ray.runs.checkpoints import encode_saved, read_saved
from fused_ray.types import Payload, Spans


@dataclasses.dataclass(frozen=True)
class Told:
    """Clients send what they are told to, by round and client."""

    phase: str
    round: int
    values: dict[int, list[list[float]]]
    fixed: Spans = ()

    def indices(self, scenario, client):
        return scenario.held[client]

    def update(self, space, payload, client):
        values = np.array(self.values[self.round][client], np.float32)
        return Update(Payload(values), 0.5, fixed=self.fixed)

    def upload_bytes(self, payload):
        return 0

    def download_bytes(self, payload):
        return 0


class NoAnswer:
    """An evaluation of what is no model."""

    def predict(self, space, payload, blocks):
        return [space.data.test_labels]


class Scattered(LocalPool):
    """Every client by itself, the last one first."""

    def train(self, work, payload, clients, done, keep_updates=False):
        for client in reversed(clients):
            with standard():
                yield compute(self._space, work, payload, [client], keep_updates)


@pytest.fixture
def rounds(make_config, data, scenario, recorder):
    """`rounds(values, *settings)`: the values after as many rounds as are told, clients of 1, 3, 5 and 7 examples."""

    def run(values, *settings, fixed=(), pool=LocalPool, start=None, count=None, step=True):
        held = tuple(np.arange(client**2, (client + 1) ** 2) for client in range(len(values[1])))
        on = dataclasses.replace(scenario, held=held, retained=held)
        config = make_config(*settings)
        federation = Federation(config, data, on, pool(config, data, on), recorder(start))
        phase = Phase(
            name="p",
            rounds=count or len(values),
            clients=range(len(held)),
            work=lambda number: Told("p", number, values, fixed),
            evaluation=NoAnswer(),
        )
        return federation.run(served(config, phase, step), Payload(np.array([1, 2], np.float32)))

    return run


# client 0 holds one example, client 1 three: the means are (3, 1) and (2, 3.5)
TWO = {1: [[6, 4], [2, 0]], 2: [[2, 2], [2, 4]]}


def test_the_mean_by_hand(rounds):
    assert rounds(TWO, count=1).payload.values.tolist() == [3, 1]
    assert rounds(TWO).payload.values.tolist() == [2, 3.5]
    assert not rounds(TWO).server


def test_fedavgm_by_hand(rounds):
    # from (1, 2) the mean lies (2, -1) away: m = (2, -1), half of it leads to (2, 1.5)
    # from there it lies (0, 2) away: m = (1, -0.5) + (0, 2), half of it leads to (2.5, 2.25)
    found = rounds(TWO, "federation.server=fedavgm", "federation.server_args={lr: 0.5, momentum: 0.5}")
    assert found.payload.values.tolist() == [2.5, 2.25]
    assert found.server["optimiser.m"].tolist() == [1, 1.5]


FEDADAM = ("federation.server=fedadam", "federation.server_args={lr: 1, beta1: 0.5, beta2: 0.5, tau: 1}")


def test_fedadam_by_hand(rounds):
    first = rounds(TWO, *FEDADAM, count=1).payload.values
    # delta = (2, -1), m = delta / 2, v = (1 + delta**2) / 2 = (2.5, 1)
    expected = [1 + 1 / (sqrt(2.5) + 1), 2 - 0.5 / 2]
    assert first.tolist() == pytest.approx(expected, rel=1e-7)
    delta = [2 - expected[0], 3.5 - expected[1]]
    m = [(1 + delta[0]) / 2, (-0.5 + delta[1]) / 2]
    v = [(2.5 + delta[0] ** 2) / 2, (1 + delta[1] ** 2) / 2]
    second = [w + n / (sqrt(u) + 1) for w, n, u in zip(expected, m, v, strict=True)]
    assert rounds(TWO, *FEDADAM).payload.values.tolist() == pytest.approx(second, rel=1e-6)


@pytest.mark.parametrize("server", ["fedavgm", "fedadam"])
def test_the_same_bits_after_a_checkpoint_between_the_rounds(rounds, tmp_path, server):
    setting = f"federation.server={server}"
    (tmp_path / "p").write_bytes(encode_saved(rounds(TWO, setting, count=1)))
    found, expected = rounds(TWO, setting, start={"p": read_saved(tmp_path / "p")}), rounds(TWO, setting)
    assert encode_saved(found) == encode_saved(expected)
    forgetful = dataclasses.replace(read_saved(tmp_path / "p"), server={})
    assert rounds(TWO, setting, start={"p": forgetful}).payload.values.tobytes() != expected.payload.values.tobytes()


def test_the_median_by_hand(rounds):
    assert rounds(TWO, "federation.aggregate=median").payload.values.tolist() == [2, 3]
    three = {1: [[9, 1], [2, 5], [-7, 6]]}
    assert rounds(three, "federation.aggregate=median").payload.values.tolist() == [2, 5]


def test_the_trimmed_mean_by_hand(rounds):
    four = {1: [[100, 1], [2, 4], [-70, 6], [3, -100]]}
    settings = ("federation.aggregate=trimmed", "federation.aggregate_args.share=0.3")  # 1.2 clients: one
    assert rounds(four, *settings).payload.values.tolist() == [2.5, 2.5]
    few = ("federation.aggregate=trimmed", "federation.aggregate_args.share=0.2")  # nobody, and each counts the same
    assert rounds(four, *few).payload.values.tolist() == [8.75, -22.25]


def test_the_server_steps_from_the_aggregate(rounds):
    # the medians lie (3, 0) from (1, 2), and (-2, 1) from (4, 2)
    settings = ("federation.aggregate=median", "federation.server=fedavgm", "federation.server_args.momentum=0.5")
    assert rounds(TWO, *settings, count=1).payload.values.tolist() == [4, 2]
    assert rounds(TWO, *settings).payload.values.tolist() == [4 + 1.5 - 2, 2 + 0 + 1]
    assert rounds(TWO, *settings, step=False).payload.values.tolist() == [2, 3]


@pytest.mark.parametrize("settings", [("federation.server=fedavgm", "federation.server_args.lr=0.5"), FEDADAM])
def test_buffers_are_averaged_and_never_stepped(rounds, settings):
    free, buffered = rounds(TWO, *settings), rounds(TWO, *settings, fixed=((0, 1),))
    assert buffered.payload.values[0] == 2
    assert buffered.payload.values[1] == free.payload.values[1] != 3.5
    assert all(array.shape == (1,) for array in buffered.server.values())


def test_buffers_are_averaged_by_examples_where_the_rest_has_a_median(rounds):
    found = rounds(TWO, "federation.aggregate=median", fixed=((1, 2),), count=1)
    assert found.payload.values.tolist() == [4, 1]


def test_a_step_beyond_all_bounds_is_an_error(rounds):
    with pytest.raises(NumericsError, match=r"p round 1: the step of the server: .* federation.server_args.lr"):
        rounds(TWO, "federation.server=fedavgm", "federation.server_args.lr=1000")


SETTINGS = [
    *(("federation.aggregate=median",), ("federation.aggregate=trimmed", "federation.aggregate_args.share=0.3")),
    ("federation.aggregate=median", "federation.server=fedadam"),
]
FLOATS = st.floats(-900, 900, width=32) | st.sampled_from([0.0, -0.0, 1.0])


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_packing_changes_no_bit(rounds, settings):
    random = np.random.default_rng(0)
    values = {number: random.normal(0, 1, (4, 2)).tolist() for number in (1, 2)}
    one, other = (rounds(values, *settings, pool=pool) for pool in (LocalPool, Scattered))
    assert encode_saved(one) == encode_saved(other)


@settings(max_examples=40)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_order_changes_no_bit(values, random):
    for aggregate, given_to in ((median, None), (trimmed_mean, TrimmedConfig(share=0.3))):
        updates = [np.array(pair, np.float32) for pair in values]
        expected = aggregate(updates, [1] * len(updates), given_to)
        random.shuffle(updates)
        assert aggregate(updates, [1] * len(updates), given_to).tobytes() == expected.tobytes()


@settings(max_examples=40)
@given(st.lists(FLOATS, min_size=1, max_size=9))
def test_the_median_is_numpys_rounded_once(values):
    (found,) = median([np.array([value], np.float32) for value in values], [1] * len(values), None)
    assert found == np.float32(np.median(np.array(values, np.float64)))


def test_single_updates_beyond_the_memory_are_refused_in_one_line(make_config):
    settings = ("federation.clients=5", "engine.aggregate_memory_mb=2", "federation.aggregate=median")
    check_memory(make_config(*settings), 100_000)  # 2 MB
    with pytest.raises(
        ConfigError, match=r"^federation.aggregate: median .* 5 clients x 100,001 values x 4 bytes = 2.0 MB"
    ):
        check_memory(make_config(*settings), 100_001)
    check_memory(make_config(*settings[:2]), 10**9)

"""Protocol bytes are the length of the message that would be sent."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load

from fused_ray import models
from fused_ray.core import state, wire
from fused_ray.types import Payload


def test_an_adapter_of_425_values_takes_less_than_two_kilobytes():
    message = wire.encode(Payload(np.ones(425, np.float32)))
    assert 425 * 4 < len(message) <= 2000


def test_a_lenet_takes_four_bytes_a_parameter_and_a_short_header():
    payload = state.read(models.build("lenet", (1, 28, 28), 10))
    assert payload.values.nbytes == 177_704
    assert 0 < len(wire.encode(payload)) - 177_704 < 200


def test_a_message_carries_the_values_and_the_counters_if_there_are_any():
    values, counters = np.array([1.5, -0.0], np.float32), np.array([3], np.int64)
    both = load(wire.encode(Payload(values, counters)))
    assert both["values"].tobytes() == values.tobytes()
    assert both["counters"].tolist() == [3]
    assert list(load(wire.encode(Payload(values)))) == ["values"]


def test_reported_distances_take_eight_bytes_a_layer():
    assert wire.distances_bytes(6) - wire.distances_bytes(5) == 8
    assert 40 < wire.distances_bytes(5) < 200

"""Protocol bytes are the length of the message that would be sent."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from fused_ray import models
from fused_ray.core import state, wire
from fused_ray.core.adapter import Mask, Masks
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


@pytest.mark.parametrize("count", [0, 1, 85, 2000])
def test_so_many_values_take_what_their_message_takes(count):
    assert wire.values_bytes(count) == len(wire.encode(Payload(np.full(count, 0.1, np.float32))))


def body(message):
    """The bytes after the header and its length."""
    return len(message) - 8 - int.from_bytes(message[:8], "little")


@pytest.mark.parametrize(
    ("entries", "chosen", "expected"),
    [
        (850, 18, 36),  # two bytes an index
        (850, 53, 106),
        (850, 54, 107),  # a bitmap of 850 bits
        (850, 850, 107),
        (1 << 16, 1, 2),
        ((1 << 16) + 1, 1, 4),  # where two bytes are not enough
        (1, 1, 1),
    ],
)
def test_a_mask_is_sent_as_indices_or_as_a_bitmap_whichever_is_shorter(monkeypatch, entries, chosen, expected):
    messages = []
    monkeypatch.setattr(wire, "save", lambda tensors: messages.append(save(tensors)) or messages[-1])
    found = wire.mask_bytes(Masks((Mask("fc3", entries, np.arange(chosen)),)))
    assert found == len(messages[0])
    assert body(messages[0]) == expected


def test_every_layers_mask_chooses_for_itself_and_one_message_carries_them_all(monkeypatch):
    messages = []
    monkeypatch.setattr(wire, "save", lambda tensors: messages.append(save(tensors)) or messages[-1])
    wire.mask_bytes(Masks((Mask("fc2", 10164, np.arange(3)), Mask("fc3", 850, np.arange(425)))))
    assert {name: (array.dtype, array.size) for name, array in load(messages[0]).items()} == {
        "fc2": (np.uint16, 3),
        "fc3": (np.uint8, 107),
    }
    assert load(messages[0])["fc2"].tolist() == [0, 1, 2]

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


SIZES = (3, 2, 1)
CHANGE = np.array([1.27, -0.64, 0.004, 0, 0, -2.54], np.float32)


def test_int8_by_hand():
    """Scales 1.27 / 127 = 0.01, none, 2.54 / 127 = 0.02; 0.004 is nearer to 0 than to 0.01."""
    tensors = load(wire.encode_change(CHANGE, "int8", SIZES))
    assert tensors["values"].tolist() == [127, -64, 0, 0, 0, -127]
    assert tensors["scales"].tolist() == pytest.approx([0.01, 0, 0.02])
    arrived = wire.decode_change(wire.encode_change(CHANGE, "int8", SIZES), SIZES)
    assert arrived.dtype == np.float32
    assert arrived.tolist() == pytest.approx([1.27, -0.64, 0, 0, 0, -2.54])


def test_sixteen_bits_by_hand():
    """1/3 is 0.33325 with 10 bits behind the leading one, 0.333984 with 7; bfloat16 alone reaches 1e-30."""
    change = np.array([1 / 3, 1e-30], np.float32)
    half, brain = (wire.decode_change(wire.encode_change(change, kind, (2,)), (2,)) for kind in ("float16", "bfloat16"))
    assert half.tolist() == [1365 / 4096, 0]
    assert brain[0] == 171 / 512
    assert brain[1] == pytest.approx(1e-30, rel=2**-8)


@pytest.mark.parametrize(("kind", "each"), [("float16", 2), ("bfloat16", 2), ("int8", 1)])
def test_a_short_format_takes_so_many_bytes_a_value(kind, each):
    few, many = (len(wire.encode_change(np.ones(n, np.float32), kind, (n,))) for n in (1000, 9000))
    assert many - few == pytest.approx(8000 * each, abs=16)  # the header names the shape
    assert many < 9000 * each + 200


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8"])
def test_what_arrives_is_as_near_as_the_format_allows(kind):
    change = np.random.default_rng(0).normal(size=500).astype(np.float32)
    sizes = (200, 299, 1)
    arrived = wire.decode_change(wire.encode_change(change, kind, sizes), sizes)
    scales = np.repeat([np.abs(part).max() / 127 for part in np.split(change, [200, 499])], sizes)
    limit = {"float16": 2**-11 * np.abs(change), "bfloat16": 2**-8 * np.abs(change), "int8": scales / 2}[kind]
    assert (np.abs(arrived - change) <= limit * 1.0001 + 1e-7).all()


def test_no_change_is_no_change():
    nothing = np.zeros(4, np.float32)
    assert wire.decode_change(wire.encode_change(nothing, "int8", (3, 1)), (3, 1)).tolist() == [0, 0, 0, 0]

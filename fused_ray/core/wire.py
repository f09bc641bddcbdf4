"""How payloads would be sent in a deployment: one safetensors message each. Protocol bytes are its length.

Values go down to the clients as float32. Up they go as float32 too, or what a client changed of an adapter's goes in
a shorter format: rounded to float16 or bfloat16, or to whole multiples of a scale a layer (int8). The server adds the
change that arrives to the values that it sent; from there on the sum over clients is exact, as ever.

A message counts in full in every round, but for what a client is sent once: which entries a mask holds, and M_r.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from safetensors.numpy import save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from fused_ray.core.adapter import Masks
from fused_ray.types import FloatVector, Payload

Wire = Literal["float32", "float16", "bfloat16", "int8"]


@dataclass
class Delivery:
    """M_r's way to the clients: the server sends it once to each, with the first message that is of no use without it.

    Nobody has it from pre-training: its last average was sent to no one. Who is sent a whole model in every round needs
    no delivery.
    """

    bytes: int
    """Length of the message that carries M_r."""
    have: set[int] = field(default_factory=set)
    """The clients that have it."""

    def to(self, clients: Iterable[int]) -> dict[int, int]:
        """The bytes that it adds to a message to these clients, by client; from then on they have it."""
        lacking = [client for client in clients if client not in self.have]
        self.have.update(lacking)
        return dict.fromkeys(lacking, self.bytes)


def encode(payload: Payload) -> bytes:
    """The message that carries a payload; counters are left out when there are none."""
    tensors: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"values": payload.values}
    if payload.counters.size:
        tensors["counters"] = payload.counters
    return save(tensors)


def encode_change(change: FloatVector, wire: Wire, sizes: Sequence[int]) -> bytes:
    """The message that carries a change [V] in a shorter format; `sizes` are the numbers of values of each layer.

    int8: every value becomes the nearest multiple, -127 to 127, of its layer's scale, the largest magnitude / 127.
    """
    assert wire != "float32", "float32 values are sent as they are"
    if wire != "int8":
        kind = torch.float16 if wire == "float16" else torch.bfloat16
        return save_torch({"values": torch.from_numpy(change).to(kind)})
    scales = np.array([np.abs(part).max(initial=0) / np.float32(127) for part in _layers(change, sizes)], np.float32)
    steps = np.repeat(np.where(scales > 0, scales, 1), sizes).astype(np.float64)  # a layer without change has no scale
    return save({"values": np.clip(np.rint(change / steps), -127, 127).astype(np.int8), "scales": scales})


def decode_change(message: bytes, sizes: Sequence[int]) -> FloatVector:
    """The change [V] that a message carries, float32."""
    tensors = load_torch(message)
    values = tensors["values"].to(torch.float32).numpy()
    if "scales" in tensors:
        values = values * np.repeat(tensors["scales"].numpy(), sizes)
    return values


def _layers(values: FloatVector, sizes: Sequence[int]) -> list[FloatVector]:
    return np.split(values, np.cumsum(sizes)[:-1])


def model_bytes(payload: Payload, frozen: int) -> int:
    """Length of the message that carries a model without its frozen values, of which there are so many."""
    return len(encode(Payload(payload.values[frozen:], payload.counters)))


def values_bytes(count: int) -> int:
    """Length of the message that carries this many float32 values."""
    return len(encode(Payload(np.zeros(count, np.float32))))


def mask_bytes(masks: Masks) -> int:
    """Length of the message that says which entries masks hold: indices or a bitmap, whichever is shorter a layer."""
    tensors: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    for mask in masks.layers:
        narrow = np.uint16 if mask.entries <= 1 << 16 else np.uint32
        indices, bitmap = mask.positions.astype(narrow), np.zeros((mask.entries + 7) // 8, np.uint8)
        tensors[mask.layer] = indices if indices.nbytes <= bitmap.nbytes else bitmap
    return len(save(tensors))


def distances_bytes(layers: int) -> int:
    """Length of the message by which a client reports the L1 change of its layers (float64 each)."""
    return len(save({"distances": np.zeros(layers, np.float64)}))

"""How payloads would be sent in a deployment: one safetensors message each. Protocol bytes are its length."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import save

from fused_ray.core.adapter import Masks
from fused_ray.types import Payload


def encode(payload: Payload) -> bytes:
    """The message that carries a payload; counters are left out when there are none."""
    tensors: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"values": payload.values}
    if payload.counters.size:
        tensors["counters"] = payload.counters
    return save(tensors)


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

"""How payloads would be sent in a deployment: one safetensors message each. Protocol bytes are its length."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import save

from fused_ray.types import Payload


def encode(payload: Payload) -> bytes:
    """The message that carries a payload; counters are left out when there are none."""
    tensors: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"values": payload.values}
    if payload.counters.size:
        tensors["counters"] = payload.counters
    return save(tensors)


def distances_bytes(layers: int) -> int:
    """Length of the message by which a client reports the L1 change of its layers (float64 each)."""
    return len(save({"distances": np.zeros(layers, np.float64)}))

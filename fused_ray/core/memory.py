"""A recorder that keeps everything in memory: for experiments in one process, and for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fused_ray.core.adapter import Adapter
from fused_ray.core.rounds import RoundRecord, Saved
from fused_ray.types import FloatVector, IntVector, PartialSum, Payload


class MemoryRecorder:
    """Finished rounds in `records`, what each phase would go on from in `saved`, models by name in `models`."""

    def __init__(self, saved: Mapping[str, Saved] | None = None) -> None:
        self.saved: dict[str, Saved] = dict(saved or {})
        self.records: list[RoundRecord] = []
        self.models: dict[str, Mapping[str, np.ndarray[Any, Any]]] = {}
        self.adapter: tuple[Adapter, FloatVector] | None = None
        self.kept: dict[int, Payload] = {}

    def resume(self, phase: str) -> Saved | None:
        return self.saved.get(phase)

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        pass

    def clients_done(self, count: int) -> None:
        pass

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        self.records.append(record)
        self.saved[record.phase] = saved

    def save_model(self, name: str, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.models[name] = state

    def save_history(self, round: int, payload: Payload) -> None:
        self.kept[round] = payload

    def history(self, round: int) -> Payload:
        return self.kept[round]

    def save_adapter(self, adapter: Adapter, values: FloatVector, about: Mapping[str, Any]) -> None:
        self.adapter = (adapter, values)

"""What a run keeps to go on, and for what is made of it later: its checkpoints and models. None of it may fail.

What is kept, and for how long:

- checkpoints/PHASE: of every phase the last finished round, which replaces the one before: `--resume` goes on from it.
  It stays when the run is over, so that a run that ended before its audit repeats no round. Of a finished run, a later
  one takes the round over that ranked the layers (runs.given).
- history/ROUND: the global models of pre-training, where `settings.keeps_history` says that a method needs them. They
  stay: a later run on this one's model (`pretrain.from`) may need them.
- base, adapter or unlearned, retrained: for ever; audits, `apply` and `restore` read them.

Nothing is removed but rows of rounds that no checkpoint stands for (`Tables.drop_beyond`), and what runs.tidy tells
when the user asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from fused_ray.config.fields import Constants
from fused_ray.core.adapter import Adapter
from fused_ray.core.rounds import Saved
from fused_ray.errors import RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage import files
from fused_ray.types import FloatVector, Payload

MARK = "saved"
"""What the header of every checkpoint has."""
_STATE, _SERVER = "state.", "server."
"""What the names of clients' states in a checkpoint begin with, and of what the server keeps; the rest tells whose."""


class Checkpoints:
    """Those of one run. `earlier` is the run whose pre-training this one goes on from, if it is one.

    Every writing method raises NotWrittenError where the disk is full, say; the run then goes on from the round before.
    """

    def __init__(self, directory: RunDirectory, phases: Sequence[str], earlier: Path | None = None) -> None:
        self._directory = directory
        self._places = [directory.path, *([earlier] if earlier else [])]
        self._saved = {phase: self._load(phase) for phase in phases}

    def last(self, phase: str) -> Saved | None:
        """A phase's last finished round; None before the first. Raises KeyError of a phase that the run has not."""
        return self._saved[phase]

    @property
    def finished(self) -> dict[str, int]:
        """The last finished round of every phase that has begun."""
        return {phase: saved.round for phase, saved in self._saved.items() if saved}

    def save(self, phase: str, saved: Saved) -> None:
        """Keep a finished round instead of the one before."""
        self._directory.write(f"checkpoints/{phase}.safetensors", encode_saved(saved))
        self._saved[phase] = saved

    def save_model(self, name: str, state: Mapping[str, np.ndarray[Any, Any]], constants: Constants) -> None:
        """Keep a model, and what its images are normalised by."""
        self._directory.write(f"{name}.safetensors", files.encode_state(state, constants))

    def save_adapter(self, adapter: Adapter, values: FloatVector, about: Mapping[str, Any]) -> None:
        """Keep the adapter."""
        self._directory.write("adapter.safetensors", files.encode_adapter(adapter, values, about))

    def save_history(self, round: int, payload: Payload) -> None:
        """Keep the global model after a round of pre-training."""
        self._directory.write(_history(round), encode_saved(Saved(round=round, payload=payload, metrics={})))

    def history(self, round: int) -> Payload:
        """The same, of this run or the earlier one. Raises RunDirectoryError if it was not kept."""
        for place in self._places:
            if (place / _history(round)).exists():
                return read_saved(place / _history(round)).payload
        raise RunDirectoryError(
            f"the global model after round {round} of pre-training is not there, which this method needs: it was not "
            "kept, or cleaned away; pre-train with pretrain.history=true"
        )

    def _load(self, phase: str) -> Saved | None:
        path = self._directory.path / "checkpoints" / f"{phase}.safetensors"
        return read_saved(path) if path.exists() else None


def _history(round: int) -> str:
    return f"history/{round:06d}.safetensors"


def read_saved(path: Path) -> Saved:
    """A checkpoint from its file. Raises RunDirectoryError if it is not one."""
    tensors, about = files.read_tensors(path)
    try:
        figures = json.loads(about[MARK])
        payload = Payload(tensors["values"].astype(np.float32), tensors["counters"].astype(np.int64))
        kept = {name.partition(_STATE)[2]: array for name, array in tensors.items() if name.startswith(_STATE)}
        states = {client: kept[str(client)].astype(np.float32) for client in sorted(map(int, kept))}
        server = {name.removeprefix(_SERVER): array for name, array in tensors.items() if name.startswith(_SERVER)}
        return Saved(payload=payload, states=states, server=server, **figures)
    except (KeyError, TypeError, ValueError):
        raise RunDirectoryError(f"{path} is not a checkpoint of this version") from None


def encode_saved(saved: Saved) -> bytes:
    """A checkpoint as the bytes of a safetensors file."""
    figures = {"round": saved.round, "metrics": dict(saved.metrics), "figures": dict(saved.figures)}
    tensors: dict[str, np.ndarray[Any, Any]] = {"values": saved.payload.values, "counters": saved.payload.counters}
    tensors |= {f"{_STATE}{client}": state for client, state in saved.states.items()}
    tensors |= {f"{_SERVER}{name}": array for name, array in saved.server.items()}
    return save(tensors, metadata={MARK: json.dumps(figures)})

"""The recorder of a run directory: figures of every round, checkpoints, models, and the result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save

from fused_ray.config import schedule
from fused_ray.config import RunConfig
from fused_ray.core.adapter import Adapter
from fused_ray.core.metrics import mixed_accuracy
from fused_ray.core.rounds import RoundRecord, Saved
from fused_ray.core.simulation import Outcome
from fused_ray.errors import ConfigError, Interrupted, RunDirectoryError
from fused_ray.storage import files
from fused_ray.storage import schemas
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.remaining import seconds_left
from fused_ray.types import FloatVector, ImageData, IntVector, PartialSum, Payload, Scenario

RECENT = 64
"""How many finished rounds a progress carries."""

_STATE, _SERVER = "state.", "server."
"""What the names of clients' states in a checkpoint begin with, and of what the server keeps; a number or name follows."""


@dataclass(frozen=True)
class Finished:
    """A round that is over. Accuracies are those after it, None where it makes no model; bytes as all clients sent."""

    phase: str
    round: int
    rounds: int
    ra: float | None
    fa: float | None
    bytes_up: int
    seconds: float
    """Since the start of the run."""


@dataclass(frozen=True)
class Progress:
    """Where a run is. Seconds since the start of the run, bytes as sent by all clients in the last finished round."""

    phase: str = "start"
    round: int = 0
    rounds: int = 0
    finished: int = 0
    """How many of the phase's rounds are finished."""
    clients_done: int = 0
    clients: int = 0
    ra: float | None = None
    fa: float | None = None
    bytes_up: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    """Until the last round of the whole run, by an estimate; None before the first round is finished."""
    recent: tuple[Finished, ...] = ()
    """The last finished rounds, so that who looks only now and then misses none."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """What the user should know from the start, such as nodes that are not bit-comparable."""


def facts_of(data: ImageData, scenario: Scenario) -> dict[str, Any]:
    """What tells a run's data from others: their hash, and what the clients hold of them, in figures."""
    return {
        "data_sha256": data.sha256,
        "partition_sha256": scenario.partition_sha256,
        "examples": [len(held) for held in scenario.held],
        "retained": [len(kept) for kept in scenario.retained],
    }


def check_same_data(directory: RunDirectory, facts: Mapping[str, Any]) -> None:
    """Raise RunDirectoryError where the run began with other data than these facts tell of."""
    if not (directory.path / "scenario.json").exists():
        return
    # earlier versions did not write the data's hash
    known = {"data_sha256": facts["data_sha256"], **directory.read_json("scenario.json")}
    if any(known.get(name) != fact for name, fact in facts.items()):
        raise RunDirectoryError(
            f"{directory.path} cannot go on: when it began, its images or labels were others, or its clients held "
            "other data, or normalised them by another mean and deviation; restore the data set it was started with, "
            "or begin a new run"
        )


class DirectoryRecorder:
    """Writes one run. `listener` hears of progress; `stopped` says whether the user wants the run to end.

    `earlier` is the run whose pre-training this one goes on from, if it is one.
    """

    def __init__(
        self,
        directory: RunDirectory,
        data: ImageData,
        scenario: Scenario,
        listener: Callable[[Progress], None] = lambda progress: None,
        stopped: Callable[[], bool] = lambda: False,
        earlier: Path | None = None,
    ) -> None:
        self._directory, self._scenario, self._test_labels = directory, scenario, data.test_labels
        self._listener, self._stopped = listener, stopped
        self._earlier = [earlier] if earlier else []
        self._started = self._round_started = time.monotonic()
        self._rounds, self._cost = schedule.rounds(directory.config), schedule.cost(directory.config)
        self._took: dict[str, list[float]] = {}
        self._progress = Progress()
        self._counts, self._constants = _class_counts(scenario, data), (data.mean, data.std)
        self._about_data = {  # what building M_f and feeding it takes
            "shape": list(data.shape),
            "classes": data.classes,
            "class_names": list(data.class_names),
            "mean": list(data.mean),
            "std": list(data.std),
        }
        facts = facts_of(data, scenario) | {name: self._about_data[name] for name in ("mean", "std")}
        check_same_data(directory, facts)
        directory.write_json("scenario.json", facts)
        self._phases = schedule.phases(directory.config)
        self._saved = {phase: self._load(phase) for phase in self._phases}
        directory.drop_parts({self._part_prefix(phase): saved.round for phase, saved in self._saved.items() if saved})

    # -- the Recorder protocol

    def resume(self, phase: str) -> Saved | None:
        if phase not in self._saved:
            method = self._directory.config.unlearn.method
            raise ConfigError(f"unlearn.method: {method} has a phase {phase!r} that its Method.phases does not name")
        return self._saved[phase]

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self._round_started = time.monotonic()
        self._tell(phase=phase, round=round, rounds=rounds, finished=round - 1, clients_done=0, clients=clients)
        self.clients_done(0)

    def clients_done(self, count: int) -> None:
        if self._stopped():
            raise Interrupted(f"stopped in {self._progress.phase} round {self._progress.round}")
        if count:
            self._tell(clients_done=self._progress.clients_done + count)

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        part = f"{self._part_prefix(record.phase)}-{record.round:06d}"
        row = asdict(record) | {name: record.metrics.get(name) for name in schemas.METRICS}
        row["bytes_once"] = sum(record.once.values())
        row["bytes_up"] = record.bytes_up * record.clients_used
        row["bytes_down"] = record.bytes_down * record.clients_used + row["bytes_once"]
        self._directory.write_part("clients", part, self._client_rows(record, total, predictions))
        self._directory.write_part("rounds", part, _table([row], schemas.ROUNDS))
        self._directory.write(f"checkpoints/{record.phase}.safetensors", encode_saved(saved))
        self._saved[record.phase] = saved
        now, before = time.monotonic(), self._progress
        self._took.setdefault(record.phase, []).append(now - self._round_started)
        over = Finished(
            phase=record.phase,
            round=record.round,
            rounds=before.rounds,
            ra=row["ra"],
            fa=row["fa"],
            bytes_up=row["bytes_up"],
            seconds=now - self._started,
        )
        self._tell(
            finished=record.round,
            ra=before.ra if over.ra is None else over.ra,
            fa=before.fa if over.fa is None else over.fa,
            bytes_up=over.bytes_up,
            recent=(*before.recent[1 - RECENT :], over),
        )

    def save_model(self, name: str, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._directory.write(f"{name}.safetensors", files.encode_state(state, self._constants))

    def save_adapter(self, adapter: Adapter, values: FloatVector, about: Mapping[str, Any]) -> None:
        self._directory.write("adapter.safetensors", files.encode_adapter(adapter, values, about))

    def save_history(self, round: int, payload: Payload) -> None:
        self._directory.write(_history(round), encode_saved(Saved(round=round, payload=payload, metrics={})))

    def history(self, round: int) -> Payload:
        for place in (self._directory.path, *self._earlier):
            if (place / _history(round)).exists():
                return read_saved(place / _history(round)).payload
        raise RunDirectoryError(
            f"the global model after round {round} of pre-training was not kept, which this method needs; pre-train "
            "with pretrain.history=true"
        )

    # -- the result

    def note(self, text: str) -> None:
        """Tell the user something that holds for the whole run."""
        self._tell(notes=(*self._progress.notes, text))

    def result(self, config: RunConfig, outcome: Outcome, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The content of result.json, in plain values."""
        rounds = self._directory.table("rounds").to_pylist()
        unlearned, adapter = outcome.unlearned, outcome.unlearned.adapter
        fingerprints = sorted({identity.fingerprint for identity in outcome.identities})
        ranking = {item.layer: {k: v for k, v in asdict(item).items() if k != "layer"} for item in unlearned.ranking}
        return {
            "method": config.unlearn.method,
            "scenario": config.forget.scenario,
            "data": self._about_data,
            "metrics": {
                "before": outcome.before,
                "start": unlearned.start_metrics,
                "after": unlearned.metrics,
                "retrained": outcome.retrained,
            },
            "vacuous": outcome.vacuous,
            "layers": {
                "chosen": list(adapter.names) if adapter else [],
                "by": config.unlearn.ranking if ranking else None,
                "ranking": [{"layer": layer, **figures} for layer, figures in ranking.items()],
            },
            "adapter": adapter
            and {
                "kind": config.unlearn.adapter,
                "values": adapter.size,
                "start": config.adapter_start,
                "sparsity": 1 - adapter.size / adapter.entries if config.unlearn.adapter == "sparse" else None,
                "mask": config.adapter_mask,
                "mask_bytes": unlearned.mask_bytes,
                "lr": config.adapter_lr,
                "sha256": adapter.digest,
            },
            "storage_bytes": unlearned.storage_bytes,
            "figures": dict(unlearned.figures),
            "bytes": {phase: _phase_bytes(rounds, phase) for phase in self._phases},
            "seconds": {phase: _phase_seconds(rounds, phase) for phase in self._phases},
            "hash": {
                "base": outcome.base_hash,
                "unlearned": outcome.unlearned_hash,
                "restored": outcome.restored_hash,
            },
            "reversible": outcome.restored_hash == outcome.base_hash,
            "numerics": {
                "fingerprint": outcome.identities[0].fingerprint,
                "comparable": len(fingerprints) == 1,
                "fingerprints": fingerprints,
            },
            "partition_sha256": self._scenario.partition_sha256,
            "pretrain_key": config.pretrain_key(),
            "verdict": None,  # until it is audited
            "verdict_sentence": None,
            "verdict_rules": None,
            "findings": [],
            **extra,
        }

    # -- inside

    def _tell(self, **changes: Any) -> None:
        now = replace(self._progress, seconds=time.monotonic() - self._started, **changes)
        self._progress = replace(now, seconds_left=self._seconds_left(now))
        self._listener(self._progress)

    def _seconds_left(self, now: Progress) -> float | None:
        """Until the last round is over: the rounds of every phase that are not finished, the running one in part."""
        finished = {phase: saved.round for phase, saved in self._saved.items() if saved}
        left = {phase: float(count - finished.get(phase, 0)) for phase, count in self._rounds.items()}
        if now.phase in left and now.round > now.finished:
            left[now.phase] -= now.clients_done / max(1, now.clients)
        return seconds_left(left, self._took, self._cost)

    def _part_prefix(self, phase: str) -> str:
        """What the names of a phase's parts begin with: in the order of their names they are in that of the phases."""
        if phase in schedule.PHASES:
            return f"{schedule.PHASES.index(phase) + 1}-{phase}"
        return f"{schedule.OWN}{self._phases.index(phase):02d}-{phase}"

    def _load(self, phase: str) -> Saved | None:
        path = self._directory.path / "checkpoints" / f"{phase}.safetensors"
        return read_saved(path) if path.exists() else None

    def _client_rows(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None) -> pa.Table:
        rows = []
        for report in total.reports:
            row = asdict(report) | {"phase": record.phase, "round": record.round}
            received = record.bytes_down + record.once.get(report.client, 0)
            row |= {"bytes_up": record.bytes_up, "bytes_down": received, "evaluate_seconds": None}
            row["client_name"] = self._scenario.client_names[report.client] if self._scenario.client_names else None
            for name, counts in zip(("ra", "fa"), self._counts, strict=True):
                row[name] = None
                if predictions is not None:
                    view = self._scenario.views[name]
                    row[name] = mixed_accuracy(view, predictions, self._test_labels, counts[report.client])
            rows.append(row)
        return _table(rows, schemas.CLIENTS)


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [row[name] for row in rows] for name in schema.names}, schema=schema)


def _history(round: int) -> str:
    return f"history/{round:06d}.safetensors"


def read_saved(path: Path) -> Saved:
    """A checkpoint from its file. Raises RunDirectoryError if it is not one."""
    tensors, about = files.read_tensors(path)
    try:
        figures = json.loads(about["saved"])
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
    return save(tensors, metadata={"saved": json.dumps(figures)})


def _class_counts(scenario: Scenario, data: ImageData) -> tuple[list[IntVector], list[IntVector]]:
    """Per client the number of examples of each class in D_r and in D_u."""

    def count(indices: IntVector) -> IntVector:
        return np.bincount(data.train_labels[indices], minlength=data.classes)

    retained = [count(indices) for indices in scenario.retained]
    return retained, [count(scenario.held[c]) - kept for c, kept in enumerate(retained)]


def _phase_bytes(rounds: list[dict[str, Any]], phase: str) -> dict[str, int]:
    """Protocol bytes of a phase: of a usual round, and in all, what is sent once included."""
    rows = rows_of(rounds, phase)
    clients = rows[0]["clients_used"] if rows else 1
    return {
        "up_per_client_per_round": rows[0]["bytes_up"] // clients if rows else 0,
        "down_per_client_per_round": (rows[0]["bytes_down"] - rows[0]["bytes_once"]) // clients if rows else 0,
        "up_total": sum(row["bytes_up"] for row in rows),
        "down_total": sum(row["bytes_down"] for row in rows),
    }


def _phase_seconds(rounds: list[dict[str, Any]], phase: str) -> dict[str, float]:
    names = ("train", "aggregate", "evaluate")
    return {name: sum(row[f"{name}_seconds"] for row in rows_of(rounds, phase)) for name in names}


def rows_of(rounds: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    """The rows of one phase."""
    return [row for row in rounds if row["phase"] == phase]

"""The trainings once more that an audit asks for (audit.oracles), one after the other on the run's own pool.

What each came to is kept in a file of its own in the run's folder: an audit that is killed goes on with the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from safetensors.numpy import save

from fused_ray.audit.oracles import Anew, Kept, planned, train
from fused_ray.config import RunConfig, schedule
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import ClientPool
from fused_ray.core.rounds import Federation, RoundRecord, Saved
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays
from fused_ray.core.workspace import Workspace
from fused_ray.errors import Interrupted
from fused_ray.runs.clock import timetable
from fused_ray.runs.progress import RECENT, Finished, Progress
from fused_ray.runs.remaining import seconds_left
from fused_ray.storage.files import read_tensors
from fused_ray.storage.folder import Folder
from fused_ray.types import ImageData, IntVector, PartialSum, Scenario

FOLDER = "audit/anew"
"""Of a run: a file for each training."""


class _Recorder(MemoryRecorder):
    """Keeps one training in memory, and tells how far all of them are."""

    def __init__(self, teller: _Teller) -> None:
        super().__init__()
        self._teller = teller

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self._teller.begin(phase, round, rounds, clients)

    def clients_done(self, count: int) -> None:
        self._teller.done(count)

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        super().finish_round(record, total, predictions, saved)
        self._teller.finish(record)


class _Teller:
    """Tells a listener how far the trainings are. Raises Interrupted where the audit is to end."""

    def __init__(self, rounds: int, listener: Callable[[Progress], None], stopped: Callable[[], bool]) -> None:
        self._left, self._listener, self._stopped = rounds, listener, stopped
        self._started = self._round_started = time.monotonic()
        self._took: list[float] = []
        self._now = Progress()
        self.name = ""
        """Of the training."""

    def begin(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self._round_started, recent = time.monotonic(), self._now.recent
        name = f"{self.name} {phase}"
        self._now = Progress(phase=name, round=round, rounds=rounds, clients=clients, recent=recent)
        self.done(0)

    def done(self, clients: int) -> None:
        if self._stopped():
            raise Interrupted(f"stopped in {self._now.phase} round {self._now.round}")
        self._tell(clients_done=self._now.clients_done + clients)

    def finish(self, record: RoundRecord) -> None:
        self._left -= 1
        self._took.append(time.monotonic() - self._round_started)
        over = Finished(
            phase=self._now.phase,
            round=record.round,
            rounds=self._now.rounds,
            ra=record.metrics.get("ra"),
            fa=record.metrics.get("fa"),
            bytes_up=record.bytes_up * record.clients_received,
            seconds=time.monotonic() - self._started,
        )
        self._tell(finished=record.round, recent=(*self._now.recent[1 - RECENT :], over))

    def _tell(self, **changes: Any) -> None:
        left = seconds_left({"round": float(self._left)}, {"round": self._took}, {"round": 1.0})
        self._now = replace(self._now, seconds=time.monotonic() - self._started, seconds_left=left, **changes)
        self._listener(self._now)


def trained_anew(
    config: RunConfig,
    data: ImageData,
    scenario: Scenario,
    pool: ClientPool,
    directory: Folder,
    listener: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> Kept:
    """What all trainings came to that `config.audit` asks for; those that are there already are not done again.

    The pool has the run's own clients again afterwards. Raises what training raises.
    """
    kept: dict[str, Arrays] = {}
    todo: list[Anew] = []
    with standard():
        wanted = list(planned(Workspace(config, data, scenario)))
    for anew in wanted:
        path = directory.path / FOLDER / f"{anew.name}.safetensors"
        if path.exists():
            kept[anew.name] = read_tensors(path)[0]
        else:
            todo.append(anew)
    tell = _Teller(sum(schedule.anew(config, each.retrains) for each in todo), listener, stopped)
    for anew in todo:
        tell.name = anew.name
        kept[anew.name] = _trained(anew, pool, _Recorder(tell))
        directory.write(f"{FOLDER}/{anew.name}.safetensors", save(kept[anew.name]))
    if todo:
        pool.assign(config, data, scenario)  # further metrics train with it
    return kept


def _trained(anew: Anew, pool: ClientPool, recorder: MemoryRecorder) -> Arrays:
    config, data = anew.config, anew.data
    pool.assign(config, data, anew.scenario)
    clock = timetable(config, data.shape, data.classes)
    return train(Federation(config, data, anew.scenario, pool, recorder, clock), anew)

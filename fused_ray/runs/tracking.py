"""What a run tells its trackers (`output.trackers`): figures and its configuration, and nothing of any data.

Neither an image, nor a label, nor which examples or clients must be forgotten ever goes to a tracker.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fused_ray.config import RunConfig
from fused_ray.config.kinds import RUN
from fused_ray.core.standard import kept
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.events import AuditOver, Event, RoundOver, RunBegins, RunEnds
from fused_ray.seeding import untouched
from fused_ray.storage.folder import kind_of_folder

_OF_ROUND = ("ra", "fa", "loss", "bytes_up_total", "bytes_down_total")
"""Columns of rounds.parquet that are told of a round, beside its seconds."""
_OF_RESULT = ("metrics", "bytes", "seconds", "figures", "storage_bytes", "failures", "retries", "reversible",
              "wall_seconds")  # fmt: skip
"""Fields of result.json that are told when a run ends."""
_WORDS = ("verdict", "verdict_sentence")
_WHO = ("forget.examples", "forget.clients", "forget.owner", "forget.args")
"""Fields that say whose data must be forgotten, and which: they are left out."""
_ODD = re.compile(r"[^\w\-./ ]")

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """A run as trackers know it."""

    key: str
    """The same whenever it goes on, wherever its folder is then; no other run's."""
    folder: Path
    study: str
    """The name of the study that it is of; empty if it is of none."""
    settings: Mapping[str, Any]
    """Its configuration, field by field: numbers, switches and text."""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.folder.name


class Service(Protocol):
    """One tracker's own way. Methods may raise anything."""

    def begin(self, subject: Subject) -> None:
        """A run begins, or goes on: then with the tracker's run that it had."""
        ...

    def log(self, figures: Figures, step: int) -> None:
        """Figures of a round; steps grow."""
        ...

    def conclude(self, figures: Figures, words: Mapping[str, str]) -> None:
        """What came of it."""
        ...

    def end(self, done: bool) -> None:
        """Nothing follows; not `done`: the run may go on later."""
        ...


class Tracking:
    """A sink that tells one tracker. It touches neither PyTorch's settings nor what a process draws from."""

    def __init__(self, service: Service) -> None:
        self._service, self._rounds = service, dict[str, int]()
        self._begun = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunBegins | RoundOver | AuditOver | RunEnds):
            with kept(), untouched(), _apart():
                self._hear(event)

    def _hear(self, event: RunBegins | RoundOver | AuditOver | RunEnds) -> None:
        match event:
            case RunBegins():
                self._rounds = dict(event.rounds)
                self._begin(event.directory, event.config)
            case RoundOver():
                self._service.log(of_round(event), self._step(event))
            case AuditOver() if not self._begun:  # it comes after its run
                self._begin(event.directory, RunDirectory.open(event.directory, older=True).config)
                self._service.conclude({}, _words(event.report))
                self._service.end(done=True)
            case RunEnds() if self._begun:
                if event.result is not None:
                    self._service.conclude(of_result(event.result), _words(event.result))
                self._service.end(done=event.result is not None)

    def _begin(self, folder: Path, config: RunConfig) -> None:
        self._service.begin(subject_of(folder, config))
        self._begun = True

    def _step(self, event: RoundOver) -> int:
        """The round's number in the run."""
        before = 0
        for phase, rounds in self._rounds.items():
            if phase == event.phase:
                break
            before += rounds
        return before + event.round


@contextmanager
def _apart() -> Iterator[None]:
    """Inside, nobody at a terminal is asked anything, and what is printed is no result of ours."""
    before = sys.stdin
    with open(os.devnull) as nothing, redirect_stdout(sys.stderr):
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def of_round(event: RoundOver) -> Figures:
    """A round's figures, by phase: `unlearn/ra`."""
    told = {name: event.row[name] for name in _OF_ROUND} | {"seconds": event.seconds, "round": event.round}
    return dict(_numbers(told, event.phase))


def of_result(result: Mapping[str, Any]) -> Figures:
    """The figures of result.json, and those of further metrics: `result/metrics/after/ra`."""
    told = {name: result[name] for name in _OF_RESULT}
    told["audit_metrics"] = {
        figure["name"]: figure["value"]
        for figure in result["audit_metrics"]
        if not figure["name"].startswith("worst_client")  # they are single clients'
    }
    return dict(_numbers(told, "result"))


def _numbers(told: Mapping[str, Any], above: str) -> Iterator[tuple[str, float]]:
    """The finite numbers among these values and the mappings in them, each with its path; lists are no figures."""
    for name, value in told.items():
        path = _ODD.sub("_", f"{above}/{name}")
        if isinstance(value, Mapping):
            yield from _numbers(value, path)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield path, float(value)


def _words(told: Mapping[str, Any]) -> dict[str, str]:
    told = {"verdict_sentence": told.get("sentence"), **told}  # as audit.json has it
    return {name: told[name] for name in _WORDS if told.get(name)}


def subject_of(folder: Path, config: RunConfig) -> Subject:
    """A run as trackers know it, by its folder."""
    directory = RunDirectory.open(folder, older=True)
    first, _ = directory.times
    # of what is told besides, so that nobody finds out by trying what is not: who is forgotten
    own = dict(_settings(directory.config.model_dump(mode="json", by_alias=True)))
    key = hashlib.blake2b(f"{json.dumps(own)} {first}".encode(), digest_size=8).hexdigest()
    above = folder.parents[1:3]
    study = next((place.name for place in above if kind_of_folder(place) != RUN), "")
    return Subject(key, folder, study, dict(_settings(config.model_dump(mode="json", by_alias=True))))


def _settings(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{above}{name}"
        if key in _WHO or value is None:
            continue
        if isinstance(value, Mapping):
            yield from _settings(value, f"{key}.")
        else:
            yield key, json.dumps(value) if isinstance(value, list) else value

"""Who is told of a run's events: its tables, whoever watches its progress, and the user's callbacks.

The tables must not fail: bytes and seconds in result.json, a comparison's equivalents and a sweep's rows are computed
from them when a run ends, over all of its starts, and a round that was saved without its rows would be missing there
for ever. So they are written before the checkpoint of a round, and an error there ends the run, which goes on from the
round before. Whatever else listens is the user's, and no more than told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa

from fused_ray.config import OutputConfig, schedule
from fused_ray.core.standard import kept
from fused_ray.errors import Interrupted, in_one_line
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.events import AuditOver, Event, Noted, PhaseBegins, RoundOver, RunBegins, RunEnds
from fused_ray.runs.trackers import trackers_of
from fused_ray.seeding import untouched
from fused_ray.storage import schemas

Sink = Callable[[Event], None]


class Tables:
    """rounds.parquet and clients.parquet of a run: a part per finished round."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory, self._phases = directory, schedule.phases(directory.config)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundOver):
            part = f"{self._prefix(event.phase)}-{event.round:06d}"
            if event.clients:
                clients = pa.table(dict(event.clients.columns), schema=schemas.CLIENTS)
                self._directory.write_part("clients", part, clients)
            row = {name: [event.row[name]] for name in schemas.ROUNDS.names}
            self._directory.write_part("rounds", part, pa.table(row, schema=schemas.ROUNDS))

    def drop_beyond(self, finished: Mapping[str, int]) -> None:
        """Remove the rows of rounds that were written, but not saved: those above a phase's last saved one."""
        self._directory.drop_parts({self._prefix(phase): round for phase, round in finished.items()})

    def _prefix(self, phase: str) -> str:
        """What the names of a phase's parts begin with: in the order of their names they are in that of the phases."""
        if phase in schedule.PHASES:
            return f"{schedule.PHASES.index(phase) + 1}-{phase}"
        return f"{schedule.OWN}{self._phases.index(phase):02d}-{phase}"


class Guarded:
    """Something of the user's that is called with what happens, and called no more once it has raised.

    Interrupted alone passes: it ends the run, which can be gone on with.
    """

    def __init__(self, name: str, call: Callable[[Any], None], failed: Callable[[str], None] | None = None) -> None:
        self._name, self._call, self._failed, self._on = name, call, failed, True

    def __call__(self, told: Any) -> None:
        if not self._on:
            return
        try:
            self._call(told)
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code does
            self._on = False
            text = f"{self._name}: {in_one_line(error)}; it hears no more, everything else goes on"
            print(text, file=sys.stderr)
            if self._failed is not None:
                self._failed(text)


class _CallbackSink:
    """Calls a callback's methods. It can change neither the run's settings of PyTorch nor what others are told."""

    def __init__(self, given: Any) -> None:
        self._given, self._object = given, None if isinstance(given, type) else given

    def __call__(self, event: Event) -> None:
        match event:
            case RunBegins():
                self._tell("on_run", event)
            case PhaseBegins():
                self._tell("on_phase", event)
            case RoundOver():
                if hasattr(self._given, "on_client"):
                    for client in event.clients:
                        self._tell("on_client", client)
                self._tell("on_round", event)
            case AuditOver():
                self._tell("on_audit", event)
            case RunEnds():
                self._tell("on_end", event)

    def _tell(self, name: str, event: Any) -> None:
        if hasattr(self._given, name):
            with kept(), untouched():
                if self._object is None:
                    self._object = self._given()
                getattr(self._object, name)(deepcopy(event))


class Sinks:
    """All that listen and may fail. `notes` is what was told of the whole run so far."""

    def __init__(self, watching: Sink, output: OutputConfig, own: Sequence[Any] = ()) -> None:
        """`own` are callbacks of this process, beside those that `output` names. Trackers come first: a callback may
        end the run with a round that they should hear of."""
        callbacks = {name: _CallbackSink(given) for name, given in callbacks_of(output, own).items()}
        listeners: dict[str, Sink] = {**trackers_of(output), **callbacks}
        self._sinks = [watching]
        self._sinks += [Guarded(name, sink, self.note) for name, sink in listeners.items()]
        self.notes: list[str] = []

    def __call__(self, event: Event) -> None:
        for sink in self._sinks:
            sink(event)

    def note(self, text: str) -> None:
        """Tell the user something that holds for the whole run."""
        self.notes.append(text)
        self(Noted(text))


def callbacks_of(output: OutputConfig, own: Sequence[Any] = ()) -> dict[str, Any]:
    """The callbacks that a configuration names, and objects of this process, by what messages call them."""
    named = {f"output.callbacks: {name}": given for name, given in output.listeners.items()}
    here = {f"callbacks[{number}] ({_kind(given)})": given for number, given in enumerate(own)}
    return named | here


def _kind(given: Any) -> str:
    return given.__name__ if isinstance(given, type) else type(given).__name__


def tell_audit(output: OutputConfig, folder: Path, report: Mapping[str, Any]) -> None:
    """Tell the callbacks of an audit that comes after its run."""
    Sinks(lambda event: None, output)(AuditOver(directory=folder, report=report))

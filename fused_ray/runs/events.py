"""What happens in a run, as events that its driver tells to whoever listens, and the base class of callbacks.

Each listener is given copies of plain values: whatever it does to them changes neither the run nor its tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from fused_ray.config import RunConfig

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunBegins:
    """A run is begun, or gone on with."""

    directory: Path
    config: RunConfig
    rounds: Mapping[str, int]
    """The rounds of each phase that it will go through, in order."""
    finished: Mapping[str, int]
    """How many of them were finished before this start; they are not told again."""


@dataclass(frozen=True, kw_only=True)
class PhaseBegins:
    """The first round of a phase that is run in this start is about to begin."""

    phase: str
    rounds: int
    finished: int


@dataclass(frozen=True, kw_only=True)
class RoundBegins:
    """A round begins with so many clients."""

    phase: str
    round: int
    rounds: int
    clients: int


@dataclass(frozen=True)
class ClientsDone:
    """So many more clients of the round are done."""

    count: int


@dataclass(frozen=True, kw_only=True)
class ClientOver:
    """What one client did in a round that is over."""

    phase: str
    round: int
    client: int
    row: Row
    """Its row of clients.parquet."""


class ClientsOver(Sequence[ClientOver]):
    """What the clients of a round did that have rows, made from columns when one is asked for."""

    def __init__(self, phase: str, round: int, columns: Mapping[str, Sequence[Any]]) -> None:
        self._phase, self._round = phase, round
        self.columns = columns
        """Of clients.parquet, by name."""

    def __len__(self) -> int:
        return len(self.columns["client"])

    @overload
    def __getitem__(self, at: int) -> ClientOver: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[ClientOver]: ...
    def __getitem__(self, at: int | slice) -> ClientOver | Sequence[ClientOver]:
        if isinstance(at, slice):
            return [self[one] for one in range(len(self))[at]]
        row = {name: column[at] for name, column in self.columns.items()}
        return ClientOver(phase=self._phase, round=self._round, client=row["client"], row=row)


@dataclass(frozen=True, kw_only=True)
class RoundOver:
    """A round is over, and nothing of it can be lost any more."""

    phase: str
    round: int
    rounds: int
    metrics: Mapping[str, float]
    """Accuracies after it by view, `ra` and `fa` among them; empty where it makes no model."""
    bytes_up: int
    """Protocol bytes that all clients sent."""
    bytes_down: int
    """Protocol bytes that all clients received."""
    seconds: float
    """Wall seconds of training, averaging and evaluation."""
    row: Row
    """Its row of rounds.parquet."""
    clients: ClientsOver
    """Those that `output.clients` keeps."""


@dataclass(frozen=True, kw_only=True)
class AuditOver:
    """The model that forgot has been judged."""

    directory: Path
    report: Mapping[str, Any]
    """The content of audit.json; where the audit failed, `verdict`, `verdict_sentence` and `findings` alone."""


@dataclass(frozen=True)
class Noted:
    """Something that the user should know of the whole run."""

    text: str


@dataclass(frozen=True, kw_only=True)
class RunEnds:
    """The run is over: with its result, or with an error after which `--resume` may go on."""

    result: Mapping[str, Any] | None
    error: str | None


Event = RunBegins | PhaseBegins | RoundBegins | ClientsDone | RoundOver | AuditOver | Noted | RunEnds


class Callback:
    """A base class of callbacks; any object with some of these methods will do.

    They are called in the driver, one after the other, while the run waits. One that raises is told to the user in one
    line and called no more; the run goes on. Only `fused_ray.api.Interrupted` ends the run, which can be gone on with.
    A class is made into a new object for each run, without arguments.
    """

    def on_run(self, event: RunBegins) -> None:
        """The run begins, or goes on."""

    def on_phase(self, event: PhaseBegins) -> None:
        """A phase begins, or goes on."""

    def on_round(self, event: RoundOver) -> None:
        """A round is over and kept."""

    def on_client(self, event: ClientOver) -> None:
        """For each client of a round that is over and that `output.clients` keeps, before `on_round`."""

    def on_audit(self, event: AuditOver) -> None:
        """The model was judged. In a comparison or a sweep that comes after the run, to a new object."""

    def on_end(self, event: RunEnds) -> None:
        """The run is over, finished or not."""

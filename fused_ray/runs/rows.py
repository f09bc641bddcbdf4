"""The rows of a finished round in a run's tables (storage.schemas)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fused_ray.config import RunConfig
from fused_ray.core.metrics import mixed_accuracies
from fused_ray.core.process import resident_bytes
from fused_ray.core.rounds import RoundRecord
from fused_ray.data.summary import MANY_CLIENTS
from fused_ray.runs.events import ClientsOver, RoundOver
from fused_ray.seeding import bits
from fused_ray.storage import schemas
from fused_ray.types import ClientReport, ImageData, IntVector, PartialSum, Parts, Scenario, TestView

_CELLS = 1 << 22
"""Clients times classes whose accuracies are computed at once."""
_REPORTED = tuple(field.name for field in fields(ClientReport) if field.name in schemas.CLIENTS.names)


class Rows:
    """Makes rows of what is recorded of a round. What that costs grows with the clients that took part alone."""

    def __init__(self, config: RunConfig, data: ImageData, scenario: Scenario) -> None:
        self._config, self._scenario, self._data = config, scenario, data
        count = len(data.test_labels)
        self._plain = data.test_labels[: count // 2 if scenario.trigger else count]
        """True classes of the test images without a trigger."""
        self._lot: NDArray[np.uint64] | None = None
        """By client a random number; the lowest ones are the sample."""
        if config.output.clients == "sample":
            self._lot = bits(len(scenario.held), config.seed, "output/clients")

    def over(
        self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, *, rounds: int, started_at: float
    ) -> RoundOver:
        """A round that is over, with its rows: of so many in its phase, and when it began, seconds since 1970."""
        row = {field.name: getattr(record, field.name) for field in fields(record)}
        row |= {name: record.metrics.get(name) for name in schemas.METRICS}
        row["bytes_once"] = sum(record.once.values())
        row["bytes_up"] = row["bytes_up_total"] = record.bytes_up * record.clients_received
        row["bytes_down"] = row["bytes_down_total"] = record.bytes_down * record.clients_expected + row["bytes_once"]
        row["bytes_up_client"], row["bytes_down_client"] = record.bytes_up, record.bytes_down
        row["started_at"] = _time(started_at)
        row["memory"] = resident_bytes()
        row["retries"] = sum(report.attempt - 1 for report in total.reports)
        row["class_accuracy"] = None if predictions is None else self._by_class(predictions)
        last = record.round == rounds
        row["confusion"] = self._confusion(predictions) if last and predictions is not None else None
        kept = self._kept(total.reports)
        row["examples_shown"] = self._shown(record, total.reports)
        return RoundOver(
            phase=record.phase,
            round=record.round,
            rounds=rounds,
            metrics=record.metrics,
            bytes_up=row["bytes_up"],
            bytes_down=row["bytes_down"],
            seconds=record.train_seconds + record.aggregate_seconds + record.evaluate_seconds,
            row={name: row[name] for name in schemas.ROUNDS.names},
            clients=self._clients(record, kept, predictions),
        )

    def _kept(self, reports: Sequence[ClientReport]) -> Sequence[ClientReport]:
        """Those whose clients get rows."""
        output = self._config.output
        if output.clients == "none":
            return ()
        if self._lot is None or len(reports) <= output.clients_sample:
            return reports
        order = np.argsort(self._lot[[report.client for report in reports]], kind="stable")
        return [reports[at] for at in np.sort(order[: output.clients_sample])]

    def _shown(self, record: RoundRecord, reports: Sequence[ClientReport]) -> int:
        """Examples that all clients were shown in the round, repeats counted."""
        times = Counter(report.examples for report in reports)
        show = self._config.method.shown
        return sum(count * show(self._config, record.phase, record.round, size) for size, count in times.items())

    def _clients(
        self, record: RoundRecord, reports: Sequence[ClientReport], predictions: IntVector | None
    ) -> ClientsOver:
        names, clients = self._scenario.client_names, [report.client for report in reports]
        columns: dict[str, list[Any]] = {name: [getattr(report, name) for report in reports] for name in _REPORTED}
        columns["phase"], columns["round"] = [record.phase] * len(reports), [record.round] * len(reports)
        columns["bytes_up"] = columns["bytes_up_client"] = [record.bytes_up] * len(reports)
        down = [record.bytes_down + record.once.get(client, 0) for client in clients]
        columns["bytes_down"] = columns["bytes_down_client"] = down
        columns["client_name"] = [names[client] if names else None for client in clients]
        columns["started_at"] = [_time(report.started_at) for report in reports]
        for name, on in (("ra", self._scenario.retained), ("fa", self._scenario.gone)):
            columns[name] = [None] * len(reports)
            if predictions is not None:
                columns[name] = self._accuracies(self._scenario.views[name], predictions, on, clients)
        ordered = {name: columns[name] for name in schemas.CLIENTS.names}
        return ClientsOver(record.phase, record.round, ordered)

    def _accuracies(
        self, view: TestView, predictions: IntVector, on: Parts, clients: Sequence[int]
    ) -> list[float | None]:
        """A view's accuracy by each client's own mix of classes among such examples, of their true classes."""
        found: list[float | None] = []
        classes, size = self._data.classes, max(1, _CELLS // self._data.classes)
        for start in range(0, len(clients), size):
            counts = on.take(clients[start : start + size]).counts(self._data.train_labels, classes)
            found += mixed_accuracies(view, predictions, self._data.test_labels, counts)
        return found

    def _confusion(self, predictions: IntVector) -> list[int] | None:
        """How many of the test images of `_by_class` are of which class and taken for which [classes * classes]."""
        classes, true = self._data.classes, self._plain
        if classes > schemas.MOST_CONFUSED:
            return None
        pairs = true * classes + predictions[: len(true)]
        return [int(count) for count in np.bincount(pairs, minlength=classes**2)]

    def _by_class(self, predictions: IntVector) -> list[float | None]:
        """Accuracy on the test images of each class, as they are: copies with a trigger stand behind these."""
        true = self._plain
        size = np.bincount(true, minlength=self._data.classes)
        right = np.bincount(true, predictions[: len(true)] == true, minlength=self._data.classes)
        return [float(r / n) if n else None for r, n in zip(right, size, strict=True)]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def held(data: ImageData, scenario: Scenario) -> pa.Table:
    """held.parquet: who holds how many examples of which class, and how many of them must be forgotten."""
    first = range(min(len(scenario.held), MANY_CLIENTS))
    labels, names = scenario.train_labels, scenario.client_names
    own, kept = (parts.take(first).counts(labels, data.classes) for parts in (scenario.held, scenario.retained))
    columns = {
        "client": list(first),
        "client_name": [names[client] if names else None for client in first],
        "held": own.tolist(),
        "to_forget": (own - kept).tolist(),
    }
    return pa.table(columns, schema=schemas.HELD)


def phase_bytes(rounds: list[dict[str, Any]], phase: str) -> dict[str, int]:
    """Protocol bytes of a phase: of a usual round, and in all, what is sent once included."""
    rows = rows_of(rounds, phase)
    heard = [row for row in rows if row.get("clients_received", 1)] or rows
    first = heard[0] if heard else dict.fromkeys(("bytes_up", "bytes_down", "bytes_once"), 0)
    answered, asked = first.get("clients_received", 1), first.get("clients_expected", 1)  # who failed was sent to
    return {
        "up_per_client_per_round": first["bytes_up"] // max(1, answered),
        "down_per_client_per_round": (first["bytes_down"] - first["bytes_once"]) // asked,
        "up_total": sum(row["bytes_up"] for row in rows),
        "down_total": sum(row["bytes_down"] for row in rows),
    }


def phase_seconds(rounds: list[dict[str, Any]], phase: str) -> dict[str, float]:
    """Wall seconds of a phase by what they went to."""
    names = ("train", "aggregate", "evaluate")
    return {name: sum(row[f"{name}_seconds"] for row in rows_of(rounds, phase)) for name in names}


def rows_of(rounds: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    """The rows of one phase."""
    return [row for row in rounds if row["phase"] == phase]

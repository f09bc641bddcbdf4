"""The rows of a finished round in a run's tables (storage.schemas)."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np

from fused_ray.core.metrics import mixed_accuracy
from fused_ray.core.rounds import RoundRecord
from fused_ray.runs.events import ClientOver, RoundOver
from fused_ray.storage import schemas
from fused_ray.types import ImageData, IntVector, PartialSum, Scenario


class Rows:
    """Makes rows of what is recorded of a round."""

    def __init__(self, data: ImageData, scenario: Scenario) -> None:
        self._scenario, self._classes, self._test_labels = scenario, data.classes, data.test_labels
        self._counts = _class_counts(scenario, data)

    def over(
        self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, *, rounds: int, started_at: float
    ) -> RoundOver:
        """A round that is over, with its rows: of so many in its phase, and when it began, seconds since 1970."""
        row = asdict(record) | {name: record.metrics.get(name) for name in schemas.METRICS}
        row["bytes_once"] = sum(record.once.values())
        row["bytes_up"] = row["bytes_up_total"] = record.bytes_up * record.clients_used
        row["bytes_down"] = row["bytes_down_total"] = record.bytes_down * record.clients_expected + row["bytes_once"]
        row["bytes_up_client"], row["bytes_down_client"] = record.bytes_up, record.bytes_down
        row["started_at"] = _time(started_at)
        row["retries"] = sum(report.attempt - 1 for report in total.reports)
        row["class_accuracy"] = None if predictions is None else self._by_class(predictions)
        return RoundOver(
            phase=record.phase,
            round=record.round,
            rounds=rounds,
            metrics=record.metrics,
            bytes_up=row["bytes_up"],
            bytes_down=row["bytes_down"],
            seconds=record.train_seconds + record.aggregate_seconds + record.evaluate_seconds,
            row={name: row[name] for name in schemas.ROUNDS.names},
            clients=tuple(self._clients(record, total, predictions)),
        )

    def _clients(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None) -> list[ClientOver]:
        names = self._scenario.client_names
        over = []
        for report in total.reports:
            row: dict[str, Any] = asdict(report) | {"phase": record.phase, "round": record.round}
            row["bytes_up"] = row["bytes_up_client"] = record.bytes_up
            row["bytes_down"] = row["bytes_down_client"] = record.bytes_down + record.once.get(report.client, 0)
            row["client_name"] = names[report.client] if names else None
            row["started_at"] = _time(report.started_at)
            for name, counts in zip(("ra", "fa"), self._counts, strict=True):
                row[name] = None
                if predictions is not None:
                    view = self._scenario.views[name]
                    row[name] = mixed_accuracy(view, predictions, self._test_labels, counts[report.client])
            row = {name: row[name] for name in schemas.CLIENTS.names}
            over.append(ClientOver(phase=record.phase, round=record.round, client=report.client, row=row))
        return over

    def _by_class(self, predictions: IntVector) -> list[float | None]:
        """Accuracy on the test images of each class, as they are: copies with a trigger stand behind these."""
        count = len(self._test_labels) // 2 if self._scenario.trigger else len(self._test_labels)
        true = self._test_labels[:count]
        size = np.bincount(true, minlength=self._classes)
        right = np.bincount(true, predictions[:count] == true, minlength=self._classes)
        return [float(r / n) if n else None for r, n in zip(right, size, strict=True)]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _class_counts(scenario: Scenario, data: ImageData) -> tuple[list[IntVector], list[IntVector]]:
    """Per client the number of examples of each class in D_r and in D_u."""

    def count(indices: IntVector) -> IntVector:
        return np.bincount(data.train_labels[indices], minlength=data.classes)

    retained = [count(indices) for indices in scenario.retained]
    return retained, [count(scenario.held[c]) - kept for c, kept in enumerate(retained)]


def phase_bytes(rounds: list[dict[str, Any]], phase: str) -> dict[str, int]:
    """Protocol bytes of a phase: of a usual round, and in all, what is sent once included."""
    rows = rows_of(rounds, phase)
    clients = rows[0]["clients_used"] if rows else 1
    return {
        "up_per_client_per_round": rows[0]["bytes_up"] // clients if rows else 0,
        "down_per_client_per_round": (rows[0]["bytes_down"] - rows[0]["bytes_once"]) // clients if rows else 0,
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

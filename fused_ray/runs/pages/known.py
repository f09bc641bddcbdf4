"""What is known of a finished run, whichever version made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fused_ray.config import RunConfig, schedule
from fused_ray.errors import FusedRayError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.earlier import earlier_run
from fused_ray.runs.rows import rows_of

Row = Mapping[str, Any]
MODELS = {"before": 2, "after": 0, "retrained": 1}
"""A run's models in the order of tables, each with its colour and shape in charts."""
NOT_RECORDED = "not recorded by the version that made this run"


@dataclass(frozen=True)
class Known:
    """A run, and what it came to."""

    directory: RunDirectory
    result: Mapping[str, Any]
    """What result.json has, or will have."""

    @cached_property
    def config(self) -> RunConfig:
        return self.directory.config

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """All rows of rounds.parquet."""
        rows: list[dict[str, Any]] = self.directory.table("rounds").to_pylist()
        return rows

    @cached_property
    def phases(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each phase that has any, in order."""
        found = {phase: rows_of(self.rounds, phase) for phase in schedule.phases(self.config)}
        return {phase: rows for phase, rows in found.items() if rows}

    @cached_property
    def audit(self) -> dict[str, Any] | None:
        """What the audit found; None where there was none."""
        path = self.directory.path / "audit.json"
        return self.directory.read_json("audit.json") if path.exists() and self.result.get("verdict") else None

    @cached_property
    def classes(self) -> list[str]:
        """Their names, with their numbers where those are not the names."""
        names = self.result["data"]["class_names"]
        return [name if name == str(number) else f"{number} {name}" for number, name in enumerate(names)]

    @property
    def forgotten_classes(self) -> Sequence[int]:
        """What is forgotten as whole classes; none where the scenario is about something else."""
        whole = {"class": None, "exclusive": 1}
        scenario = self.config.forget.scenario
        return self.config.forget_classes[: whole[scenario]] if scenario in whole else ()

    @cached_property
    def last(self) -> dict[str, Row]:
        """The last row of the phase that made each model, where it is the very model that the result tells of."""
        found: dict[str, Row] = {}
        for model, (rows, accuracies) in self._made.items():
            row = rows[-1] if rows else None
            if row is not None and accuracies and row["ra"] == accuracies["ra"] and row["fa"] == accuracies["fa"]:
                found[model] = row
        elsewhere = None if "before" in found else self._before_elsewhere()
        if elsewhere is not None:
            found["before"] = elsewhere
        return found

    @property
    def _made(self) -> dict[str, tuple[list[dict[str, Any]], Mapping[str, float] | None]]:
        metrics, own = self.result["metrics"], "retrain" if self.result["method"] == "retrain" else self._own_phase
        return {
            "before": (self.phases.get("pretrain", []), metrics["before"]),
            "after": (self.phases.get(own, []), metrics["after"]),
            "retrained": (self.phases.get("retrain", []), metrics["retrained"]),
        }

    @property
    def _own_phase(self) -> str:
        return schedule.main_phase({**self.result["bytes"], "retrain": {"up_total": 0}})

    def _before_elsewhere(self) -> Row | None:
        """Of M_r, where an earlier run made it that is still there."""
        try:
            source = earlier_run(self.config)
            if source is None:
                return None
            there = RunDirectory.open(source, older=True)
            if there.result["hash"]["base"] != self.result["hash"]["base"]:
                return None
            rows = rows_of(there.table("rounds").to_pylist(), "pretrain")
        except FusedRayError:
            return None
        return rows[-1] if rows else None

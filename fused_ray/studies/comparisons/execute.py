"""A comparison inside its directory, on any pool: base runs, shadow models, cells, audits, and the table of them all.

Every run in it is an ordinary one in a directory of its own, so whatever is killed goes on from its last round. A
finished cell is never run again; one that fails is recorded with its reason, the others go on, and a resumed
comparison tries it once more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import DataConfig, RunConfig, schedule
from fused_ray.config.fields import Plots
from fused_ray.core.rounds import Federation
from fused_ray.core.standard import standard
from fused_ray.data import datasets
from fused_ray.errors import Interrupted, RunDirectoryError, in_one_line
from fused_ray.runs import audits
from fused_ray.runs import execute as single
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import MakePool
from fused_ray.runs.progress import Progress as RunProgress
from fused_ray.runs.remaining import Steps
from fused_ray.runs.sinks import Guarded, tell_audit
from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.studies.comparisons import plots, rows, tables
from fused_ray.studies.comparisons.config import Cell, CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.types import ImageData, Scenario


@dataclass(frozen=True)
class Progress:
    """Where a comparison is."""

    step: int
    """Which of its runs, from 1; shadow models count as one."""
    steps: int
    name: str
    """The run that goes on."""
    run: RunProgress
    seconds_left: float | None = None
    """Until the whole comparison is done, by an estimate; None before the first round is finished."""


@standard()
def execute(
    directory: ComparisonDirectory,
    config: CompareConfig,
    make_pool: MakePool,
    listener: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Run what is still to be done and return the content of result.json.

    `make_pool` is best a lease, which keeps the workers from run to run. Raises Interrupted when stopped, and
    RunDirectoryError if no cell at all could be run.
    """
    config.check_parts_of_driver()
    directory.lock(LOCK_WAIT)
    try:
        hear = Guarded("the listener to progress", listener)
        return _Comparison(directory, config, make_pool, hear, stopped, notes).run()
    finally:
        directory.unlock()


def redraw(directory: ComparisonDirectory, form: Plots) -> None:
    """Draw a finished comparison's plots once more, in another format."""
    directory.lock(LOCK_WAIT)
    try:
        plots.draw(directory, directory.rows, form)
    finally:
        directory.unlock()


class _Comparison:
    def __init__(
        self,
        directory: ComparisonDirectory,
        config: CompareConfig,
        make_pool: MakePool,
        listener: Callable[[Progress], None],
        stopped: Callable[[], bool],
        notes: Sequence[str],
    ) -> None:
        self.directory, self.config, self.make_pool = directory, config, make_pool
        self.stopped, self._listener, self._notes = stopped, listener, notes
        self._read = lru_cache(maxsize=len(config.seeds))(datasets.load)
        self._steps = _steps(config)
        kinds = [step.kind for step in self._steps.values()]
        self._left = Steps(kinds, {step.kind: step.cost for step in self._steps.values()})

    def run(self) -> dict[str, Any]:
        found = {(row["scenario"], row["seed"], row["method"]): row for row in self.directory.rows}
        order = [(cell.scenario, cell.seed, cell.method) for cell in self.config.cells]
        for _, of_scenario in groupby(self.config.cells, key=lambda cell: cell.scenario):
            groups = [_Group(self, list(cells)) for _, cells in groupby(of_scenario, key=lambda cell: cell.seed)]
            for number, group in enumerate(groups):
                group.others = groups[number + 1 :] + groups[:number]
                group.pretrain()
            for group in groups:
                for cell in group.cells:
                    key = cell.scenario, cell.seed, cell.method
                    found[key] = group.row(cell, found.get(key, {}))
                    self.directory.write_table("results", self.table(found[k] for k in order if k in found))
        return self._conclude([found[key] for key in order])

    def table(self, found: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Rows as results.parquet has them."""
        return rows.table(found, self.config.audit.further)

    def attempt(self, config: RunConfig, step: str) -> tuple[RunDirectory | None, str]:
        """A run, finished, or why it could not be."""
        try:
            return single.finish(config, self.make_pool, self.hear(step), self.stopped, self._notes, self.prepare), ""
        except Interrupted:
            raise
        except Exception as error:  # parts from elsewhere raise anything: the other cells go on
            return None, in_one_line(error)

    def prepare(self, config: RunConfig) -> tuple[ImageData, Scenario]:
        """The data and scenario of one of its runs."""
        return single.prepared(config, self.load)

    def load(self, data: DataConfig, seed: int) -> ImageData:
        """The data set, read once; only a part of one depends on the seed."""
        return self._read(data, seed if data.limit is not None else 0)

    def hear(self, name: str) -> Callable[[RunProgress], None]:
        """A listener for one of the steps."""
        number = list(self._steps).index(name)

        def hear(run: RunProgress) -> None:
            now, expected = time.monotonic(), None if run.seconds_left is None else run.seconds + run.seconds_left
            self._left.begin(number, now)
            left = self._left.seconds_left(now, expected)
            self._listener(Progress(number + 1, len(self._steps), name, run, left))

        return hear

    def _conclude(self, done: list[dict[str, Any]]) -> dict[str, Any]:
        status = [row["status"] for row in done]
        failed = [row for row in done if row["status"].startswith(rows.FAILED)]
        if rows.DONE not in status:
            raise RunDirectoryError(f"{self.directory.path}: no cell could be run; {failed[0]['status']}")
        parts = {"pretrain": 0.0, "retrain": 0.0, "methods": 0.0, "shadows": 0.0}
        for folder in sorted((self.directory.path / "bases").glob("[!.]*")):
            base = RunDirectory.open(folder)
            for (phase, _), amount in rows.trained(base).items():
                parts[phase] += amount
            parts["shadows"] += audits.equivalents(self.directory.path / "shadows" / folder.name, base)
        for folder in sorted((self.directory.path / "cells").glob("[!.]*")):
            parts["methods"] += sum(rows.trained(RunDirectory.open(folder)).values())
        result = {
            "cells": len(done),
            "done": status.count(rows.DONE),
            "unsupported": status.count(rows.UNSUPPORTED),
            "failed": len(failed),
            "equivalents": {**parts, "total": sum(parts.values())},
        }
        tables.export(self.directory, done, self.config)
        plots.draw(self.directory, done, self.config.base.output.plots)
        self.directory.write_json("result.json", result)  # last: it says that the comparison is complete
        return result


@dataclass(frozen=True)
class _Step:
    """Something to run: steps of one kind take about as long; a guess of how long, in rounds of pre-training."""

    kind: str
    cost: float


def _steps(config: CompareConfig) -> dict[str, _Step]:
    """What there is to run by name, in order. What a group's audits need is trained when its first model is audited."""
    steps: dict[str, _Step] = {}
    extra = config.audit.shadows + config.audit.retrained - 1 if config.audit.enabled else 0
    for _, of_scenario in groupby(config.cells, key=lambda cell: cell.scenario):
        groups = [list(cells) for _, cells in groupby(of_scenario, key=lambda cell: cell.seed)]
        for cells in groups:
            base = cells[0].base
            steps[f"{cells[0].group} base"] = _Step("base", schedule.full_rounds(base))
        for cells in groups:
            rounds = float(extra * cells[0].base.pretrain.rounds)
            audited = False
            for cell in cells:
                if cell.config and not cell.is_base:
                    steps[cell.name] = _Step(cell.method, max(1.0, schedule.full_rounds(cell.config)))
                if cell.config and extra and not audited:
                    steps[f"{cell.group} shadows"] = _Step("shadows", rounds)
                    audited = True
    return steps


class _Group:
    """The cells of a scenario and a seed, which share a base run, shadow models and a yardstick."""

    others: Sequence[_Group] = ()
    """The same scenario with other seeds."""

    def __init__(self, comparison: _Comparison, cells: list[Cell]) -> None:
        self._of, self.cells = comparison, cells
        self.base: RunDirectory | None = None
        self._reason = ""

    def pretrain(self) -> None:
        """Run the base run."""
        first = self.cells[0]
        self.base, self._reason = self._of.attempt(first.base, f"{first.group} base")

    def row(self, cell: Cell, earlier: Mapping[str, Any]) -> dict[str, Any]:
        """Run a cell, audit it, and say what came of it; an audit that fails leaves the figures of the earlier row."""
        if cell.config is None:
            return rows.bare(cell, rows.UNSUPPORTED)
        if self.base is None:
            return rows.bare(cell, f"{rows.FAILED}its base run: {self._reason}")
        run: RunDirectory | None = self.base
        reason = ""
        if not cell.is_base:
            run, reason = self._of.attempt(cell.config, cell.name)
        if run is None:
            return rows.bare(cell, f"{rows.FAILED}{reason}")
        found: dict[str, Any] | None = None
        if self._of.config.audit.enabled:
            try:
                found = self._examined(run, cell.method)
            except Interrupted:
                raise
            except Exception as error:  # the model may be the user's own: the other cells' figures are not lost for it
                reason = f"{rows.FAILED}its audit: {in_one_line(error)}"
                if earlier.get("verdict"):
                    return {**earlier, "status": reason}
        return rows.finished(cell, run, self.base, found) | ({"status": reason} if reason else {})

    def _examined(self, run: RunDirectory, label: str) -> dict[str, Any]:
        assert self.base is not None
        files = [self.base.path / "base.safetensors", self.base.path / audits.RETRAINED, *self._retrained_by_others]
        standard = audits.Standard(files, lambda: self._yardstick)
        run.lock(LOCK_WAIT)
        try:
            report = audits.examine(run, run.result, standard, self._of.config.audit, label)
        finally:
            run.unlock()
        tell_audit(self._of.config.base.output, run.path, report)
        return report

    @cached_property
    def _yardstick(self) -> Yardstick:
        assert self.base is not None
        of, config, name = self._of, self.cells[0].base, self.cells[0].group
        settings = of.config.audit
        data, scenario = single.as_trained(self.base, config, of.prepare)
        trained = audits.Trained()
        if settings.trains:
            hear = of.hear(f"{name} shadows")
            recorder = audits.AuditRecorder(config.train, of.directory, f"shadows/{name}", hear, of.stopped)
            with contextlib.closing(of.make_pool(config, data, scenario)) as pool:
                trained = audits.train(Federation(config, data, scenario, pool, recorder), settings)
        folder, others = self.base.path, self._retrained_by_others
        return audits.yardstick(config, folder, data, scenario, settings, trained, folder / audits.RETRAINED, others)

    @property
    def _retrained_by_others(self) -> list[Path]:
        return [group.base.path / audits.RETRAINED for group in self.others if group.base]

"""A comparison as a study: base runs and models for audits first, then a cell after the other, each with its audit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from fused_ray.audit.rules import outdated
from fused_ray.config import RunConfig, schedule
from fused_ray.errors import Interrupted, RunDirectoryError, in_one_line
from fused_ray.runs import audits
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import MakePool
from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.studies.auditor import Against, Auditor
from fused_ray.studies.comparisons import plots, rows, tables
from fused_ray.studies.comparisons.config import Cell, CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.progress import Progress
from fused_ray.studies.status import DONE, FAILED, UNSUPPORTED, failed
from fused_ray.studies.study import Model, Study
from fused_ray.studies.tools import Tools

AUDIT_FAILED = f"{FAILED}its audit: "


class Cells:
    """What a comparison's cells are, for whoever carries them out."""

    step_by_step = False

    def __init__(self, directory: ComparisonDirectory, config: CompareConfig) -> None:
        self._directory, self._config = directory, config
        self.auditor = Auditor(directory)
        self.unaudited: dict[str, str] = {}
        """Groups whose audits lack the models that they need, and why."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (str(self._directory.path), self._config, self.unaudited)

    def carry_out(self, cell: Cell, tools: Tools) -> str:
        """Run a cell and audit it."""
        assert cell.config is not None
        try:
            run = tools.finish(cell.config)
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # parts from elsewhere raise anything: the other cells go on
            return f"{FAILED}{in_one_line(error)}"
        if not self._config.audit.enabled:
            return DONE
        if reason := self.unaudited.get(cell.group):
            return f"{AUDIT_FAILED}{reason}"
        try:
            self.auditor.report(run, self.against(cell), cell.method, tools)
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # the model may be the user's own: others' figures are not lost
            return f"{AUDIT_FAILED}{in_one_line(error)}"
        return DONE

    def against(self, cell: Cell) -> Against:
        """What a cell's model is measured against; bases of other seeds that failed are left out."""
        same = [other for other in self._config.cells if other.scenario == cell.scenario]
        groups = {other.seed: Path(other.base.output.dir) for other in same}
        places = list(groups)
        here = places.index(cell.seed)
        others = [groups[seed] for seed in (*places[here + 1 :], *places[:here])]
        own = Path(cell.base.output.dir)
        return Against(
            config=cell.base,
            settings=self._config.audit,
            before=Path(cell.model.output.dir),
            retrained=own,
            others=tuple(path for path in others if (path / "result.json").exists()),
            shadows=f"shadows/{cell.group}",
        )

    def report(self, cell: Cell | None, status: str) -> dict[str, Any]:
        """Nothing: all cells are wanted, whatever they come to."""
        return {}


def _elsewhere(path: str, config: CompareConfig, unaudited: dict[str, str]) -> Cells:
    """The same in another process, which may not write in the comparison's folder."""
    cells = Cells(ComparisonDirectory.open(path), config)
    cells.unaudited = unaudited
    return cells


class Comparison(Study):
    """What is known of a comparison while it goes on."""

    directory: ComparisonDirectory
    plan: Cells
    left: Sequence[Cell]

    def __init__(
        self,
        directory: ComparisonDirectory,
        config: CompareConfig,
        listener: Callable[[Progress], None] = lambda progress: None,
        stopped: Callable[[], bool] = lambda: False,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, len(config.cells), listener, stopped, notes)
        self.config, self.plan = config, Cells(directory, config)
        self._rows = {_key(row): row for row in directory.rows}
        self.look()
        left = {cell.number for cell in self.left}
        self._status = {cell.number: self._rows[cell.key]["status"] for cell in config.cells if cell.number not in left}

    @property
    def models(self) -> list[Model]:
        """Of every group that has something to run: its base run, and what its audits need."""
        bases: list[Model] = []
        shadows: list[Model] = []
        for group, cell in {cell.group: cell for cell in self.left if cell.config is not None}.items():
            key, base = cell.base.output.dir, cell.base
            if cell.model != base:
                bases.append(_made_by(cell.model, f"{group} model", "model"))
            bases.append(_made_by(base, f"{group} base", "base", "" if cell.model == base else cell.model.output.dir))
            settings = self.config.audit
            folder = self.directory.path / "shadows" / group
            if settings.enabled and settings.trains and not audits.are_trained(folder, base, settings):
                cost = float((settings.shadows + settings.retrained - 1) * base.pretrain.rounds)
                make = partial(self._train, cell)
                shadows.append(Model(group, f"{group} shadows", "shadows", cost, make, needs=key))
        missing = {model.key: model for model in bases if not (Path(model.key) / "result.json").exists()}
        return [*missing.values(), *shadows]

    def _train(self, cell: Cell, tools: Tools) -> object:
        """What the audits of a cell's group need; its base is there by now."""
        return self.plan.auditor.train(self.plan.against(cell), tools)

    def make_models(self, make_pool: MakePool) -> None:
        super().make_models(make_pool)
        self.plan.unaudited |= self._without

    def look(self) -> None:
        """Left are cells without a row, with one that is to be tried again, or with one by other rules or models."""
        self.left = [cell for cell in self.config.cells if not self._settled(cell)]

    def _settled(self, cell: Cell) -> bool:
        row = self._rows.get(cell.key)
        if row is None or row["status"] not in (DONE, UNSUPPORTED) or outdated(row):
            return False
        if cell.config is None or not self.config.audit.enabled:
            return True
        try:
            return self.plan.auditor.is_current(RunDirectory.open(cell.config.output.dir), self.plan.against(cell))
        except RunDirectoryError:  # removed or damaged: whoever runs it says so
            return False

    def rests_on(self, item: Cell) -> list[str]:
        return [item.model.output.dir, item.base.output.dir]

    def lacking(self, key: str) -> str:
        return "its base run" if any(cell.base.output.dir == key for cell in self.config.cells) else "its model"

    def kind(self, item: Cell | None) -> str:
        assert item is not None, "no search proposes cells"
        return item.method

    def group(self, item: Cell) -> str:
        return item.group

    @property
    def kinds(self) -> list[tuple[str, float]]:
        return [(c.method, self._cost(c.config) if c.config else 0.1) for c in self.left]

    def _cost(self, config: RunConfig) -> float:
        """What a cell takes with what its audit trains, in rounds of pre-training."""
        audit = self.config.audit
        return max(1.0, schedule.full_rounds(config)) + (audit.further_rounds(config) if audit.enabled else 0)

    @property
    def statuses(self) -> list[str]:
        return list(self._status.values())

    def keep(self, item: Cell, status: str) -> None:
        self._status[item.number] = status
        self._rows[item.key] = self._row(item, status)
        rows_so_far = [self._rows[cell.key] for cell in self.config.cells if cell.key in self._rows]
        self.directory.write_table("results", self.table(rows_so_far))

    def _row(self, cell: Cell, status: str) -> dict[str, Any]:
        """What came of a cell; an audit that fails leaves the figures of the earlier row."""
        whole = status == DONE or status.startswith(AUDIT_FAILED)
        if not whole or cell.config is None:
            return rows.bare(cell, status)
        earlier = self._rows.get(cell.key, {})
        if status != DONE and earlier.get("verdict"):
            return {**earlier, "status": status}
        run, base = RunDirectory.open(cell.config.output.dir), RunDirectory.open(cell.base.output.dir)
        report = run.read_json("audit.json") if status == DONE and self.config.audit.enabled else None
        return rows.finished(cell, run, base, report) | {"status": status, "directory": self._place(run)}

    def _place(self, run: RunDirectory) -> str:
        """A run's directory from the comparison's; in full where it is in a store elsewhere."""
        inside = run.path.is_relative_to(self.directory.path)
        return str(run.path.relative_to(self.directory.path) if inside else run.path)

    def table(self, found: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Rows as results.parquet has them."""
        return rows.table(found, self.config.audit.further)

    def conclude(self, make_pool: MakePool) -> dict[str, Any]:
        """Tables, pictures, and what it took."""
        done = [self._rows[cell.key] for cell in self.config.cells]
        status = [row["status"] for row in done]
        broken = [row for row in done if failed(row["status"])]
        known = self.directory.finished  # then it is judged anew, in vain: its earlier verdicts stay
        if DONE not in status and (known or not any(row.get("ra") is not None for row in done)):
            raise RunDirectoryError(f"{self.directory.path}: no cell could be run; {broken[0]['status']}")
        result = {
            "cells": len(done),
            "done": status.count(DONE),
            "unsupported": status.count(UNSUPPORTED),
            "failed": len(broken),
            "equivalents": self._equivalents(),
        }
        tables.export(self.directory, done, self.config)
        plots.draw(self.directory, done, self.config.base.output.plots)
        self.directory.write_json("result.json", result)  # last: it says that the comparison is complete
        return result

    def _equivalents(self) -> dict[str, float]:
        """Full-round equivalents of its runs, by what for; those of a store's models count, whoever made them."""
        parts = {"pretrain": 0.0, "retrain": 0.0, "methods": 0.0, "shadows": 0.0}
        shared = {config.output.dir for cell in self.config.cells for config in (cell.model, cell.base)}
        for path in sorted(path for path in shared if Path(path).exists()):
            for (phase, _), amount in rows.trained(RunDirectory.open(path)).items():
                if phase in parts:
                    parts[phase] += amount
        for group, cell in {cell.group: cell for cell in self.config.cells}.items():
            shadows, base = self.directory.path / "shadows" / group, Path(cell.base.output.dir)
            parts["shadows"] += audits.equivalents(shadows, RunDirectory.open(base)) if base.exists() else 0.0
        for folder in sorted((self.directory.path / "cells").glob("[!.]*")):
            with contextlib.suppress(RunDirectoryError):  # a damaged one is a row that failed
                parts["methods"] += sum(rows.trained(RunDirectory.open(folder)).values())
        return {**parts, "total": sum(parts.values())}


def _made_by(config: RunConfig, name: str, kind: str, needs: str = "") -> Model:
    """A model that a run makes."""
    cost = schedule.full_rounds(config)
    return Model(config.output.dir, name, kind, cost, partial(Tools.finish, config=config), needs)


def redraw(directory: ComparisonDirectory, config: CompareConfig) -> None:
    """Draw a finished comparison's plots once more, in another format."""
    directory.lock(LOCK_WAIT)
    try:
        plots.draw(directory, directory.rows, config.base.output.plots)
    finally:
        directory.unlock()


def _key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["scenario"], row["seed"], row["method"]

"""A sweep inside its directory: shared models first, then the trials that are left, then audits and the conclusion.

Who runs the trials is given: `one_by_one` here, Ray Tune in engine.tune. Every trial is an ordinary run in a directory
of its own, so a killed sweep goes on from its last round. A finished trial is never run again; one that fails is
recorded with its reason, the others go on, and a resumed sweep tries it once more.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from fused_ray.config import RunConfig, schedule
from fused_ray.core.standard import standard
from fused_ray.data import datasets
from fused_ray.errors import Interrupted, RunDirectoryError, in_one_line
from fused_ray.runs import audits
from fused_ray.runs import execute as single
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import MakePool, Prepare
from fused_ray.runs.progress import Progress as RunProgress
from fused_ray.runs.remaining import Steps
from fused_ray.runs.sinks import Guarded
from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.studies.sweeps import plots, rows, tables
from fused_ray.studies.sweeps.auditor import Auditor
from fused_ray.studies.sweeps.choice import choose, unaudited
from fused_ray.studies.sweeps.conclusion import front_table, plain, verdict_of
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.front import Audited, Candidate, Case, cases, settled
from fused_ray.studies.sweeps.trials import Trial
from fused_ray.types import ImageData, Scenario

UNDER_WAY = 4
"""After so many trials the time between two ends is a measure: the first ones wait for processes to start."""


@dataclass(frozen=True)
class Progress:
    """Where a sweep is."""

    model: str = ""
    """The shared model that is being made; empty once all are there."""
    run: RunProgress = field(default_factory=RunProgress)
    """How far it is."""
    trials: int = 0
    done: int = 0
    """Trials that are over, however they ended."""
    running: int = 0
    failed: int = 0
    best: str = ""
    """The best candidate so far, in words."""
    audit: str = ""
    """The candidate that is audited, in words; empty while trials run."""
    seconds_left: float | None = None
    """Until the whole sweep is done: from the trials that are done, before that from the shared models' rounds."""
    notes: tuple[str, ...] = ()


class RunTrials(Protocol):
    """Runs what is left of a sweep's trials and tells the sweep what became of each."""

    def __call__(self, sweep: Sweep) -> None: ...


@standard()
def execute(
    directory: SweepDirectory,
    config: SweepConfig,
    make_pool: MakePool,
    run_trials: RunTrials,
    listener: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Run what is still to be done and return the content of result.json.

    Shared models, and what audits need, are made on `make_pool`'s, which is best a lease. Raises Interrupted when
    stopped, and RunDirectoryError if no trial at all could be run.
    """
    config.base.check_parts_of_driver()
    directory.lock(LOCK_WAIT)
    try:
        directory.extend(config)
        sweep = Sweep(directory, config, Guarded("the listener to progress", listener), stopped, notes)
        sweep.make_models(make_pool)
        if config.search == "optuna" or sweep.left:
            run_trials(sweep)
        return sweep.conclude(make_pool)
    finally:
        directory.unlock()


def redraw(directory: SweepDirectory, config: SweepConfig) -> None:
    """Draw a finished sweep's plots once more, in another format."""
    directory.lock(LOCK_WAIT)
    try:
        found = cases(directory.rows, config.ra_margin, config.fa_margin, config.draws)
        found = [settled(case, directory.result["cases"]) for case in found]
        plots.draw(directory, found, config.base, config.output.plots)
    finally:
        directory.unlock()


class Sweep:
    """What is known of a sweep while it goes on; the only writer of its tables."""

    def __init__(
        self,
        directory: SweepDirectory,
        config: SweepConfig,
        listener: Callable[[Progress], None],
        stopped: Callable[[], bool],
        notes: Sequence[str],
    ) -> None:
        self.directory, self.config, self.stopped, self._listener = directory, config, stopped, listener
        self.found: dict[int, list[rows.Row]] = {}
        listed = {} if config.search == "optuna" else {trial.number: trial.text for trial in config.trials}
        for row in directory.rows:
            if listed and listed.get(row["trial"]) != row["values"]:
                raise RunDirectoryError(
                    f"{directory.path}: trial {row['trial']} is another one in its table than in this version's list; "
                    "go on with it in the version that it was begun with"
                )
            if rows.finished(row["status"]) or config.search == "optuna":
                self.found.setdefault(row["trial"], []).append(row)
        self._without_model: dict[str, str] = {}
        self._running: set[str] = set()
        self._ends: list[float] = []
        """When the trials of this start ended."""
        self._steps: Steps | None = None
        self._progress = Progress(trials=config.count, notes=tuple(notes))
        self.prepare = preparer()

    def clear(self) -> None:
        """Remove what a killed start left of proposed trials: the next ones under these numbers are others."""
        for folder in (self.directory.path / "trials").iterdir():
            if not folder.name.isdecimal() or int(folder.name) not in self.found:
                shutil.rmtree(folder)

    @property
    def left(self) -> list[Trial]:
        """Trials of a fixed list that are still to be run."""
        return [trial for trial in self.config.trials if trial.number not in self.found]

    # -- shared models

    def make_models(self, make_pool: MakePool) -> None:
        """Pre-train, rank and retrain whatever the trials need and the store lacks."""
        wanted: dict[str, RunConfig] = {}
        for trial in self.left if self.config.search != "optuna" else self.config.likely:
            for config in models_of(self.config, trial):
                wanted.setdefault(config.output.dir, config)
        missing = {path: config for path, config in wanted.items() if not (Path(path) / "result.json").exists()}
        steps = self._steps = self._steps_of([(Path(path).parent.name, config) for path, config in missing.items()])
        for number, (path, config) in enumerate(missing.items()):
            kind = Path(path).parent.name
            name = f"{number + 1}/{len(missing)} {kind} {config.forget.scenario} seed {config.seed}"
            steps.begin(number, time.monotonic())
            try:
                self._finish(config, make_pool, name, steps)
            except Interrupted:
                raise
            except Exception as error:  # parts from elsewhere raise anything
                self._without_model[path] = in_one_line(error)
        steps.begin(len(missing), time.monotonic())
        self._tell(model="")

    def _steps_of(self, models: Sequence[tuple[str, RunConfig]]) -> Steps:
        """The shared models to make and the trials behind them, for the time that is left."""
        trials = [trial.config for trial in (self.left if self.config.search != "optuna" else self.config.likely)]
        each = [schedule.full_rounds(run, schedule.on_shared(run)) for run in trials if run is not None]
        cost = {kind: schedule.full_rounds(config) for kind, config in models}
        cost["trial"] = max(0.1, statistics.fmean(each)) if each else 0.1
        waiting = self.config.count - len(self.found)
        return Steps([*(kind for kind, _ in models), *["trial"] * max(1, waiting)], cost)

    def _finish(self, config: RunConfig, pool: MakePool, name: str, steps: Steps) -> None:
        def hear(run: RunProgress) -> None:
            expected = None if run.seconds_left is None else run.seconds + run.seconds_left
            self._tell(model=name, run=run, seconds_left=steps.seconds_left(time.monotonic(), expected))

        single.finish(config, pool, hear, self.stopped, (), self.prepare)

    # -- trials

    def runnable(self, trial: Trial) -> bool:
        """Whether a trial can be run; else what is wrong with it is recorded."""
        if trial.config is None:
            self.over(trial, f"{rows.UNSUPPORTED}{trial.reason}")
            return False
        for config in models_of(self.config, trial):
            if reason := self._without_model.get(config.output.dir):
                self.over(trial, f"{rows.FAILED}its {Path(config.output.dir).parent.name} model: {reason}")
                return False
        return True

    def begun(self, name: str) -> None:
        """A trial has started under some name."""
        self._running.add(name)
        self._tell()

    def over(self, trial: Trial, status: str, name: str = "") -> None:
        """A trial has ended, one way or another: keep its rows."""
        run: RunDirectory | None = None
        retrained: Mapping[str, float] | None = None
        if trial.config is not None:
            place = self.config.run(trial).output.dir
            run = RunDirectory.open(place) if Path(place).exists() else None
            reference = self.config.reference(trial.config)
            if reference is not None and (Path(reference.output.dir) / "result.json").exists():
                retrained = RunDirectory.open(reference.output.dir).result["metrics"]["retrained"]
        self._running.discard(name)
        self._ends.append(time.monotonic())
        self.found[trial.number] = rows.of_trial(trial, status, run, retrained)
        self.directory.write_table("trials", rows.table(self.rows))
        self._tell()

    @property
    def rows(self) -> list[rows.Row]:
        """All rows so far, by trial and round."""
        return [row for number in sorted(self.found) for row in self.found[number]]

    @property
    def cases(self) -> list[Case]:
        """What they say."""
        return cases(self.rows, self.config.ra_margin, self.config.fa_margin, self.config.draws)

    def _tell(self, **changes: Any) -> None:
        status = [found[0]["status"] for found in self.found.values()]
        now = {
            "done": len(status),
            "running": len(self._running),
            "failed": sum(text.startswith(rows.FAILED) for text in status),
            "seconds_left": self._seconds_left(self.config.count - len(status)),
        }
        if changes == {}:
            best = next((case.candidates[0].setting for case in self.cases if case.candidates), None)
            now["best"] = best.text if best else ""
        self._progress = replace(self._progress, **{**now, **changes})
        self._listener(self._progress)

    def _seconds_left(self, trials: int) -> float | None:
        """By how fast trials ended once they were under way; before any ended, by the shared models' rounds."""
        now, ends = time.monotonic(), self._ends
        if len(ends) >= UNDER_WAY:
            each = (ends[-1] - ends[0]) / (len(ends) - 1)
            return max(0.0, trials * each - (now - ends[-1]))
        return None if ends or self._steps is None else self._steps.seconds_left(now)

    # -- the end

    def trial(self, number: int) -> Trial:
        """A trial that is over, as it was run."""
        return self.config.trial(number, json.loads(self.found[number][0]["values"]))

    def _audited(self, case: Case, make_pool: MakePool) -> Case:
        """A case with its verdicts and its recommendation."""
        if not self.config.base.audit.enabled:
            return unaudited(case)
        auditor = Auditor(self, make_pool, lambda progress: self._tell(run=progress))

        def judge(candidate: Candidate) -> Audited:
            self._tell(audit=f"audit of {candidate.setting.title}" + (f" ({case.name})" if case.name else ""))
            return auditor.judge(candidate.setting)

        return choose(case, judge, self.config.audits)

    def conclude(self, make_pool: MakePool) -> dict[str, Any]:
        """Front, audits, recommendation, tables and pictures; the content of result.json."""
        status = [found[0]["status"] for found in self.found.values()]
        if rows.DONE not in status:
            raise RunDirectoryError(f"{self.directory.path}: no trial could be run; {status[0] if status else 'none'}")
        found = [self._audited(case, make_pool) for case in self.cases]
        if self.directory.outdated:
            for audited in (each for case in found for each in case.audited if audits.FAILED in each.sentence):
                raise RunDirectoryError(f"{self.directory.path}: {audited.sentence}; its earlier verdicts stay")
        result = {
            "trials": len(status),
            "done": status.count(rows.DONE),
            "stopped": status.count(rows.STOPPED),
            "unsupported": sum(text.startswith(rows.UNSUPPORTED) for text in status),
            "failed": sum(text.startswith(rows.FAILED) for text in status),
            "cases": [
                {
                    "case": case.name,
                    "front": [plain(setting) for setting in case.front],
                    "recommended": case.recommended and plain(case.recommended) | verdict_of(case, case.recommended),
                    "reason": case.reason,
                    "audited": [plain(each.setting) | verdict_of(case, each.setting) for each in case.audited],
                }
                for case in found
            ],
        }
        self.directory.write_table("front", front_table(found, self.config.base.audit.further))
        self.directory.write("table.md", tables.markdown(found, self.config.base, self.rows).encode())
        plots.draw(self.directory, found, self.config.base, self.config.output.plots)
        self.directory.write_json("result.json", result)  # last: it says that the sweep is complete
        return result


def models_of(sweep: SweepConfig, trial: Trial) -> list[RunConfig]:
    """The runs that make a trial's shared models, in order."""
    if trial.config is None:
        return []
    reference = sweep.reference(trial.config)
    return [sweep.model(trial.config), *([reference] if reference else [])]


def run_trial(
    config: RunConfig,
    make_pool: MakePool,
    listener: Callable[[RunProgress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
    prepare: Prepare = single.prepared,
) -> str:
    """Run a trial to its end and say how it ended: done, or failed and why. Raises Interrupted when stopped."""
    try:
        single.finish(config, make_pool, listener, stopped, (), prepare)
    except Interrupted:
        raise
    except Exception as error:  # parts from elsewhere raise anything: the other trials go on
        return f"{rows.FAILED}{in_one_line(error)}"
    return rows.DONE


def one_by_one(make_pool: MakePool) -> RunTrials:
    """The trials of a fixed list one after the other on one lent pool."""

    def run(sweep: Sweep) -> None:
        for trial in sweep.left:
            if sweep.runnable(trial):
                sweep.begun(trial.name)
                config = sweep.config.run(trial)
                status = run_trial(config, make_pool, stopped=sweep.stopped, prepare=sweep.prepare)
                sweep.over(trial, status, trial.name)

    return run


def preparer() -> Prepare:
    """Like `prepared`, but with the same objects again for the same data and scenario: a lease finds them unchanged."""
    read = lru_cache(maxsize=2)(datasets.load)

    @lru_cache(maxsize=2)
    def build(key: RunConfig) -> tuple[ImageData, Scenario]:
        return single.prepared(key, lambda data, seed: read(data, seed if data.limit is not None else 0))

    def prepare(config: RunConfig) -> tuple[ImageData, Scenario]:
        kept = ("seed", "data", "model", "federation", "forget")
        return build(RunConfig(**{name: getattr(config, name) for name in kept}))

    return prepare

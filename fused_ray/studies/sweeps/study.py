"""A sweep as a study: shared models first, then the trials that are left, then audits and the conclusion."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fused_ray.audit.verdict import WORDS
from fused_ray.config import RunConfig, schedule
from fused_ray.errors import Interrupted, RunDirectoryError, in_one_line
from fused_ray.runs import audits
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import MakePool
from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.studies import further
from fused_ray.studies.auditor import Against, Auditor
from fused_ray.studies.progress import Progress
from fused_ray.studies.status import DONE, FAILED, STOPPED, UNSUPPORTED, failed
from fused_ray.studies.study import Model, Study
from fused_ray.studies.sweeps import plots, rows, tables
from fused_ray.studies.sweeps.choice import choose, unaudited
from fused_ray.studies.sweeps.conclusion import front_table, plain, verdict_of
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.front import Audited, Case, Setting, best_of, cases, settled
from fused_ray.studies.sweeps.trials import Trial
from fused_ray.studies.tools import Tools

_KIND = "trial"


class Trials:
    """What a sweep's trials are, for whoever carries them out."""

    def __init__(self, config: SweepConfig) -> None:
        self._config = config
        self.step_by_step = config.scheduler != "none"

    def carry_out(self, trial: Trial, tools: Tools) -> str:
        """Run a trial. In a grid its shared models are there; a proposed trial may be the first that needs them."""
        try:
            for config in models_of(self._config, trial):
                tools.finish(config)
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # parts from elsewhere raise anything: the other trials go on
            return f"{FAILED}its shared models: {in_one_line(error)}"
        try:
            tools.finish(self._config.run(trial))
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:
            return f"{FAILED}{in_one_line(error)}"
        return DONE

    def report(self, trial: Trial | None, status: str) -> rows.Report:
        """The last row of a trial as far as it has come, as objectives name its figures."""
        if trial is None or status not in (DONE, STOPPED):
            return rows.report({})
        run = RunDirectory.open(self._config.run(trial).output.dir)
        return rows.report(rows.of_trial(trial, status, run, None)[-1])


class Sweep(Study):
    """What is known of a sweep while it goes on."""

    directory: SweepDirectory
    plan: Trials
    left: Sequence[Trial]

    def __init__(
        self,
        directory: SweepDirectory,
        config: SweepConfig,
        listener: Callable[[Progress], None] = lambda progress: None,
        stopped: Callable[[], bool] = lambda: False,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, config.count, listener, stopped, notes)
        self.config, self.plan = config, Trials(config)
        self._auditor = Auditor(directory)
        self.found: dict[int, list[rows.Row]] = {}
        listed = {} if config.search == "optuna" else {trial.number: trial.text for trial in config.trials}
        for row in directory.rows:
            if listed and listed.get(row["trial"]) != row["values"]:
                raise RunDirectoryError(
                    f"{directory.path}: trial {row['trial']} is another one in its table than in this version's list; "
                    "go on with it in the version that it was begun with"
                )
            if not failed(row["status"]) or config.search == "optuna":
                self.found.setdefault(row["trial"], []).append(row)
        self.look()

    def clear(self) -> None:
        """Remove what a killed start left of proposed trials: the next ones under these numbers are others."""
        for folder in (self.directory.path / "trials").iterdir():
            if not folder.name.isdecimal() or int(folder.name) not in self.found:
                shutil.rmtree(folder)

    # -- shared models and trials

    def look(self) -> None:
        """Left are the trials of a fixed list without rows, or with one that is to be tried again."""
        self.left = [trial for trial in self._listed if trial.number not in self.found]

    @property
    def waiting(self) -> int:
        return self.config.count - len(self.found)

    @property
    def _listed(self) -> Sequence[Trial]:
        return () if self.config.search == "optuna" else self.config.trials

    @property
    def models(self) -> list[Model]:
        """Pre-trained and retrained models that the trials need and the store lacks."""
        wanted: dict[str, RunConfig] = {}
        for trial in self.left if self.config.search != "optuna" else self.config.likely:
            for config in models_of(self.config, trial):
                wanted.setdefault(config.output.dir, config)
        found: list[Model] = []
        for path, config in wanted.items():
            if not (Path(path) / "result.json").exists():
                kind = Path(path).parent.name
                name = f"{kind} {config.forget.scenario} seed {config.seed}"
                make: Callable[[Tools], object] = partial(Tools.finish, config=config)
                found.append(Model(path, name, kind, schedule.full_rounds(config), make))
        return found

    def rests_on(self, item: Trial) -> list[str]:
        return [config.output.dir for config in models_of(self.config, item)]

    def lacking(self, key: str) -> str:
        return f"its {Path(key).parent.name} model"

    def kind(self, item: Trial | None) -> str:
        return _KIND

    @cached_property
    def _cost(self) -> float:
        """Of a trial, in the mean."""
        trials = [trial.config for trial in self._listed or self.config.likely]
        each = [schedule.full_rounds(run, schedule.on_shared(run)) for run in trials if run is not None]
        return max(0.1, statistics.fmean(each)) if each else 0.1

    @property
    def kinds(self) -> list[tuple[str, float]]:
        return [(_KIND, self._cost)] * self.waiting

    @property
    def statuses(self) -> list[str]:
        return [found[0]["status"] for found in self.found.values()]

    @property
    def best(self) -> str:
        return best_of(self.cases)

    def keep(self, item: Trial, status: str) -> None:
        run: RunDirectory | None = None
        retrained: Mapping[str, float] | None = None
        if item.config is not None:
            place = self.config.run(item).output.dir
            run = RunDirectory.open(place) if Path(place).exists() else None
            reference = self.config.reference(item.config)
            if reference is not None and (Path(reference.output.dir) / "result.json").exists():
                retrained = RunDirectory.open(reference.output.dir).result["metrics"]["retrained"]
        self.found[item.number] = rows.of_trial(item, status, run, retrained)
        self.directory.write_table("trials", rows.table(self.rows))

    @property
    def rows(self) -> list[rows.Row]:
        """All rows so far, by trial and round."""
        return [row for number in sorted(self.found) for row in self.found[number]]

    @property
    def cases(self) -> list[Case]:
        """What they say."""
        return cases(self.rows, self.config.ra_margin, self.config.fa_margin, self.config.draws)

    # -- audits

    def _audited(self, case: Case, make_pool: MakePool) -> Case:
        """A case with its verdicts and its recommendation."""
        if not self.config.base.audit.enabled:
            return unaudited(case)

        def judge(candidate: Any) -> Audited:
            words = f"audit of {candidate.setting.title}" + (f" ({case.name})" if case.name else "")
            self.tell(now=words)
            return self._judged(candidate.setting, self.tools(make_pool, lambda run: self.tell(now=words, run=run)))

        return choose(case, judge, self.config.audits)

    def _judged(self, setting: Setting, tools: Tools) -> Audited:
        """A setting with the worst verdict of its trials. Raises Interrupted when stopped."""
        trials = [self.config.trial(n, json.loads(self.found[n][0]["values"])) for n in setting.trials]
        found = []
        for trial in trials:
            if self.stopped():
                raise Interrupted("stopped in the audits")
            report = audits.concluded(partial(self._report, trial, setting.round, trials, tools))
            found.append((WORDS.index(report["verdict"]), trial, report))
        _, trial, worst = min(found, key=lambda each: each[0])
        seed = f"seed {_of(trial).seed}: " if len(set(setting.seeds)) > 1 else ""
        reports = [report for _, _, report in found]
        return Audited(
            *(setting, worst["verdict"], seed + worst["verdict_sentence"], worst["findings"]),
            metrics=further.means([report["audit_metrics"] for report in reports]),
            metrics_failed=list(dict.fromkeys(line for report in reports for line in report["audit_metrics_failed"])),
        )

    def _report(self, trial: Trial, rounds: int, trials: Sequence[Trial], tools: Tools) -> dict[str, Any]:
        """The audit of a trial's model after so many rounds; `trials` are those of all seeds.

        A trial keeps the model of its last round alone; for an earlier one it is run once more, to that round, which
        gives the same bits. Those runs and the audits are kept, so that a killed sweep does not repeat them.
        """
        config = _of(trial)
        if self.found[trial.number][-1]["round"] == rounds:
            run = RunDirectory.open(self.config.run(trial).output.dir)
        else:
            run = tools.finish(self.config.shorter(trial, rounds))
        model, own = Path(self.config.model(config).output.dir), self._reference(config)
        others = dict.fromkeys(path for path in map(self._reference, map(_of, trials)) if path != own)
        shadows = f"shadows/{model.name}-{own.name}"
        against = Against(config, config.audit, before=model, retrained=own, others=tuple(others), shadows=shadows)
        return self._auditor.report(run, against, config.unlearn.method, tools)

    def _reference(self, config: RunConfig) -> Path:
        reference = self.config.reference(config)
        assert reference is not None, "where retraining is left out, there are no candidates"
        return Path(reference.output.dir)

    def conclude(self, make_pool: MakePool) -> dict[str, Any]:
        """Front, audits, recommendation, tables and pictures; the content of result.json."""
        status = self.statuses
        if DONE not in status:
            raise RunDirectoryError(f"{self.directory.path}: no trial could be run; {status[0] if status else 'none'}")
        found = [self._audited(case, make_pool) for case in self.cases]
        if self.directory.outdated:
            for audited in (each for case in found for each in case.audited if audits.FAILED in each.sentence):
                raise RunDirectoryError(f"{self.directory.path}: {audited.sentence}; its earlier verdicts stay")
        result = {
            "trials": len(status),
            "done": status.count(DONE),
            "stopped": status.count(STOPPED),
            "unsupported": sum(text.startswith(UNSUPPORTED) for text in status),
            "failed": sum(map(failed, status)),
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


def redraw(directory: SweepDirectory, config: SweepConfig) -> None:
    """Draw a finished sweep's plots once more, in another format."""
    directory.lock(LOCK_WAIT)
    try:
        found = cases(directory.rows, config.ra_margin, config.fa_margin, config.draws)
        found = [settled(case, directory.result["cases"]) for case in found]
        plots.draw(directory, found, config.base, config.output.plots)
    finally:
        directory.unlock()


def models_of(sweep: SweepConfig, trial: Trial) -> list[RunConfig]:
    """The runs that make a trial's shared models, in order."""
    if trial.config is None:
        return []
    reference = sweep.reference(trial.config)
    return [sweep.model(trial.config), *([reference] if reference else [])]


def _of(trial: Trial) -> RunConfig:
    assert trial.config is not None, "only trials that were run are audited"
    return trial.config

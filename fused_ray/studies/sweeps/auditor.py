"""The audits of a sweep's candidates: every seed's model of a setting against its retrained model.

A trial keeps the model of its last round alone; for an earlier one it is run once more, to that round, which gives the
same bits. Those runs and the audits are kept, so that a killed sweep does not repeat them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fused_ray.audit.verdict import WORDS
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import RunConfig
from fused_ray.core.rounds import Federation
from fused_ray.errors import Interrupted
from fused_ray.runs import audits
from fused_ray.runs import execute as single
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import MakePool, Prepare
from fused_ray.runs.progress import Progress as RunProgress
from fused_ray.runs.sinks import tell_audit
from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.studies import further
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.front import Audited, Setting
from fused_ray.studies.sweeps.trials import Trial


class Sweep(Protocol):
    """What the audits need of a sweep that goes on."""

    directory: SweepDirectory
    config: SweepConfig
    stopped: Callable[[], bool]
    prepare: Prepare

    @property
    def found(self) -> Mapping[int, Sequence[Mapping[str, Any]]]:
        """The rows of every trial that is over, by its number."""
        ...

    def trial(self, number: int) -> Trial:
        """A trial by its number."""
        ...


class Auditor:
    """Judges settings of one case of a sweep."""

    def __init__(self, sweep: Sweep, make_pool: MakePool, listener: Callable[[RunProgress], None]) -> None:
        self._sweep, self._make_pool, self._listener = sweep, make_pool, listener
        self._yardsticks: dict[tuple[str, str, tuple[str, ...]], Yardstick] = {}

    def judge(self, setting: Setting) -> Audited:
        """The worst verdict of the setting's trials. Raises Interrupted when stopped."""
        trials = [self._sweep.trial(number) for number in setting.trials]
        found = []
        for trial in trials:
            if self._sweep.stopped():
                raise Interrupted("stopped in the audits")
            report = audits.concluded(partial(self._report, trial, setting.round, trials))
            found.append((WORDS.index(report["verdict"]), trial, report))
        _, trial, worst = min(found, key=lambda each: each[0])
        seed = f"seed {_of(trial).seed}: " if len(set(setting.seeds)) > 1 else ""
        reports = [report for _, _, report in found]
        return Audited(
            *(setting, worst["verdict"], seed + worst["verdict_sentence"], worst["findings"]),
            metrics=further.means([report["audit_metrics"] for report in reports]),
            metrics_failed=list(dict.fromkeys(line for report in reports for line in report["audit_metrics_failed"])),
        )

    def _report(self, trial: Trial, rounds: int, trials: Sequence[Trial]) -> dict[str, Any]:
        """The audit of a trial's model after so many rounds; `trials` are those of all seeds."""
        config = _of(trial)
        run = self._run(trial, rounds)
        run.lock(LOCK_WAIT)
        try:
            label = config.unlearn.method
            report = audits.examine(run, run.result, self._standard(config, trials), config.audit, label)
        finally:
            run.unlock()
        tell_audit(config.output, run.path, report)
        return report

    def _run(self, trial: Trial, rounds: int) -> RunDirectory:
        sweep = self._sweep
        if sweep.found[trial.number][-1]["round"] == rounds:
            return RunDirectory.open(sweep.config.run(trial).output.dir)
        shorter = sweep.config.shorter(trial, rounds)
        return single.finish(shorter, self._make_pool, self._listener, sweep.stopped, (), sweep.prepare)

    def _standard(self, config: RunConfig, trials: Sequence[Trial]) -> audits.Standard:
        model, own = self._sweep.config.model(config).output.dir, self._reference(config)
        others = tuple(dict.fromkeys(path for path in map(self._reference, map(_of, trials)) if path != own))
        retrained = [Path(path) / audits.RETRAINED for path in (own, *others)]
        base = Path(model) / "base.safetensors"
        return audits.Standard([base, *retrained], lambda: self._yardstick(config, model, own, others))

    def _yardstick(self, config: RunConfig, model: str, own: str, others: tuple[str, ...]) -> Yardstick:
        key = model, own, others
        if key not in self._yardsticks:
            data, scenario = single.as_trained(RunDirectory.open(own), config, self._sweep.prepare)
            trained = audits.Trained()
            if config.audit.trains:
                name = f"shadows/{Path(model).name}-{Path(own).name}"
                recorder = audits.AuditRecorder(
                    config.train, self._sweep.directory, name, self._listener, self._sweep.stopped
                )
                with contextlib.closing(self._make_pool(config, data, scenario)) as pool:
                    trained = audits.train(Federation(config, data, scenario, pool, recorder), config.audit)
            retrained, *more = (Path(path) / audits.RETRAINED for path in (own, *others))
            self._yardsticks[key] = audits.yardstick(
                config, Path(model), data, scenario, config.audit, trained, retrained, more
            )
        return self._yardsticks[key]

    def _reference(self, config: RunConfig) -> str:
        reference = self._sweep.config.reference(config)
        assert reference is not None, "where retraining is left out, there are no candidates"
        return reference.output.dir


def _of(trial: Trial) -> RunConfig:
    assert trial.config is not None, "only trials that were run are audited"
    return trial.config

"""Audits of a study's runs: each model against M_r and the retrained models that it shares with others.

What an audit needs trained (shadow models, more retrained ones) is kept in the study's folder and trained once. A
process builds the yardstick of a group of runs once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import AuditConfig, RunConfig
from fused_ray.core.rounds import Federation
from fused_ray.runs import audits
from fused_ray.runs import execute as single
from fused_ray.runs.clock import timetable
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.sinks import tell_audit
from fused_ray.storage.folder import Folder
from fused_ray.studies.tools import Tools


@dataclass(frozen=True)
class Against:
    """What runs of one group are measured against."""

    config: RunConfig
    """Of the models: what they were trained on, and what is forgotten."""
    settings: AuditConfig
    before: Path
    """The run that made M_r."""
    retrained: Path
    """The run that retrained without the forgotten data."""
    others: tuple[Path, ...]
    """Those that did with other seeds."""
    shadows: str
    """Where in the study's folder models trained for these audits are kept."""

    @property
    def models(self) -> list[Path]:
        """The files of the retrained models, the group's own first."""
        return [path / audits.RETRAINED for path in (self.retrained, *self.others)]


class Auditor:
    """Audits runs of a study, in one process."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._yardsticks: dict[tuple[Path, Path, tuple[Path, ...]], Yardstick] = {}

    def train(self, against: Against, tools: Tools) -> audits.Trained:
        """The models that audits of a group need beside its runs; only for who may write in the study's folder, unless
        all of them are there."""
        if not against.settings.trains:
            return audits.Trained()
        config = against.config
        data, scenario = single.as_trained(RunDirectory.open(against.retrained), config, tools.prepare)
        recorder = audits.AuditRecorder(
            config, against.settings, self._folder, against.shadows, tools.listener, tools.stopped
        )
        with contextlib.closing(tools.make_pool(config, data, scenario)) as pool:
            clock = timetable(config, data.shape, data.classes)
            return audits.train(Federation(config, data, scenario, pool, recorder, clock), against.settings)

    def report(self, run: RunDirectory, against: Against, label: str, tools: Tools) -> dict[str, Any]:
        """The audit of a finished run, kept in its folder. Raises what an audit raises."""
        standard = _standard(against, lambda: self._yardstick(against, tools))
        # a store's run may be a cell of two comparisons
        with single.alone(run, tools.listener, tools.stopped), self._federation(run, against, tools) as federation:
            report = audits.examine(run, run.result, standard, against.settings, label, federation)
        tell_audit(run.config.output, run.path, report)
        return report

    @contextlib.contextmanager
    def _federation(self, run: RunDirectory, against: Against, tools: Tools) -> Iterator[Federation | None]:
        """What further metrics train with; None where they train nothing, or the audit is there already."""
        config, settings = run.config, against.settings
        if not settings.further_rounds(config) or self.is_current(run, against):
            yield None
            return
        self._yardstick(against, tools)  # which borrows workers of its own
        data, scenario = single.as_trained(RunDirectory.open(against.retrained), config, tools.prepare)
        with contextlib.closing(tools.make_pool(config, data, scenario)) as pool:
            recorder = audits.AuditRecorder(config, settings, run, "audit", tools.listener, tools.stopped)
            yield Federation(config, data, scenario, pool, recorder, timetable(config, data.shape, data.classes))

    def is_current(self, run: RunDirectory, against: Against) -> bool:
        """Whether the run is finished and its audit rests on the same as one made now."""

        def unwanted() -> Yardstick:
            raise AssertionError("nothing is measured to compare files")

        return run.finished and bool(audits.current(run, run.result, _standard(against, unwanted), against.settings))

    def _yardstick(self, against: Against, tools: Tools) -> Yardstick:
        key = against.before, against.retrained, against.others
        if key not in self._yardsticks:
            data, scenario = single.as_trained(RunDirectory.open(against.retrained), against.config, tools.prepare)
            trained = self.train(against, tools)
            own, *others = against.models
            self._yardsticks[key] = audits.yardstick(
                against.config, against.before, data, scenario, against.settings, trained, own, others
            )
        return self._yardsticks[key]


def _standard(against: Against, yardstick: Callable[[], Yardstick]) -> audits.Standard:
    return audits.Standard([against.before / "base.safetensors", *against.models], yardstick)

"""A study's runs by Ray Tune, on runners that stay warm.

Tune's own actor of a trial is thin: it asks for no CPU, imports no PyTorch, and passes on what its runner reports. The
rows of a study's table come from its runs' directories; of Tune's own files, nothing is ever read back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # as Tune is imported; ours are named below
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths go on to mean what they meant

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.util.placement_group import remove_placement_group

from fused_ray.engine.placement import Node
from fused_ray.errors import Interrupted
from fused_ray.studies.status import FAILED, STOPPED
from fused_ray.studies.study import Item, Study
from fused_ray.studies.tune.broker import check_broker, start_broker
from fused_ray.studies.tune.runner import start_runner
from fused_ray.studies.tune.shares import reserve
from fused_ray.studies.tune.trainable import POINT, StudyTrial
from fused_ray.studies.tune.waiting import Waiting

_LOST = f"{FAILED}Ray Tune lost the trial"


@dataclass(frozen=True)
class Search:
    """Proposes runs one by one, from what was found."""

    algorithm: Searcher
    propose: Callable[[int, Mapping[str, Any]], Item]
    """The run of that number at a point."""
    first: int
    """The first number that is free."""


class Tuning:
    """Carries out what is left of a study's runs, as many at a time as there are shares of the cluster."""

    def __init__(
        self,
        parts: Sequence[list[Node]],
        timeout: float,
        scheduler: TrialScheduler | None = None,
        search: Callable[[Study], Search] | None = None,
    ) -> None:
        """`timeout` is how many seconds others may hold the shares before that is an error."""
        self._parts, self._timeout = list(parts), timeout
        self._scheduler, self._search = scheduler or FIFOScheduler(), search

    def __call__(self, study: Study) -> None:
        known = self._search is None
        items = {item.number: item for item in study.left if study.runnable(item)} if known else {}
        left = len(items) if known else study.waiting
        if left <= 0:
            return
        search = self._search(study) if self._search else None
        grouped = [(study.group(item), item) for item in items.values()]
        waiting = Waiting(grouped) if any(group for group, _ in grouped) else None
        groups = reserve(self._parts[:left], self._timeout)
        node, plan = ray.get_runtime_context().get_node_id(), ray.put(study.plan)
        runners = [start_runner(plan, group, node) for group in groups]
        source, first = (search.propose, search.first) if search else (waiting, 0)
        broker = start_broker(plan, source, [*zip(runners, groups, strict=True)], node, first)
        table = _Table(study, broker, items, search, chosen=waiting is not None)
        try:
            self._fit(study, broker, table, len(groups), left)
            check_broker(broker)
            table.check()
        finally:
            for actor in (broker, *runners):
                ray.kill(actor)  # what they started ends with them
            for group in groups:
                remove_placement_group(group)

    def _fit(self, study: Study, broker: Any, table: _Table, side: int, left: int) -> None:
        # a trial that asks for no CPU is never kept waiting by a pool that holds them all
        resources = tune.PlacementGroupFactory([{"CPU": 0, "memory": 50e6}])
        nothing = study.plan.report(None, FAILED)
        search, items = table.search, None if table.search or table.chosen else table.items
        trainable = tune.with_parameters(
            StudyTrial, broker=[broker], items=items, nothing=nothing, announced=table.chosen
        )
        points = [{"trial": number, **item.values} for number, item in table.items.items()]
        points = [{"place": place} for place in range(left)] if table.chosen else points
        starts = study.directory.path / "tune"
        tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={POINT: tune.grid_search(points)} if search is None else {},
            tune_config=tune.TuneConfig(
                num_samples=1 if search is None else left,
                search_alg=None if search is None else ConcurrencyLimiter(search.algorithm, max_concurrent=side),
                scheduler=self._scheduler,
                max_concurrent_trials=side if search is None else None,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"start-{len(list(starts.glob('start-*'))) + 1}",
                storage_path=str(starts),
                callbacks=[TBXLoggerCallback(), table],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()


class _Table(tune.Callback):
    """Keeps the study's table as trials end, gives runners back, and ends everything when the user wants to stop."""

    def __init__(
        self, study: Study, broker: Any, items: Mapping[int, Item], search: Search | None, *, chosen: bool
    ) -> None:
        """`items` are the runs of a list by number; `chosen`: the broker says which trial is which of them."""
        self._study, self._broker, self.items, self.search, self.chosen = study, broker, items, search, chosen
        self._seen: dict[str, dict[str, Any]] = {}
        self._ended: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that is never made."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._study.stopped():
            raise Interrupted("stopped")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.search is not None:
            self._study.begun(None, trial.trial_id)
        elif not self.chosen:
            item = self.items[trial.config[POINT]["trial"]]
            self._study.begun(item, item.name)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self.chosen and trial.trial_id not in self._seen:
            item = self.items[result["trial"]]
            self._study.begun(item, item.name)
        self._seen[trial.trial_id] = result

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = self._seen.get(trial.trial_id, {})
        self._over(trial, result, result.get("status", STOPPED))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._over(trial, self._seen.get(trial.trial_id, {}), _LOST)

    def _over(self, trial: Any, result: dict[str, Any], status: str) -> None:
        ended = self._broker.end.remote(trial.trial_id)
        if status == STOPPED:
            with contextlib.suppress(RayError):  # a broker that died stops nobody, and is told of at the end
                ray.get(ended)  # until then it may still write
        if self.search is not None:
            if "trial" in result:  # else a proposal that never began
                self._study.over(self.search.propose(result["trial"], trial.config), status, trial.trial_id)
            return
        number = result.get("trial") if self.chosen else trial.config[POINT]["trial"]
        if number is not None:
            self._end(number, status)

    def _end(self, number: int, status: str) -> None:
        self._ended.add(number)
        self._study.over(self.items[number], status, self.items[number].name)

    def check(self) -> None:
        """Every run of a list has ended, somehow."""
        for number in sorted(self.items.keys() - self._ended):
            self._end(number, _LOST)

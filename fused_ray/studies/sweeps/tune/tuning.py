"""A sweep's trials by Ray Tune, on runners that stay warm.

Tune's own actor of a trial is thin: it asks for no CPU, imports no PyTorch, and passes on what its runner reports. The
rows of trials.parquet come from the trials' run directories; of Tune's own files, nothing is ever read back.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # as Tune is imported; ours are named below
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths go on to mean what they meant

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from fused_ray.engine.placement import Node, plan, shares
from fused_ray.engine.pool import cluster_nodes
from fused_ray.errors import ConfigError, Interrupted, PlacementError
from fused_ray.seeding import derive
from fused_ray.studies.sweeps import rows
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.execute import Sweep
from fused_ray.studies.sweeps.trials import Trial
from fused_ray.studies.sweeps.tune.broker import check_broker, start_broker
from fused_ray.studies.sweeps.tune.runner import start_runner
from fused_ray.studies.sweeps.tune.space import to_tune
from fused_ray.studies.sweeps.tune.trainable import POINT, SweepTrial

_AUTO = 4
"""Most trials at a time where max_concurrent is auto."""


class Tuning:
    """Runs what is left of a sweep's trials. Raises PlacementError at once if they do not fit on the cluster."""

    def __init__(self, config: SweepConfig) -> None:
        self._config = config
        self._shares = _shares(config)

    def __call__(self, sweep: Sweep) -> None:
        config = self._config
        known = config.search != "optuna"
        trials = {trial.number: trial for trial in sweep.left if sweep.runnable(trial)} if known else {}
        first = max(sweep.found, default=-1) + 1
        left = len(trials) if known else config.count - len(sweep.found)
        if left <= 0:
            return
        groups = _reserve(self._shares[:left], config.base.engine.start_timeout)
        node = ray.get_runtime_context().get_node_id()
        runners = [start_runner(config, group, node) for group in groups]
        broker = start_broker(config, [*zip(runners, groups, strict=True)], node, first)
        # a trial that asks for no CPU is never kept waiting by a pool that holds them all
        resources = tune.PlacementGroupFactory([{"CPU": 0, "memory": 50e6}])
        trainable = tune.with_resources(
            tune.with_parameters(SweepTrial, broker=[broker], trials=trials if known else None), resources
        )
        space: dict[str, Any] = {}
        search: Any = None
        if known:
            points = [{"trial": number, **trial.values} for number, trial in trials.items()]
            space = {POINT: tune.grid_search(points)}
        else:
            sweep.clear()
            search = ConcurrencyLimiter(_optuna(config, sweep), max_concurrent=len(groups))
        try:
            tune.Tuner(
                trainable,
                param_space=space,
                tune_config=tune.TuneConfig(
                    num_samples=1 if known else left,
                    search_alg=search,
                    scheduler=_scheduler(config),
                    max_concurrent_trials=len(groups) if known else None,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=f"start-{len(list((sweep.directory.path / 'tune').glob('start-*'))) + 1}",
                    storage_path=str(sweep.directory.path / "tune"),
                    callbacks=[TBXLoggerCallback(), _Table(sweep, broker, trials)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    verbose=0,
                ),
            ).fit()
            check_broker(broker)
        finally:
            for actor in (broker, *runners):
                ray.kill(actor)  # what they started ends with them
            for group in groups:
                remove_placement_group(group)


class _Table(tune.Callback):
    """Keeps the sweep's table as trials end, gives runners back, and ends everything when the user wants to stop."""

    def __init__(self, sweep: Sweep, broker: Any, trials: Mapping[int, Trial]) -> None:
        self._sweep, self._broker, self._trials = sweep, broker, trials
        self._seen: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that is never made."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._sweep.stopped():
            raise Interrupted("stopped")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._sweep.begun(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._seen[trial.trial_id] = result

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = self._seen.get(trial.trial_id, {})
        self._over(trial, result, result.get("status", rows.STOPPED))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._over(trial, self._seen.get(trial.trial_id, {}), f"{rows.FAILED}Ray Tune lost the trial")

    def _over(self, trial: Any, result: dict[str, Any], status: str) -> None:
        ended = self._broker.end.remote(trial.trial_id)
        if status == rows.STOPPED:
            with contextlib.suppress(RayError):  # a broker that died stops nobody, and is told of at the end
                ray.get(ended)  # until then it may still write
        point = trial.config.get(POINT)
        if point is not None:
            found = self._trials[point["trial"]]
        elif "trial" in result:
            found = self._sweep.config.trial(result["trial"], trial.config)
        else:
            return  # a proposal that never began
        self._sweep.over(found, status, trial.trial_id)


def _shares(config: SweepConfig) -> list[list[Node]]:
    """What each runner gets of the cluster."""
    nodes = cluster_nodes()
    federation = config.base.federation
    asked = federation.actor_gpus
    with_gpus = sum(node.gpus for node in nodes) >= 1 if asked == "auto" else asked > 0
    units = sum(int(node.gpus if with_gpus else node.cpus) for node in nodes)
    wanted = config.max_concurrent
    auto = 1 if config.search == "optuna" else max(1, min(_AUTO, units))
    found = shares(nodes, min(auto if wanted == "auto" else wanted, config.count), with_gpus)
    trials = config.trials if config.search != "optuna" else config.likely
    for placed in {trial.config.federation: None for trial in trials if trial.config is not None}:
        for share in found:
            try:
                plan(placed, [1] * placed.clients, share)
            except PlacementError as error:
                raise PlacementError(f"max_concurrent: {len(found)} trials at a time: {error}") from None
    return found


def _reserve(parts: list[list[Node]], limit: float) -> list[PlacementGroup]:
    """A placement group for each part. Raises PlacementError if others hold what they need for that many seconds."""
    groups = []
    for part in parts:
        bundles = [{"CPU": node.cpus} | ({"GPU": node.gpus} if node.gpus else {}) for node in part]
        # on the nodes that were counted with: left to itself, Ray packs parts of two nodes onto one
        where = [{"ray.io/node-id": node.name} for node in part]
        groups.append(placement_group(bundles, bundle_label_selector=where))
    for group in groups:
        if not group.wait(timeout_seconds=limit):
            for held in groups:
                remove_placement_group(held)
            raise PlacementError(
                f"max_concurrent: the cluster's cores for {len(parts)} trials at a time did not come free within "
                f"{limit:g} s (base.engine.start_timeout); lower max_concurrent or raise the limit"
            )
    return groups


def _scheduler(config: SweepConfig) -> TrialScheduler:
    if config.scheduler == "none":
        return FIFOScheduler()
    ((metric, mode),) = config.objectives.items()
    longest = max((trial.config.unlearn.rounds for trial in config.likely if trial.config), default=1)
    return ASHAScheduler(time_attr="round", metric=metric, mode=mode, max_t=max(2, longest), grace_period=1)


def _optuna(config: SweepConfig, sweep: Sweep) -> Searcher:
    """Optuna's search, told again what earlier starts of the sweep found."""
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError:
        raise ConfigError("search: optuna is not installed on the cluster: pip install optuna") from None
    names, modes = list(config.objectives), list(config.objectives.values())
    seed = derive(config.seed, "optuna", len(sweep.found)) % 2**32
    sampler = optuna.samplers.NSGAIISampler(seed=seed) if len(names) > 1 else optuna.samplers.TPESampler(seed=seed)
    space = {key: to_tune(found) for key, found in config.dimensions.items()}
    distributions = OptunaSearch.convert_search_space(space)
    storage = optuna.storages.InMemoryStorage()
    kinds = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}
    directions = [kinds[mode] for mode in modes]
    study = optuna.create_study(storage=storage, study_name="sweep", directions=directions)
    for found in sweep.found.values():
        last = found[-1]
        values = [rows.report(last)[name] for name in names]
        state = optuna.trial.TrialState.COMPLETE if last["status"] == rows.DONE else optuna.trial.TrialState.FAIL
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=values if state == optuna.trial.TrialState.COMPLETE else None,
                params=json.loads(last["values"]),
                distributions=distributions,
            )
        )
    several = len(names) > 1
    return OptunaSearch(
        space=distributions,
        metric=names if several else names[0],
        mode=[*modes] if several else str(modes[0]),
        sampler=sampler,
        storage=storage,
        study_name="sweep",
    )

"""How Ray Tune goes about a sweep: its scheduler, and Optuna's search, told again what earlier starts found."""

from __future__ import annotations

import json

from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from fused_ray.errors import ConfigError
from fused_ray.seeding import derive
from fused_ray.studies.status import DONE
from fused_ray.studies.study import Study
from fused_ray.studies.sweeps import rows
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.study import Sweep
from fused_ray.studies.tune.space import to_tune
from fused_ray.studies.tune.tuning import Search


def scheduler(config: SweepConfig) -> TrialScheduler | None:
    """Who ends trials early."""
    if config.scheduler == "none":
        return None
    ((metric, mode),) = config.objectives.items()
    longest = max((trial.config.unlearn.rounds for trial in config.likely if trial.config), default=1)
    return ASHAScheduler(time_attr="round", metric=metric, mode=mode, max_t=max(2, longest), grace_period=1)


def search(sweep: Study) -> Search:
    """Optuna's."""
    assert isinstance(sweep, Sweep)
    sweep.clear()
    return Search(_optuna(sweep.config, sweep), sweep.config.trial, first=max(sweep.found, default=-1) + 1)


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
        state = optuna.trial.TrialState.COMPLETE if last["status"] == DONE else optuna.trial.TrialState.FAIL
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

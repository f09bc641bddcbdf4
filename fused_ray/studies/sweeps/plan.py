"""A sweep's plan: its trials, what they share, which of them have no frozen prefix, and about how long it takes.

Nothing is started. The estimate is for this machine and nothing else on it; it knows neither a GPU nor another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_ray.config import RunConfig, schedule
from fused_ray.config.parts.methods import METHOD_SECTIONS
from fused_ray.core.layers import Sensitivity
from fused_ray.errors import FusedRayError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.remaining import told
from fused_ray.runs.screen import Notes, Screen, fits, make_screen, make_table
from fused_ray.storage.environment import usable_cpus
from fused_ray.studies.start import unused
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.foreseen import Foreseen, foresee
from fused_ray.studies.sweeps.front import rounded, short
from fused_ray.studies.sweeps.trials import Trial

if TYPE_CHECKING:
    from fused_ray.studies.sweeps.estimate import Costs

# measured on two cores, in processor seconds
_RUN = 0.2
"""A run beside its rounds: its folder, its checks, its result."""
_PROCESS = 3.3
"""A process of Ray's until it has imported what it needs."""
_BEGIN, _BEGIN_RAY = 3.0, 10.0
"""Until the first process is there, and Ray; wall seconds."""
_RUNNERS = 4
"""Trials at a time where max_concurrent is auto."""


@dataclass(frozen=True)
class Estimate:
    """About how long a sweep takes here, or why that cannot be said."""

    begin: float = 0.0
    """Seconds until all processes are there."""
    work: float = 0.0
    """Seconds of work after that, on all cores."""
    cores: int = 0
    """0: that cannot be said."""
    local: bool = False
    """Whether it is one process's core."""
    why_not: str = ""


def show_plan(config: SweepConfig, *, timed: bool) -> None:
    """Print the plan."""
    screen = make_screen()
    trials = config.trials if config.search != "optuna" else ()
    Notes(screen)(unused(config))
    screen.say(f"{config.count} trials ({config.search}), scheduler {config.scheduler}")
    if trials:
        _show_trials(screen, config, trials)
    else:
        screen.tell("optuna proposes its trials one by one; the estimate takes every value as often")
    runs, wanted, expected = _runs(config)
    if runs:
        screen.tell(_rounds_of(config, runs))
    screen.say(_store(config, wanted))
    if config.base.audit.enabled:
        screen.tell(
            f"In the end, of each case at most {config.audits} candidates are audited, best first, until one is "
            "forgotten; their time is not in what follows."
        )
    if timed and expected:
        screen.tell(_in_words(_estimate(config, expected, wanted)))


def described(config: SweepConfig, *, timed: bool) -> dict[str, Any]:
    """The plan in plain values."""
    _, wanted, expected = _runs(config)
    missing = [left for shared in wanted.values() if (left := _left(shared))]
    whole: dict[str, Any] = {
        "trials": [_described(config, trial) for trial in (config.trials if config.search != "optuna" else ())],
        "count": config.count,
        "search": config.search,
        "scheduler": config.scheduler,
        "models": {
            "store": str(config.store),
            "there": len(wanted) - len(missing),
            "to_make": len(missing),
            "rounds_to_make": sum(sum(left.values()) for left in missing),
        },
        "audits": config.audits if config.base.audit.enabled else 0,
        "notes": unused(config),
        "estimate": None,
    }
    if timed and expected:
        found = _estimate(config, expected, wanted)
        seconds = {"begin_seconds": found.begin, "work_seconds": found.work, "cores": found.cores}
        whole["estimate"] = {"why_not": found.why_not} if found.why_not else seconds
    return whole


def _described(config: SweepConfig, trial: Trial) -> dict[str, Any]:
    """A trial in plain values."""
    layers = _foresee(config, trial.config)
    return {
        "trial": trial.number,
        "values": trial.values,
        "rounds": trial.config and _unlearning(trial.config),
        "frozen_prefix": layers and list(layers.below),
        "frozen_prefix_known": layers is not None and layers.known,
        "not_run": trial.reason or None,
    }


def _runs(config: SweepConfig) -> tuple[list[RunConfig], dict[str, RunConfig], list[RunConfig]]:
    """The listed runs; those that make shared models, by folder; and what there will be, for an estimate."""
    trials = config.trials if config.search != "optuna" else ()
    runs = [trial.config for trial in trials if trial.config is not None]
    wanted = _shared(config, runs or [trial.config for trial in config.likely if trial.config is not None])
    corners = [trial.config for trial in config.corners if trial.config is not None]
    expected = runs or [corners[number % len(corners)] for number in range(config.count) if corners]
    return runs, wanted, expected


def _show_trials(screen: Screen, config: SweepConfig, trials: Sequence[Trial]) -> None:
    """A row per trial; the swept values in one column where the terminal has no room for more."""
    names = list(map(short, config.dimensions))
    values = [list(map(rounded, trial.values.values())) for trial in trials]
    ends = [_says(trial, _foresee(config, trial.config)) for trial in trials]
    whole = [(str(t.number), *told, *end) for t, told, end in zip(trials, values, ends, strict=True)]
    left = ("setting", "frozen prefix")
    table = make_table(("trial", *names, "rounds", "frozen prefix"), whole, left)
    if not fits(screen, table):
        settings = [", ".join(f"{name} {value}" for name, value in zip(names, told, strict=True)) for told in values]
        joined = [(str(t.number), text, *end) for t, text, end in zip(trials, settings, ends, strict=True)]
        table = make_table(("trial", "setting", "rounds", "frozen prefix"), joined, left)
    screen.print(table)


def _says(trial: Trial, layers: Foreseen | None) -> tuple[str, str]:
    """Rounds, and what lies below the adapter."""
    if trial.config is None:
        return "-", f"not run: {trial.reason}"
    rounds = str(_unlearning(trial.config))
    if layers is None or trial.config.model.known is None:
        return rounds, "known when the model is built"
    if not layers.below:
        return rounds, "none: full rounds"
    norms = trial.config.model.known.norms
    below = [name for name in layers.below if name not in norms]
    said = ", ".join(below) if len(below) < 6 else f"{below[0]} ... {below[-1]}"
    return rounds, said if layers.known else f"at most {said}"


def _unlearning(config: RunConfig) -> int:
    """Rounds in which a trial forgets."""
    rounds = schedule.on_shared(config)
    return rounds.get("unlearn", 0) + rounds.get("retrain", 0)


def _foresee(config: SweepConfig, run: RunConfig | None) -> Foreseen | None:
    """The layers of a trial's run, by its shared model's ranking if that is in the store."""
    if run is None:
        return None
    ranking: list[Sensitivity] = []
    place = Path(config.model(run).output.dir)
    if run.unlearn.selection_part[0].alone and (place / "result.json").exists():
        ranking = [Sensitivity(**item) for item in RunDirectory.open(place).result["layers"]["ranking"]]
    return foresee(run, ranking)


def _rounds_of(config: SweepConfig, runs: Sequence[RunConfig]) -> str:
    foreseen = [_foresee(config, run) for run in runs if run.model.known is not None]
    full = sum(layers is not None and layers.known and not layers.below for layers in foreseen)
    return (
        f"{sum(map(_unlearning, runs))} unlearning rounds in {len(runs)} trials; {full} trials train the input layer, "
        "have no frozen prefix and cost full rounds."
    )


# -- shared models


def _shared(config: SweepConfig, runs: Sequence[RunConfig]) -> dict[str, RunConfig]:
    """The runs that make the models which trials share, by folder."""
    wanted: dict[str, RunConfig] = {}
    for run in runs:
        reference = config.reference(run)
        for shared in (config.model(run), *([reference] if reference else [])):
            wanted.setdefault(shared.output.dir, shared)
    return wanted


def _left(shared: RunConfig) -> dict[str, int]:
    """The rounds that a shared model still takes: none if it is in the store, some if it was begun there."""
    place = Path(shared.output.dir)
    if (place / "result.json").exists():
        return {}
    rounds = schedule.rounds(shared)
    if not place.exists():
        return rounds
    done = RunDirectory.open(place).table("rounds").to_pylist()
    return {phase: count - sum(row["phase"] == phase for row in done) for phase, count in rounds.items()}


def _store(config: SweepConfig, wanted: dict[str, RunConfig]) -> str:
    """What of the shared models is there, and what is to be made."""
    missing = {path: left for path, shared in wanted.items() if (left := _left(shared))}
    begun = sum(Path(path).exists() for path in missing)
    ranges = [key for key, dimension in config.dimensions.items() if dimension.values is None]
    unknown = config.search == "optuna" and any(key.partition(".")[0] not in METHOD_SECTIONS for key in ranges)
    least = "at least " if unknown else ""  # what optuna will propose of them is not known
    parts = [f"{len(wanted) - len(missing)} of {least}{len(wanted)} are in {config.store}"]
    if missing:
        rounds = sum(sum(left.values()) for left in missing.values())
        parts.append(f"{len(missing)} to make ({rounds} full rounds)" + (f", {begun} of them begun" if begun else ""))
    return f"Shared models: {'; '.join(parts)}."


# -- time


def _estimate(config: SweepConfig, runs: Sequence[RunConfig], wanted: dict[str, RunConfig]) -> Estimate:
    if any(run.data.known is None for run in runs):
        return Estimate(why_not="How long it takes cannot be said beforehand with data of one's own.")
    from fused_ray.studies.sweeps import estimate  # imports PyTorch

    costs: dict[object, Costs] = {}
    of_model: dict[str, Costs] = {}
    work = 0.0
    try:
        for run in runs:
            foreseen = _foresee(config, run)
            choices = foreseen.choices if foreseen else (None,)
            for layers in choices:
                kind = estimate.key(run, layers)
                if kind not in costs:
                    costs[kind] = estimate.measure(run, layers)
                for path in _shared(config, [run]):
                    of_model.setdefault(path, costs[kind])
                work += estimate.seconds(run, schedule.on_shared(run), costs[kind]) / len(choices)
    except FusedRayError as error:
        return Estimate(why_not=f"How long it takes cannot be said: a miniature of it failed: {error}")
    missing = [(shared, of_model[path], left) for path, shared in wanted.items() if (left := _left(shared))]
    work += sum(estimate.seconds(shared, left, cost) for shared, cost, left in missing)
    work += _RUN * (len(runs) + len(missing))
    local = config.base.engine.backend == "local"
    cores = 1 if local else usable_cpus()
    begin = _BEGIN if local else _BEGIN_RAY + _PROCESS * _processes(config, cores, bool(missing)) / cores
    return Estimate(begin, work / cores, cores, local)


def _in_words(found: Estimate) -> str:
    if found.why_not:
        return found.why_not
    where = "one core" if found.local else f"the {found.cores} core(s) of this machine"
    return (
        f"About {told(found.begin + found.work)} on {where} if nothing else runs: {told(found.begin)} until all "
        f"processes are there, {told(found.work)} of work, by a miniature of each kind of trial timed just now. Where "
        "layers are still to be ranked, any are as likely; a GPU or another machine make it another time."
    )


def _processes(config: SweepConfig, cores: int, models: bool) -> int:
    """How many Ray starts: the driver, actors of clients for the models and for trials, and per trial at a time two."""
    auto = 1 if config.search == "optuna" else _RUNNERS
    wanted = auto if config.max_concurrent == "auto" else config.max_concurrent
    runners = min(wanted, cores, config.count)
    actors = min(cores, config.base.federation.clients)
    return 1 + actors * models + max(actors, runners) + 2 * runners + 1

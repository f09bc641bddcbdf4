"""A sweep's plan: its trials, what they share, which of them have no frozen prefix, and about how long it takes.

Nothing is started. The estimate comes from a few training steps on one core of this machine, timed at every depth of
the model: rounds x examples x seconds an example, shared out over the cores, and a second a trial. It knows neither a
GPU nor another machine, and which layers a ranking will choose it can only suppose: the last ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from fused_ray import registry
from fused_ray.config import RunConfig
from fused_ray.results.display import make_console
from fused_ray.results.environment import usable_cpus
from fused_ray.results.sweep.front import short
from fused_ray.trials import SweepConfig, Trial

_TRIAL = 1.0
"""Seconds a trial that are not rounds."""
_START = 15.0
"""Seconds until Ray and the actors have started."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one core for one example."""

    step: Mapping[str, float]
    """Training, by the lowest layer that is trained."""
    forward: float


def lowest(config: RunConfig) -> str | None:
    """The lowest layer that a trial trains, if the model is known; a ranking is taken to choose the last K ones."""
    model, unlearn = config.model.known, config.unlearn
    if model is None:
        return None
    if unlearn.method != "fused":
        return model.layers[0]
    if unlearn.selection == "budget":
        return model.ranked[0 if unlearn.input_layer else 1]
    if isinstance(unlearn.layers, int):
        return model.ranked[len(model.ranked) - unlearn.layers]
    return min(unlearn.layers, key=model.layers.index)


def may_reach_input(config: RunConfig) -> bool:
    """Whether a ranking or a draw could choose the input layer although fewer than all are adapted."""
    unlearn = config.unlearn
    return unlearn.method == "fused" and isinstance(unlearn.layers, int) and unlearn.input_layer


def show_plan(config: SweepConfig, *, timed: bool) -> None:
    """Print the plan."""
    console = make_console()
    trials = config.trials if config.search != "optuna" else ()
    runs = [(trial, trial.config) for trial in trials if trial.config is not None]
    title = f"{config.count} trials ({config.search}), scheduler {config.scheduler}"
    table = Table(title=title)
    for name in ("trial", *map(short, config.dimensions), "rounds", "frozen prefix"):
        table.add_column(name, justify="right")
    for trial in trials:
        values = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in trial.values.values()]
        table.add_row(str(trial.number), *values, *_says(trial))
    if trials:
        console.print(table)
    else:
        console.print("optuna proposes its trials one by one; the estimate takes every value as often", highlight=False)
    models = _missing(config, [c for _, c in runs] or [t.config for t in config.likely if t.config is not None])
    full = sum(c.model.known is not None and lowest(c) == c.model.known.layers[0] for _, c in runs)
    rounds = sum(c.unlearn.rounds for _, c in runs)
    lines = [
        *([f"{rounds} unlearning rounds in {len(runs)} trials; {full} trials train the input layer, have no frozen "
           "prefix and cost full rounds."] if runs else []),
        f"Shared models to make: {len(models)} ({sum(map(_rounds, models))} full rounds); others are in "
        f"{config.store} already." if models else f"All shared models are in {config.store} already.",
        *([f"In the end, of each case at most {config.audits} candidates are audited, best first, until one is "
           "forgotten; their time is not in what follows."] if config.base.audit.enabled else []),
    ]  # fmt: skip
    corners = [t.config for t in config.corners if t.config is not None]
    expected = [c for _, c in runs] or [corners[number % len(corners)] for number in range(config.count) if corners]
    if timed and expected:
        lines.append(_estimate(config, expected, models))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _says(trial: Trial) -> tuple[str, str]:
    if trial.config is None:
        return "-", f"not run: {trial.reason}"
    rounds, model, bottom = str(trial.config.unlearn.rounds), trial.config.model.known, lowest(trial.config)
    if model is None or bottom is None:
        return rounds, "known when the model is built"
    if bottom == model.layers[0]:
        return rounds, "none: full rounds"
    below = [name for name in model.ranked if model.layers.index(name) < model.layers.index(bottom)]
    told = ", ".join(below) if len(below) < 6 else f"{below[0]} ... {below[-1]}"
    return rounds, "unless ranked otherwise: none" if may_reach_input(trial.config) else told


def _missing(config: SweepConfig, runs: Sequence[RunConfig]) -> list[RunConfig]:
    """The shared models that the store lacks."""
    wanted: dict[str, RunConfig] = {}
    for run in runs:
        reference = config.reference(run)
        for shared in (config.model(run), *([reference] if reference else [])):
            wanted.setdefault(shared.output.dir, shared)
    return [shared for path, shared in wanted.items() if not (Path(path) / "result.json").exists()]


def _rounds(shared: RunConfig) -> int:
    """Full rounds of a shared model; pre-training ends with one that ranks the layers."""
    return shared.retrain_rounds if shared.unlearn.method == "retrain" else shared.pretrain.rounds + 1


def _estimate(config: SweepConfig, runs: Sequence[RunConfig], models: Sequence[RunConfig]) -> str:
    costs: dict[tuple[str, str], Costs] = {}
    for run in runs:
        if run.model.known is None or registry.DATASETS[run.data.name] is None:
            return "How long it takes cannot be said beforehand with a model or data of one's own."

    def cost(run: RunConfig) -> Costs:
        key = run.model.name, run.data.name
        if key not in costs:
            costs[key] = measure(run)
        return costs[key]

    seconds = sum(_rounds(shared) * _round(shared, cost(shared), _first(shared)) for shared in models)
    for run in runs:
        seconds += run.unlearn.rounds * _round(run, cost(run), lowest(run) or _first(run))
        seconds += _test(run) * cost(run).forward
    cores = usable_cpus()
    total = seconds / cores + _TRIAL * len(runs) / (cores if config.max_concurrent != 1 else 1) + _START
    about = f"{total:.0f} s" if total < 120 else f"{total / 60:.0f} min"
    return (
        f"About {about} on the {cores} core(s) of this machine, from a few training steps timed on one of them "
        "just now; other work beside it, a GPU or another machine make it another time."
    )


def _first(run: RunConfig) -> str:
    return registry.MODELS[run.model.name].layers[0]


def _round(run: RunConfig, cost: Costs, bottom: str) -> float:
    """Core seconds of a round: training, and evaluation (above a frozen prefix about a third of a training step)."""
    forward = cost.forward if bottom == _first(run) else cost.step[bottom] / 3
    return _train(run) * run.train.local_epochs * cost.step[bottom] + _test(run) * forward


def _data(run: RunConfig) -> registry.DatasetInfo:
    found = registry.DATASETS[run.data.name]
    assert found is not None, "own data have no estimate"
    return found


def _train(run: RunConfig) -> int:
    return min(run.data.limit or _data(run).train_examples, _data(run).train_examples)


def _test(run: RunConfig) -> int:
    return min(run.data.limit or _data(run).test_examples, _data(run).test_examples)


def measure(run: RunConfig) -> Costs:
    """Time a few steps of a run's model on random images, at each depth, on one core."""
    import time

    import numpy as np
    import torch

    from fused_ray import models
    from fused_ray.core.rounds import one_thread
    from fused_ray.models import anatomy
    from fused_ray.seeding import generator

    info = _data(run)
    model = models.initialise(run.model, info.shape, info.classes, 0, "plan")
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = generator(0, "plan").standard_normal((run.train.batch_size, *info.shape)).astype(np.float32)
    x, stages = (
        torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last),
        anatomy.stages(model, info.shape),
    )
    y = torch.zeros(len(x), dtype=torch.int64)

    def suffix(x: torch.Tensor, cut: int) -> torch.Tensor:
        for stage in stages[cut:]:
            x = stage.forward(x)
        return x

    def timed(work: Callable[[], object]) -> float:
        work()
        best, until = math.inf, time.perf_counter() + 0.3
        while time.perf_counter() < until:
            began = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - began)
        return best / len(x)

    with one_thread():
        inputs = [x]
        with torch.no_grad():
            for stage in stages:
                inputs.append(stage.forward(inputs[-1]))
        step: dict[str, float] = {}
        for cut, stage in enumerate(stages):

            def train(cut: int = cut) -> None:
                model.zero_grad()
                torch.nn.functional.cross_entropy(suffix(inputs[cut], cut), y).backward()

            took = timed(train) if stage.layers else 0.0
            step |= dict.fromkeys(stage.layers, took)
        with torch.inference_mode():
            return Costs(step, timed(lambda: suffix(x, 0)))

"""What the experiments share: pre-trained base runs, and unlearning from them with many settings in one process."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fused_ray import RunConfig, load_run, resume, run
from fused_ray.core import state
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import Unlearned, fused
from fused_ray.core.pools import ClientPool
from fused_ray.core.rounds import Federation, RoundRecord, Saved
from fused_ray.core.state import Arrays
from fused_ray.data import datasets, scenarios
from fused_ray.storage.files import read_state
from fused_ray.types import ImageData, PartialSum, Scenario

TRAINING = ["federation.clients=50", "pretrain.rounds=20", "train.lr=0.02", "train.batch_size=64"]
TRAINING += ["train.local_epochs=1", "output.plots=false"]
ADAPTER = ["unlearn.selection=critical", "unlearn.layers=2", "unlearn.sparsity=0.5", "unlearn.mask=random"]
ADAPTER += ["unlearn.saliency=forget", "unlearn.start=zero", "unlearn.rounds=5"]
"""The recipe behind the documented figures, said in full: no later default changes them."""
BASE = ["data.name=fashion-mnist", *TRAINING, *ADAPTER]


@dataclass(frozen=True)
class Setting:
    """One way to unlearn, and how many draws (of masks or layers) of it are tried on every seed."""

    name: str
    overrides: tuple[str, ...]
    draws: int = 1
    rounds: int = 5


class EveryRound(MemoryRecorder):
    """Keeps the payload after every round."""

    def __init__(self, saved: Mapping[str, Saved] | None = None) -> None:
        super().__init__(saved)
        self.rounds: dict[tuple[str, int], Saved] = {}

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: Any, saved: Saved) -> None:
        super().finish_round(record, total, predictions, saved)
        self.rounds[record.phase, record.round] = saved


@dataclass
class Bench:
    """A base run with its data in memory; rankings and gradients are computed once."""

    path: Path
    config: RunConfig
    data: ImageData
    scenario: Scenario
    base: Arrays
    before: dict[str, float]
    retrained: dict[str, float] | None
    shared: dict[str, Saved] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Bench:
        directory = load_run(path)
        config, metrics = directory.config, directory.result["metrics"]
        data = datasets.load(config.data, config.seed)
        scenario = scenarios.build(config, data)
        data = scenarios.extended(config, data, scenario)
        base = read_state(path / "base.safetensors")
        return cls(path, config, data, scenario, base, metrics["before"], metrics["retrained"])

    def model(self, name: str) -> Arrays:
        """A model that the base run kept: "base" or "retrained"."""
        return read_state(self.path / f"{name}.safetensors")

    def with_(self, overrides: Iterable[str]) -> RunConfig:
        """The base run's training, the documented adapter, and other fields."""
        values = self.config.model_dump(mode="json", by_alias=True)
        values["unlearn"] = {}
        others = list(overrides)
        return RunConfig.from_dict(values, [*ADAPTER, *adapter_rate(self.config.train.lr, others), *others])

    def unlearn(self, config: RunConfig, pool: ClientPool) -> tuple[Unlearned, EveryRound]:
        """The method fused from the base run's model, on a pool that has it installed."""
        recorder = EveryRound({name: saved for name, saved in self.shared.items() if name == "rank"})
        found = fused.unlearn(Federation(config, self.data, self.scenario, pool, recorder), self.base)
        self.shared |= {name: saved for name, saved in recorder.saved.items() if name == "rank"}
        return found, recorder

    def install(self, pool: ClientPool) -> None:
        """Give M_r to a pool's workers."""
        pool.install(state.flatten(self.base))


def adapter_rate(lr: float, others: Iterable[str] = ()) -> list[str]:
    """The documented rate of an adapter: ten times training's, but training's if all layers share a budget."""
    return [f"unlearn.lr={lr if 'unlearn.selection=budget' in others else 10 * lr}"]


def base_run(
    scenario: str, seed: int, places: Sequence[Path], retrain: bool = True, fields: Sequence[str] = ()
) -> Path:
    """A finished run of this scenario and seed that pre-trained, and retrained if wanted.

    It is looked for in all of `places`, and made in the last of them.
    """
    for place in places:
        path = place / f"{scenario}-{seed}"
        if path.exists() and (not retrain or load_run(path).config.retrain_rounds):
            resume(path)
            return path
    path = places[-1] / f"{scenario}-{seed}"
    fixed = [f"forget.scenario={scenario}", f"seed={seed}", f"output.dir={path}", "unlearn.layers=[fc3]"]
    fixed += ["unlearn.rounds=0", f"retrain.rounds={20 if retrain else 0}", *fields]
    run(RunConfig.from_dict({}, [*BASE, *fixed]), overwrite=path.exists())
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV with all columns that any row has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Its rows, all as text; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation for a table."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def draws(setting: Setting, bench: Bench) -> Iterator[tuple[int, RunConfig]]:
    """The configurations of a setting, by draw."""
    for draw in range(setting.draws):
        yield draw, bench.with_([*setting.overrides, f"unlearn.draw={draw}", f"unlearn.rounds={setting.rounds}"])

"""What FUSED achieves on full Fashion-MNIST with LeNet and 50 clients: every setting, every seed, every mask.

    python benchmarks/claims.py class|exclusive|ranking|lr [--out runs/claims]

Pre-trains and retrains once per scenario and seed (kept under --out, resumable), then unlearns from there with many
settings on warm actors. Writes a CSV (a row per scenario, seed, setting, mask and round) and prints a summary.
`ranking` and `lr` are how the defaults were chosen, `lr` on a seed that nothing else is measured on.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment import BASE

from fused_ray import RunConfig, load_run, resume, run
from fused_ray.core import state
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import Unlearned, fused
from fused_ray.core.rounds import Federation, Saved
from fused_ray.data import datasets, scenarios
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import session
from fused_ray.storage.files import read_state


@dataclass(frozen=True)
class Setting:
    """One way to unlearn, and how many masks of it are tried on every seed."""

    name: str
    overrides: tuple[str, ...]
    masks: int = 1
    rounds: int = 5


def class_settings() -> Iterator[Setting]:
    """Forgetting class 0."""
    yield Setting("fc3 0.5 zero", ("unlearn.layers=[fc3]", "unlearn.sparsity=0.5"), masks=3)
    yield Setting("fc3 0.9 zero", ("unlearn.layers=[fc3]", "unlearn.sparsity=0.9"), masks=10)
    yield Setting("K=2 0.5 zero", ("unlearn.layers=2", "unlearn.sparsity=0.5"), masks=2)
    yield Setting("all five 0.95 zero", ("unlearn.layers=5", "unlearn.sparsity=0.95"), masks=2)


def ranking_settings() -> Iterator[Setting]:
    """Which ranking finds the layers that forget, and whether the input layer may be one of them."""
    for layers, ranking, inputs in itertools.product((1, 2, 3), ("mean", "sum", "relative"), (False, True)):
        where = "with input" if inputs else "no input"
        chosen = (f"unlearn.layers={layers}", f"unlearn.ranking={ranking}", f"unlearn.input_layer={inputs}")
        yield Setting(f"K={layers} {ranking} {where}", (*chosen, "unlearn.sparsity=0.5", "unlearn.lr=0.04"))


def exclusive_settings() -> Iterator[Setting]:
    """Forgetting all that client 0 alone knew."""
    fc3 = "unlearn.layers=[fc3]"
    for start, sparsity in itertools.product(("reset", "zero", "negate"), (0, 0.5, 0.9)):
        masks = 1 if sparsity == 0 else 3
        setting = (fc3, f"unlearn.start={start}", f"unlearn.sparsity={sparsity}")
        yield Setting(f"fc3 {sparsity} {start}", setting, masks)


def lr_settings() -> Iterator[Setting]:
    """The adapter's learning rate, on seeds that nothing else is measured on."""
    for start, sparsity, lr in itertools.product(("zero", "reset"), (0, 0.5, 0.9), (0.02, 0.05, 0.1, 0.2, 0.4)):
        fields = ("unlearn.layers=[fc3]", f"unlearn.start={start}", f"unlearn.sparsity={sparsity}", f"unlearn.lr={lr}")
        yield Setting(f"fc3 {sparsity} {start} lr {lr}", fields, masks=1 if sparsity == 0 else 2)
    for lr in (0.04, 0.1, 0.2):
        yield Setting(f"K=2 0.5 zero lr {lr}", ("unlearn.layers=2", f"unlearn.lr={lr}"))


def base_run(scenario: str, seed: int, out: Path, retrain: bool) -> Path:
    """A finished run of this scenario and seed: pre-trained, unlearned for a round, retrained if wanted."""
    path = out / f"{scenario}-{seed}"
    if path.exists():
        resume(path)
    else:
        fixed = [f"forget.scenario={scenario}", f"seed={seed}", f"output.dir={path}"]
        fixed += ["unlearn.layers=[fc3]", "unlearn.rounds=1", f"retrain.rounds={20 if retrain else 0}"]
        run(RunConfig.from_dict({}, [*BASE, "unlearn.lr=0.2", *fixed]))
    return path


def try_settings(path: Path, settings: Iterator[Setting]) -> Iterator[dict[str, Any]]:
    """Unlearn from a base run's model with every setting and mask, on one pool of warm actors."""
    directory = load_run(path)
    config, retrained = directory.config, directory.result["metrics"]["retrained"] or {"fa": math.nan, "ra": math.nan}
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    base = read_state(path / "base.safetensors")
    pool = RayPool(config, data, scenario)
    pool.install(state.flatten(base))
    ranking: dict[str, Saved] = {}
    done: dict[RunConfig, tuple[Unlearned, MemoryRecorder]] = {}
    for setting in settings:
        for draw in range(setting.masks):
            values = config.model_dump(mode="json", by_alias=True)
            changes = [*setting.overrides, f"unlearn.draw={draw}", f"unlearn.rounds={setting.rounds}"]
            tried = RunConfig.from_dict(values, changes)
            ranker = MemoryRecorder(ranking)
            layers, _ = fused.choose_layers(Federation(tried, data, scenario, pool, ranker), base)
            ranking = {name: saved for name, saved in ranker.saved.items() if name == "rank"}
            # two rankings that choose the same layers are one experiment
            tried = RunConfig.from_dict(values, [*changes, f"unlearn.layers={layers}", "unlearn.ranking=mean"])
            key = tried.model_copy(update={"unlearn": tried.unlearn.model_copy(update={"input_layer": False})})
            if key not in done:
                recorder = MemoryRecorder()
                done[key] = fused.unlearn(Federation(tried, data, scenario, pool, recorder), base), recorder
            found, recorder = done[key]
            shared = {
                "scenario": config.forget.scenario,
                "seed": config.seed,
                "setting": setting.name,
                "mask": draw,
                "layers": " ".join(found.adapter.names),
                "values": found.adapter.size,
                "lr": tried.adapter_lr,
                "fa_retrained": retrained["fa"],
                "ra_retrained": retrained["ra"],
            }
            print(setting.name, draw, shared["layers"], found.start_metrics, found.metrics, flush=True)
            yield shared | {"round": 0, "bytes_up": 0, "seconds": 0.0, **found.start_metrics}
            for record in (record for record in recorder.records if record.phase == "unlearn"):
                seconds = record.train_seconds + record.aggregate_seconds + record.evaluate_seconds
                yield shared | {
                    "round": record.round,
                    "bytes_up": record.bytes_up,
                    "seconds": seconds,
                    **record.metrics,
                }
    pool.close()


def summarise(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Per setting: how often FA fell to 0.01 within 3 rounds, and RA against the retrained model's."""
    for (scenario, setting), group in itertools.groupby(sorted(rows, key=_key), key=_key):
        found = list(group)
        runs = {(row["seed"], row["mask"]) for row in found}
        reached = {(r["seed"], r["mask"]) for r in found if 1 <= r["round"] <= 3 and r["fa"] <= 0.01}
        parts = []
        for number in (0, 1, 3, 5):
            at = [row for row in found if row["round"] == number]
            fa, ra = (sum(row[name] for row in at) / len(at) for name in ("fa", "ra"))
            gap = sum(row["ra"] - row["ra_retrained"] for row in at) / len(at)
            parts.append(f"round {number}: FA {fa:.3f} RA {ra:.3f} ({gap:+.3f})")
        layers = "/".join(sorted({row["layers"] for row in found}))
        size = max(row["bytes_up"] for row in found)
        yield f"{scenario:9} {setting:32} [{layers}] {size} B, FA<=.01 by 3: {len(reached)}/{len(runs)}; " + "; ".join(
            parts
        )


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["scenario"], row["setting"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("class", "exclusive", "ranking", "lr"))
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with session(None):
        plans = {
            "class": (("class", range(3), class_settings),),
            "exclusive": (("exclusive", range(5), exclusive_settings),),
            "ranking": (("class", (0,), ranking_settings),),
            "lr": (("class", (100,), lr_settings), ("exclusive", (100,), lr_settings)),
        }
        for scenario, seeds, settings in plans[given.what]:
            for seed in seeds:
                path = base_run(scenario, seed, given.out, retrain=given.what != "lr")
                print(path, load_run(path).result["metrics"], flush=True)
                rows.extend(try_settings(path, settings()))
                _write(given.out / f"{given.what}.csv", rows)
    print(*summarise(rows), sep="\n")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

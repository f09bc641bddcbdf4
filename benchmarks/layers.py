"""Two experiments on which layers matter (LeNet, full Fashion-MNIST, 50 clients).

    python benchmarks/layers.py ablation [--scenarios class client] [--seeds 0 ... 9] [--bases DIR ...]
    python benchmarks/layers.py profile

`ablation`: adapters of the same number of values on the K most sensitive layers, on the last K, and on random K. It
prints RA and FA differences to random layers with a 95% confidence interval over seeds (Student's t; a seed's random
value is the mean over draws). `profile`: how sensitive each layer is after 1, 5 and 20 rounds of pre-training, IID and
Dirichlet 0.1 and 1.0, in all three readings. Both write CSV files and plots under runs/layers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from experiment import BASE, Bench, Setting, base_run, draws, read_csv, write_csv
from matplotlib.figure import Figure

from fused_ray import RunConfig
from fused_ray.config.parts.models import MODELS
from fused_ray.core import state
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.rounds import Federation
from fused_ray.data import datasets, scenarios
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import session

VALUES = 1333
"""Values of every adapter: 3% of the model's."""
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t, two-sided 95%, by number of seeds."""
READINGS = ("mean", "sum", "relative")


def selections() -> Iterator[Setting]:
    """Two layers: the most sensitive, the last, and any two (the input layer among them) five times."""
    common = ("unlearn.layers=2", f"unlearn.budget={VALUES}")
    yield Setting("critical", (*common, "unlearn.selection=critical"))
    yield Setting("last", (*common, "unlearn.selection=last"))
    yield Setting("random", (*common, "unlearn.selection=random", "unlearn.input_layer=true"), draws=5)


def ablation(scenario: str, seeds: list[int], bases: list[Path], out: Path) -> list[dict[str, Any]]:
    """A row per seed, selection and draw, after five rounds; goes on where it stopped."""
    path = out / f"ablation-{scenario}.csv"
    rows: list[dict[str, Any]] = list(read_csv(path))
    for seed in seeds:
        done = {(row["selection"], row["draw"]) for row in rows if row["seed"] == str(seed)}
        if len(done) == sum(setting.draws for setting in selections()):
            continue
        bench = Bench.load(base_run(scenario, seed, [*bases, out / "bases"], retrain=False))
        with closing(RayPool(bench.config, bench.data, bench.scenario)) as pool:
            bench.install(pool)
            for setting in selections():
                for draw, config in draws(setting, bench):
                    found, recorder = bench.unlearn(config, pool)
                    assert found.adapter is not None
                    row = {"seed": str(seed), "selection": setting.name, "draw": str(draw)}
                    row |= {"layers": " ".join(found.adapter.names), "values": found.adapter.size}
                    row |= {"bytes_up": recorder.records[-1].bytes_up, **found.metrics}
                    row |= {f"{name}_before": value for name, value in bench.before.items()}
                    rows.append(row)
                    print(scenario, *row.values(), flush=True)
        write_csv(path, rows)
    return list(read_csv(path))


def differences(rows: list[dict[str, str]], ours: str, other: str, metric: str) -> tuple[float, float, int]:
    """Mean over seeds of ours - other, the half width of its 95% interval, and the number of seeds."""

    def at(seed: str, selection: str) -> float:
        return statistics.mean(float(r[metric]) for r in rows if r["seed"] == seed and r["selection"] == selection)

    found = [at(seed, ours) - at(seed, other) for seed in dict.fromkeys(row["seed"] for row in rows)]
    half = T_95[len(found)] * statistics.stdev(found) / len(found) ** 0.5
    return statistics.mean(found), half, len(found)


def report(scenario: str, rows: list[dict[str, str]]) -> Iterator[str]:
    """Markdown: accuracies per selection, then the differences."""
    yield f"\n### {scenario}\n\n| layers | chosen | RA | FA |\n|---|---|---|---|"
    for name in ("critical", "last", "random"):
        own = [row for row in rows if row["selection"] == name]
        chosen = ", ".join(sorted({row["layers"].replace(" ", "+") for row in own}))
        ra, fa = (statistics.mean(float(row[metric]) for row in own) for metric in ("ra", "fa"))
        yield f"| {name} | {chosen} | {ra:.3f} | {fa:.3f} |"
    yield "\n| difference | RA | FA | seeds |\n|---|---|---|---|"
    for ours, other in (("critical", "random"), ("critical", "last")):
        (ra, ra_half, n), (fa, fa_half, _) = (differences(rows, ours, other, metric) for metric in ("ra", "fa"))
        yield f"| {ours} - {other} | {ra:+.3f} ± {ra_half:.3f} | {fa:+.3f} ± {fa_half:.3f} | {n} |"


def profile(out: Path, at: tuple[int, ...] = (1, 5, 20)) -> list[dict[str, Any]]:
    """A row per partition, round of pre-training and layer: the three readings."""
    rows: list[dict[str, Any]] = []
    partitions = {"iid": ["data.partition=iid"], "alpha 1.0": [], "alpha 0.1": ["data.alpha=0.1"]}
    for name, fields in partitions.items():
        config = RunConfig.from_dict({}, [*BASE, *fields, f"pretrain.rounds={max(at)}", "pretrain.history=true"])
        data = datasets.load(config.data, config.seed)
        scenario = scenarios.build(config, data)
        layers = MODELS[config.model.name].ranked
        with closing(RayPool(config, data, scenario)) as pool:
            recorder = MemoryRecorder()
            federation = Federation(config, data, scenario, pool, recorder)
            like = fedavg.initial(federation, "pretrain")
            fedavg.pretrain(federation, state.flatten(like))
            for number in at:
                model = state.unflatten(recorder.history(number), like)
                ranker = Federation(config, data, scenario, pool, MemoryRecorder())
                for item in fused.rank_layers(ranker, model, layers):
                    readings = {reading: getattr(item, reading) for reading in READINGS}
                    rows.append({"partition": name, "round": number, "layer": item.layer, **readings})
                    print(*rows[-1].values(), flush=True)
    write_csv(out / "profile.csv", rows)
    return rows


def draw_profile(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel per reading and partition: each layer's share of the largest, after every measured round."""
    partitions = list(dict.fromkeys(row["partition"] for row in rows))
    figure = Figure(figsize=(11, 7), layout="constrained")
    grid = figure.subplots(len(READINGS), len(partitions), sharex=True, sharey=True)
    for axes_row, reading in zip(grid, READINGS, strict=True):
        for axes, partition in zip(axes_row, partitions, strict=True):
            own = [row for row in rows if row["partition"] == partition]
            for number, marker in zip(dict.fromkeys(row["round"] for row in own), "osD^", strict=False):
                line = [row for row in own if row["round"] == number]
                largest = max(float(row[reading]) for row in line)
                heights = [float(row[reading]) / largest for row in line]
                axes.plot([row["layer"] for row in line], heights, marker=marker, label=f"after round {number}")
            axes.set_title(f"{partition}, {reading}", fontsize="medium")
            axes.grid(axis="y", alpha=0.3)
    grid[0][0].legend(frameon=False)
    figure.suptitle("Sensitivity of each layer, as a share of the most sensitive one's")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ablation", "profile"))
    parser.add_argument("--scenarios", nargs="+", default=["class", "client"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--bases", nargs="*", type=Path, default=[], help="folders where base runs may be")
    parser.add_argument("--out", type=Path, default=Path("runs/layers"))
    given = parser.parse_args()
    with session(None):
        if given.what == "profile":
            draw_profile(profile(given.out), given.out / "profile.png")
            return
        for scenario in given.scenarios:
            print(*report(scenario, ablation(scenario, given.seeds, given.bases, given.out)), sep="\n")


if __name__ == "__main__":
    main()

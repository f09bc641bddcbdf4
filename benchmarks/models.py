"""What deep models do: unlearning at few bytes, which layers are sensitive, and what the cached prefix is worth.

    python benchmarks/models.py runs    [--models resnet18 simplevit] [--scenarios class exclusive]
    python benchmarks/models.py layers  [--models lenet resnet18 simplevit]
    python benchmarks/models.py budget  [--models resnet18 simplevit] [--scenarios class]
    python benchmarks/models.py wire    [--models resnet18 simplevit] [--scenarios class]
    python benchmarks/models.py cache   [--pairs 5] [--examples 128]

All take `--set data.name=... data.root=... data.limit=1000` and other fields of the pre-trained base runs, `--unlearn`
for fields of every unlearning, `--rounds` of pre-training and `--unlearn-rounds`. They print Markdown, and write CSV
files and plots under --out; base runs there, or in --bases, are used again.

`runs`: three sizes of adapters beside M_r and the retrained model. `layers`: all three readings of every layer.
`budget`: one budget shared by all layers against the most sensitive K, at equal bytes. `wire`: the upload's formats.
`cache`: full rounds and unlearning rounds above the cached prefix, alternately in this process, beside the bound that
their multiply-adds give (forward 1, backward 2; a full round runs all of it, a cached one the suffix alone).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from experiment import ADAPTER, TRAINING, Bench, base_run, write_csv
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from fused_ray import RunConfig
from fused_ray.core import adapter, state
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.standard import standard
from fused_ray.core.training import AdapterStep
from fused_ray.core.work import AdapterEvaluation, ModelEvaluation, Work
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import session
from fused_ray.storage.environment import environment
from fused_ray.types import Payload

READINGS = ("mean", "sum", "relative")
BUDGETS = {"resnet18": (256_000, 26_000), "simplevit": (177_000, 26_000), "lenet": (2_800, 280)}
"""Values of a big and a small adapter: at most 0.98 MiB (ResNet-18) or 0.71 MB (SimpleViT) as float32, and 0.1 MiB."""
HEADS = {"resnet18": "fc", "simplevit": "head", "lenet": "fc3"}
WIRES = ("float32", "float16", "bfloat16", "int8")


# --- base runs and unlearning from them ------------------------------------------------------------------


def bench_of(given: argparse.Namespace, model: str, scenario: str, retrain: bool = True) -> Bench:
    """A pre-trained (and retrained) base run."""
    fields = [f"model.name={model}", "federation.clients=10", "data.limit=1000", f"pretrain.rounds={given.rounds}"]
    fields += [f"retrain.rounds={given.rounds if retrain else 0}", "unlearn.layers=1", *given.set]
    places = [place / model for place in (*given.bases, given.out / "bases")]
    return Bench.load(base_run(scenario, given.seed, places, retrain, fields))


def unlearned(given: argparse.Namespace, bench: Bench, settings: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """A row per setting: accuracies, bytes, and whether every worker's model is the base again."""
    make = LocalPool if given.backend == "local" else RayPool
    with closing(make(bench.config, bench.data, bench.scenario)) as pool:
        bench.install(pool)
        expected = state.state_hash(bench.base)
        for name, overrides in settings.items():
            started = time.perf_counter()
            config = bench.with_([f"unlearn.rounds={given.unlearn_rounds}", *overrides, *given.unlearn])
            found, recorder = bench.unlearn(config, pool)
            assert found.adapter is not None
            record = recorder.records[-1]
            yield {
                "setting": name,
                "values": found.adapter.size,
                "layers": len(found.adapter.names),
                "bytes_up": record.bytes_up,
                **{f"{key}_before": value for key, value in bench.before.items()},
                **found.metrics,
                **{f"{key}_retrained": value for key, value in (bench.retrained or {}).items()},
                "exact": all(set(hashes) == {expected} for hashes in pool.base_hashes()),
                "seconds": time.perf_counter() - started,
            }


def tables(given: argparse.Namespace, name: str, settings_of: Any) -> None:
    """Print and keep the rows of every model and scenario."""
    rows = []
    for model in given.models:
        for scenario in given.scenarios:
            bench = bench_of(given, model, scenario)
            print(f"\n### {model}, {scenario}\n\n{table_head(bench)}", flush=True)
            for row in unlearned(given, bench, settings_of(model)):
                rows.append({"model": model, "scenario": scenario, **row})
                print(table_row(bench, row), flush=True)
    write_csv(given.out / f"{name}.csv", rows)


def table_head(bench: Bench) -> str:
    names = [name.upper() for name in bench.before]
    columns = ["adapter", "values", "layers", "KiB up", *(f"{n} before / after / retrained" for n in names), "removal"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def table_row(bench: Bench, row: dict[str, Any]) -> str:
    kinds = ("{}_before", "{}", "{}_retrained")
    found = [" / ".join(f"{row[k.format(name)]:.3f}" for k in kinds if k.format(name) in row) for name in bench.before]
    exact = "exact" if row["exact"] else "NOT EXACT"
    cells = [row["setting"], row["values"], row["layers"], f"{row['bytes_up'] / 1024:.1f}", *found, exact]
    return f"| {' | '.join(map(str, cells))} |"


# --- what is compared ------------------------------------------------------------------------------------


def runs_of(model: str) -> dict[str, list[str]]:
    """A big and a small adapter, shared by all layers, and the output layer alone, set to zero at first."""
    shared = {
        f"{size} values over all layers": ["unlearn.selection=budget", f"unlearn.budget={size}"]
        for size in BUDGETS[model]
    }
    head = ["unlearn.sparsity=0", "unlearn.start=reset", f"unlearn.layers=[{HEADS[model]}]"]
    return {**shared, f"{HEADS[model]}, dense, reset": head}


def budgets_of(model: str) -> dict[str, list[str]]:
    """The small budget over all layers by two readings, and over the K most sensitive ones."""
    size = f"unlearn.budget={BUDGETS[model][1]}"
    shared = {
        f"all layers, {reading}": ["unlearn.selection=budget", size, f"unlearn.ranking={reading}"]
        for reading in ("mean", "relative")
    }
    return {**shared, **{f"top {k}, mean": [f"unlearn.layers={k}", size] for k in (1, 2, 4)}}


def wires_of(model: str) -> dict[str, list[str]]:
    """The big budget in each format."""
    common = ["unlearn.selection=budget", f"unlearn.budget={BUDGETS[model][0]}"]
    return {wire: [*common, f"unlearn.wire={wire}"] for wire in WIRES}


# --- layers ----------------------------------------------------------------------------------------------


def sensitivity(given: argparse.Namespace) -> None:
    """All readings of every layer of every model after its pre-training, as CSV, Markdown and a plot."""
    rows: list[dict[str, Any]] = []
    for model in given.models:
        bench = bench_of(given, model, "class", retrain=False)
        make = LocalPool if given.backend == "local" else RayPool
        with closing(make(bench.config, bench.data, bench.scenario)) as pool:
            federation = Federation(bench.config, bench.data, bench.scenario, pool, MemoryRecorder())
            found = fused.rank_layers(federation, bench.base, federation.anatomy.ranked)
        rows += [{"model": model, "layer": item.layer, **{r: getattr(item, r) for r in READINGS}} for item in found]
        print(f"\n### {model}\n\n| reading | most sensitive first |\n|---|---|")
        for reading in READINGS:
            ordered = sorted(found, key=lambda item: -float(getattr(item, reading)))
            print(f"| {reading} | {', '.join(item.layer for item in ordered[:8])} |", flush=True)
    write_csv(given.out / "sensitivity.csv", rows)
    draw(rows, given.out / "sensitivity.png")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel per model and reading: each layer's share of the largest, from the input to the output."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(11, 3.2 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(READINGS), squeeze=False)
    for line, model in zip(grid, names, strict=True):
        own = [row for row in rows if row["model"] == model]
        for axes, reading in zip(line, READINGS, strict=True):
            largest = max(float(row[reading]) for row in own) or 1.0
            axes.bar(range(len(own)), [float(row[reading]) / largest for row in own])
            axes.set_xticks(range(len(own)), [row["layer"] for row in own], rotation=90, fontsize=5)
            axes.set_title(f"{model}, {reading}", fontsize="medium")
    figure.suptitle("Sensitivity of each layer, as a share of the most sensitive one's")
    figure.savefig(path, dpi=130)


# --- cache -----------------------------------------------------------------------------------------------


def cached(given: argparse.Namespace) -> None:
    """Full and cached rounds alternately, for {layer4.*, fc} and {fc} of ResNet-18."""
    fields = [*TRAINING, *ADAPTER, "model.name=resnet18", f"federation.clients={given.clients}", "data.partition=iid"]
    fields += ["engine.backend=local", *given.set, f"data.limit={given.examples}", "data.min_examples=1"]
    config = RunConfig.from_dict({}, fields)
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    pool = LocalPool(config, data, scenario)
    federation = Federation(config, data, scenario, pool, MemoryRecorder())
    base = fedavg.initial(federation, "pretrain")
    payload = state.flatten(base)
    pool.install(payload)
    whole = [name for name in federation.anatomy.ranked if name.startswith("layer4.")]
    about = environment()
    print(f"{about['processor']}, {about['cores']} cores; images of {data.train_images.shape[1:]}, {given.clients} "
          f"clients, {len(data.train_labels)} images to train on in batches of {config.train.batch_size}")  # fmt: skip
    print("\n| adapted | full round, s | cached round, s | ratio | bound | share of the bound | with evaluation |")
    print("|---|---|---|---|---|---|---|")
    for name, layers in (("layer4.*, fc", [*whole, "fc"]), ("fc", ["fc"])):
        shape = adapter.random_masks(0, base, layers, 1 - given.sparsity)
        step = AdapterStep(config.adapter_lr, config.train.momentum, 0.0)
        values = Payload(np.zeros(shape.size, np.float32))
        full = fedavg.FullTraining("pretrain", 1, 0, config.train, "retained")
        cut = fused.AdapterTraining("unlearn", 1, 0, config.train, step, shape)
        both = ((full, payload, ModelEvaluation()), (cut, values, AdapterEvaluation(shape)))
        for work, start, evaluation in both:  # fills the cache and warms both up
            timed(federation, work, start, evaluation)
        found = [[timed(federation, *each) for each in both] for _ in range(given.pairs)]
        pairs = np.array(found)  # [pairs, full or cached, training or evaluation] seconds
        training = float(np.median(pairs[:, 0, 0] / pairs[:, 1, 0]))
        everything = float(np.median(pairs[:, 0].sum(1) / pairs[:, 1].sum(1)))
        limit = bound(config, federation, layers)
        seconds = [statistics.median(pairs[:, side, 0]) for side in (0, 1)]
        print(f"| {name} | {seconds[0]:.3f} | {seconds[1]:.4f} | {training:.2f} | {limit:.2f} | "
              f"{training / limit:.0%} | {everything:.2f} |", flush=True)  # fmt: skip


def timed(federation: Federation, work: Work, payload: Payload, evaluation: Any) -> tuple[float, float]:
    """Seconds of a round's training with its exact sum, and of its evaluation.

    Whatever ran before, the worker has put its base back first: in unlearning no full round comes between.
    """
    federation.pool.base_hashes()
    started = time.perf_counter()
    federation.gather(work, payload, range(len(federation.scenario.held)))
    trained = time.perf_counter()
    federation.pool.evaluate(evaluation, payload)
    return trained - started, time.perf_counter() - trained


def bound(config: RunConfig, federation: Federation, layers: list[str]) -> float:
    """Multiply-adds of a full round over those of the suffix alone, forward and backward alike three times."""
    with standard():
        space = Workspace(config, federation.data, federation.scenario)
        cut = space.cut(layers)
        x = space.images("train", np.arange(1))
        space.model.eval()
        counts = []
        for stage in space.stages:
            with FlopCounterMode(display=False) as counter:
                x = stage.forward(x)
            counts.append(counter.get_total_flops())
    return sum(counts) / sum(counts[cut:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("runs", "layers", "budget", "wire", "cache"))
    parser.add_argument("--models", nargs="+", help="default: resnet18 simplevit, and lenet for layers")
    parser.add_argument("--scenarios", nargs="+", help="default: class, and exclusive for runs")
    parser.add_argument("--set", nargs="*", default=[], help="fields of the base runs, key=value")
    parser.add_argument("--unlearn", nargs="*", default=[], help="fields of every unlearning, key=value")
    parser.add_argument("--rounds", type=int, default=8, help="of pre-training and retraining")
    parser.add_argument("--unlearn-rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("ray", "local"), default="ray")
    parser.add_argument("--bases", nargs="*", type=Path, default=[], help="folders where base runs may be")
    parser.add_argument("--out", type=Path, default=Path("runs/models"))
    parser.add_argument("--pairs", type=int, default=5, help="cache: pairs of rounds")
    parser.add_argument("--examples", type=int, default=128, help="cache: training examples")
    parser.add_argument("--clients", type=int, default=2, help="cache: clients")
    parser.add_argument("--sparsity", type=float, default=0.5, help="cache: of the masks")
    given = parser.parse_args()
    given.models = given.models or ["resnet18", "simplevit"] + ["lenet"] * (given.what == "layers")
    given.scenarios = given.scenarios or ["class"] + ["exclusive"] * (given.what == "runs")
    if given.what == "cache":
        cached(given)
        return
    if given.backend == "local":
        given.set = ["engine.backend=local", *given.set]
        run_one(given)
        return
    with session(None):
        run_one(given)


def run_one(given: argparse.Namespace) -> None:
    """One of the parts that need base runs."""
    if given.what == "layers":
        sensitivity(given)
    else:
        tables(given, given.what, {"runs": runs_of, "budget": budgets_of, "wire": wires_of}[given.what])


if __name__ == "__main__":
    main()

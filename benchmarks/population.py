"""What many clients cost beside their arithmetic: starts, rounds with few of them, and empty rounds.

    python benchmarks/population.py [--clients 10000 100000 1000000] [--partition iid] [--repeats 5]

Ten examples a client, four numbers each, and a linear model; one process. Four figures:

- Start: seconds, and the process's peak memory, until the first round could begin: data drawn, shared out among the
  clients (iid, or dirichlet with alpha .5), hashed, written to the run directory; each in a process of its own. Of the
  seconds, those that drawing the data took are told apart. And what the scenario comes to when it is pickled for
  workers.
- A round of 1,000 out of 100,000 clients: seconds without the clients' own.
- An empty round: 10,000 clients add a constant; everything is recorded. Milliseconds a client, all told.
- Sums, per second of processor time, of 11 million values (a ResNet-18), in one limb and in two: gigabytes of
  partial sums that arrive at the driver (8 or 16 bytes a value), and of updates that a worker adds (4 bytes a value).
"""

from __future__ import annotations

import argparse
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from fused_ray.api import DataSet, Section
from fused_ray.config import RunConfig
from fused_ray.core import state
from fused_ray.core.aggregate import ExactSum, scale_of
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation, Phase, RoundRecord, Saved
from fused_ray.core.standard import standard
from fused_ray.core.work import ModelEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.runs.checkpoints import Checkpoints
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.recorder import DirectoryRecorder
from fused_ray.runs.sinks import Sinks
from fused_ray.types import IntVector, Loaded, PartialSum, Payload

EACH, CLASSES, TESTS = 10, 10, 1000
PER_ROUND = 1000


def linear(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], classes))


class Drawn(Section):
    """Settings of the data."""

    examples: int = 1000


def drawn(seed: int, examples: int) -> Loaded:
    """Random examples."""
    random = np.random.default_rng(seed)
    inputs = [random.standard_normal((n, 4), np.float32) for n in (examples, TESTS)]
    labels = [random.integers(0, CLASSES, len(array)) for array in inputs]
    return Loaded(inputs[0], labels[0], inputs[1], labels[1])


DATA = DataSet(drawn, images=False, section=Drawn)


def configured(clients: int, folder: str, *fields: str) -> RunConfig:
    return RunConfig.from_dict(
        {},
        [
            *(f"federation.clients={clients}", "data.min_examples=1", "data.partition=iid", "engine.backend=local"),
            *(f"output.dir={folder}/run", "model.factory=population:linear", "forget.scenario=client"),
            *("data.name=population:DATA", f"data.args.examples={EACH * clients}"),
            *("forget.poison=false", "forget.share=0.01", *fields),
        ],
    )


@dataclass(frozen=True)
class AddConstant(FullTraining):
    """Work that computes nothing."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        return Update(Payload(payload.values + np.float32(0.001), payload.counters), 0.0)


class Timed(DirectoryRecorder):
    """Also knows the seconds that the last round's clients took for themselves."""

    own = 0.0

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        self.own = sum(report.train_seconds for report in total.reports)
        super().finish_round(record, total, predictions, saved)


@dataclass(frozen=True)
class Started:
    """A run whose first round could begin."""

    federation: Federation
    recorder: Timed
    seconds: float
    drawing: float


def start(clients: int, folder: str, *fields: str) -> Started:
    """All that a run does before its first round."""
    began = time.perf_counter()
    config = configured(clients, folder, *fields)
    data = datasets.load(config.data, config.seed)
    drawing = time.perf_counter() - began
    directory = RunDirectory.create(config.output.dir, config)
    directory.lock(0)
    scenario = scenarios.build(config, data)
    data = scenarios.extended(config, data, scenario)
    sinks, checkpoints = Sinks(lambda event: None, {}), Checkpoints(directory, ("pretrain",))
    recorder = Timed(directory, data, scenario, checkpoints=checkpoints, sinks=sinks)
    federation = Federation(config, data, scenario, LocalPool(config, data, scenario), recorder)
    return Started(federation, recorder, time.perf_counter() - began, drawing)


def seconds_of_rounds(started: Started, rounds: int) -> list[float]:
    """Seconds of rounds without those that clients took for themselves; the first round warms up."""
    federation, recorder = started.federation, started.recorder
    space = Workspace(federation.config, federation.data, federation.scenario)
    found, saved = [], Saved(round=0, payload=state.read(space.model), metrics={})
    for number in range(1, rounds + 2):
        phase = Phase(
            name="pretrain",
            rounds=number,
            clients=federation.participants("pretrain", "held"),
            work=lambda number: AddConstant("pretrain", number, 0, federation.config.train, "held"),
            evaluation=ModelEvaluation(),
        )
        began = time.perf_counter()
        saved = federation.run(phase, saved.payload)
        found.append(time.perf_counter() - began - recorder.own)
    return found[1:]


def tell_start(clients: int, partition: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = start(clients, folder, f"data.partition={partition}", "data.alpha=0.5")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        buffers: list[pickle.PickleBuffer] = []
        began = time.perf_counter()
        inside = pickle.dumps(started.federation.scenario, protocol=5, buffer_callback=buffers.append)
        both = time.perf_counter() - began
        size = len(inside) + sum(buffer.raw().nbytes for buffer in buffers)
        print(
            f"start, {clients:,} clients, {partition}: {started.seconds:.1f} s, {started.drawing:.1f} of them drawing; "
            f"{peak:.2f} GB at the most; pickled in {both:.3f} s: {len(buffers)} buffers, {size / 1e6:.0f} MB",
            flush=True,
        )


def tell_rounds(repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        few = start(100_000, folder, f"federation.participation={PER_ROUND}")
        print(f"a round of {PER_ROUND:,} of 100,000: ", said(seconds_of_rounds(few, repeats), "s"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        empty = [1000 * each / 10_000 for each in seconds_of_rounds(start(10_000, folder), repeats)]
        print("an empty round of 10,000: ", said(empty, "ms a client"), flush=True)


def tell_sums(repeats: int) -> None:
    values = np.random.default_rng(0).standard_normal(11_000_000, np.float32)
    for name, examples in (("one limb", 60_000), ("two limbs", 10**9)):
        part, whole = (ExactSum(len(values), *scale_of(examples)) for _ in range(2))
        rates: dict[str, list[float]] = {"added": [], "arriving": []}
        for _ in range(repeats + 1):
            began = time.process_time()
            part.add(values, 7)
            added = time.process_time()
            whole.merge(part.total, part.weight, part.high, part.low)
            rates["added"].append(values.nbytes / (added - began) / 1e9)
            rates["arriving"].append((part.total.nbytes + part.low.nbytes) / (time.process_time() - added) / 1e9)
        for what, found in rates.items():
            print(f"sums in {name}, {what}: ", said(found[1:], "GB/s"), flush=True)


def said(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g})"


@standard()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--partition", choices=["iid", "dirichlet"], default="iid")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--start", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        tell_start(given.start, given.partition)
        return
    for clients in given.clients:
        script = [sys.executable, str(Path(__file__).resolve()), "--partition", given.partition]
        subprocess.run([*script, "--start", str(clients)], check=True)
    tell_rounds(given.repeats)
    tell_sums(given.repeats)


if __name__ == "__main__":
    main()

"""fused_ray's side of bench.py, in a process of its own: rounds on a private Ray, recorded as those of any run.

    python benchmarks/ours_rounds.py full TASK ROUNDS               # training and evaluation
    python benchmarks/ours_rounds.py fused TASK ROUNDS              # the same, then unlearning on fc3, and by default
    python benchmarks/ours_rounds.py empty CLIENTS VALUES ROUNDS    # clients add a constant; VALUES may be a list
    python benchmarks/ours_rounds.py step TASK ROUNDS               # a client's training in this process: GFLOP/s

Prints a line of JSON a round: seconds from its beginning until it is durably recorded.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine import AddConstant
from torch.utils.flop_counter import FlopCounterMode

from fused_ray import RunConfig
from fused_ray.config import schedule
from fused_ray.core import state
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.rounds import Federation, RoundRecord, Saved
from fused_ray.core.standard import standard
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import session
from fused_ray.runs.checkpoints import Checkpoints
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.recorder import DirectoryRecorder
from fused_ray.runs.sinks import Sinks
from fused_ray.types import IntVector, PartialSum, Payload

PEAK_SIDE, PEAK_TRIES = 1024, 20
"""Of the matrix product that this core's peak is measured by."""


def tell(**line: Any) -> None:
    """One line to bench.py."""
    print(json.dumps(line), flush=True)


class Timed(DirectoryRecorder):
    """Tells of every round what it took with its recording, and how good the model is now."""

    label = ""
    labels: IntVector

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self.began = time.perf_counter()
        super().begin_round(phase, round, rounds, clients)

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        super().finish_round(record, total, predictions, saved)
        line: dict[str, Any] = {"round": record.round, "seconds": time.perf_counter() - self.began}
        if predictions is not None:
            line["accuracy"] = float(np.mean(predictions == self.labels))
        if self.label:
            once = max(record.once.values(), default=0)
            line |= {"case": self.label, "phase": record.phase, "values": saved.payload.values.size}
            line |= {"bytes_up": record.bytes_up, "bytes_down": record.bytes_down, "bytes_once": once}
        tell(**line)


def fields_of(task: str) -> list[str]:
    """The configuration behind a task, as fields."""
    fields: list[str] = json.loads((Path(task) / "task.json").read_text())["fields"]
    return fields


@contextmanager
def federation(fields: Sequence[str]) -> Iterator[Federation]:
    """Workers on a private Ray, and a run directory, until the end of the block."""
    with tempfile.TemporaryDirectory() as folder, session("local"):
        config = RunConfig.from_dict({}, [*fields, f"output.dir={folder}/run"])
        data = datasets.load(config.data, config.seed)
        directory = RunDirectory.create(config.output.dir, config)
        directory.lock(0)
        scenario = scenarios.build(config, data)
        data = scenarios.extended(config, data, scenario)
        sinks = Sinks(lambda event: None, {})
        checkpoints = Checkpoints(directory, [*schedule.rounds(config)])
        recorder = Timed(directory, data, scenario, checkpoints=checkpoints, sinks=sinks)
        recorder.labels = data.test_labels
        with closing(RayPool(config, data, scenario)) as pool:
            yield Federation(config, data, scenario, pool, recorder)
        directory.unlock()


def full(task: str, rounds: int) -> None:
    with federation([*fields_of(task), f"pretrain.rounds={rounds}"]) as found:
        fedavg.pretrain(found, state.flatten(fedavg.initial(found, "pretrain")))


def unlearned(task: str, rounds: int) -> None:
    """Training, then unlearning from its end: half of fc3, and what the defaults adapt."""
    fields = fields_of(task)
    cases = {
        "fc3": ["unlearn.selection=critical", "unlearn.layers=[fc3]", "unlearn.sparsity=0.5", "unlearn.mask=random"],
        "default": [],
    }
    for label, adapter in cases.items():
        counts = [f"pretrain.rounds={rounds}", f"unlearn.rounds={rounds}"]
        with federation([*fields, *adapter, *counts]) as found:
            assert isinstance(found.recorder, Timed)
            found.recorder.label = label
            like = fedavg.initial(found, "pretrain")
            base = state.unflatten(fedavg.pretrain(found, state.flatten(like)).payload, like)
            found.pool.install(state.flatten(base))
            adapted = fused.unlearn(found, base).adapter
            assert adapted is not None
            tell(case=label, layers=" + ".join(adapted.names), sizes=adapted.size)


def empty(clients: int, sizes: Sequence[int], rounds: int) -> None:
    """Every client adds a constant to all values; for each size as many rounds."""
    fields = [f"federation.clients={clients}", f"pretrain.rounds={rounds * len(sizes)}"]
    fields += ["data.name=fashion-mnist", "data.partition=iid", "data.min_examples=1"]
    with federation(fields) as found:
        for number in range(1, rounds * len(sizes) + 1):
            payload = Payload(np.zeros(sizes[(number - 1) // rounds], np.float32))
            work = AddConstant("pretrain", number)

            def conclude(total: PartialSum, work: AddConstant = work, payload: Payload = payload) -> Saved:
                return Saved(round=work.round, payload=found.mean(work, payload, total), metrics={})

            found.ask(work, payload, range(clients), conclude, rounds * len(sizes))


@standard()
def step(task: str, rounds: int) -> None:
    """A client's training by itself, on one thread, and what this core's matrix product does at the most."""
    config = RunConfig.from_dict({}, fields_of(task))
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    space = Workspace(config, data, scenario)
    payload = state.read(space.model)
    images = torch.zeros(config.train.batch_size, *data.shape)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(space.model(images), torch.zeros(len(images), dtype=torch.int64)).backward()
    each = counter.get_total_flops() / len(images)
    square = torch.ones(PEAK_SIDE, PEAK_SIDE)
    for number in range(1, rounds + 1):
        client = (number - 1) % config.federation.clients
        work = FullTraining("pretrain", number, config.seed, config.train, "held")
        began = time.perf_counter()
        work.update(space, payload, client)
        seconds = time.perf_counter() - began
        products = []
        for _ in range(PEAK_TRIES):
            began = time.perf_counter()
            torch.mm(square, square)
            products.append(time.perf_counter() - began)
        examples = len(scenario.held[client]) * config.train.local_epochs
        steps = -(-len(scenario.held[client]) // config.train.batch_size) * config.train.local_epochs
        tell(
            round=number,
            seconds=seconds / steps,
            gflops=each * examples / seconds / 1e9,
            peak=2 * PEAK_SIDE**3 / min(products) / 1e9,
        )


def main() -> None:
    what, first, *others = sys.argv[1:]
    if what == "empty":
        empty(int(first), [int(each) for each in others[0].split(",")], int(others[1]))
    else:
        {"full": full, "fused": unlearned, "step": step}[what](first, int(others[0]))


if __name__ == "__main__":
    main()

"""A pre-training round of fused_ray against a plain two-process PyTorch loop that does the same work.

    python benchmarks/round.py [--pairs 7]

Full Fashion-MNIST, LeNet, 50 clients, Dirichlet 1.0, batch 64, one local epoch, then evaluation on the test set. The
two are run alternately in one go; each ratio is of neighbours, so that a slow moment of the machine hits both. Actor
and process start are not counted. Then unlearning rounds on fc3, whose frozen prefix is cached from the second on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from multiprocessing.connection import Connection

import numpy as np
import torch
import torch.nn.functional as F
from experiment import BASE
from torch import nn

import fused_ray
from fused_ray import RunConfig, models
from fused_ray.core import adapter, state
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.methods.fused import AdapterTraining
from fused_ray.core.rounds import Federation, Phase, RoundRecord
from fused_ray.core.training import AdapterStep
from fused_ray.core.work import AdapterEvaluation, ModelEvaluation
from fused_ray.data import datasets, scenarios
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import session
from fused_ray.storage.environment import environment

FIELDS = [*BASE, "unlearn.layers=[fc3]"]


class PlainLeNet(nn.Module):
    """The same network as anybody would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))))


def plain_worker(pipe: Connection, clients: list[np.ndarray], test: slice) -> None:
    """One of the two processes: trains its clients on each global model it receives, then evaluates its test half."""
    torch.set_num_threads(1)
    config = RunConfig.from_dict({}, FIELDS)
    data, train = datasets.load(config.data, 0), config.train
    scale = (torch.tensor(data.mean[0]), torch.tensor(data.std[0]))
    images, test_images = (
        (torch.from_numpy(pixels.copy()).float() / 255 - scale[0]) / scale[1]
        for pixels in (data.train_images, data.test_images[test])
    )
    labels, test_labels = torch.from_numpy(data.train_labels), torch.from_numpy(data.test_labels[test])
    shares = [(images[client], labels[client]) for client in clients]
    model = PlainLeNet()
    while (received := pipe.recv()) is not None:
        kind, weights = received
        model.load_state_dict(weights)
        if kind == "evaluate":
            model.eval()
            with torch.no_grad():
                parts = zip(test_images.split(500), test_labels.split(500), strict=True)
                pipe.send(sum(int((model(x).argmax(1) == y).sum()) for x, y in parts))
            continue
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        for x, y in shares:
            model.load_state_dict(weights)
            model.train()
            optimiser = torch.optim.SGD(
                model.parameters(), lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay
            )
            order = torch.randperm(len(y), generator=torch.Generator().manual_seed(len(y)))
            for rows in order.split(train.batch_size):
                optimiser.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimiser.step()
            for name, value in model.state_dict().items():
                total[name] += value * len(y)
        pipe.send(total)


class PlainLoop:
    """Two processes and FedAvg by hand."""

    def __init__(self, held: list[np.ndarray], test_examples: int) -> None:
        # the fairest split: largest client first, each to the process with fewer examples
        halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for client in sorted(held, key=len, reverse=True):
            min(halves, key=lambda half: sum(map(len, half))).append(client)
        self.examples = sum(map(len, held))
        self.weights = PlainLeNet().state_dict()
        self.pipes = []
        context = multiprocessing.get_context("spawn")
        for index, half in enumerate(halves):
            ours, theirs = context.Pipe()
            middle = test_examples // 2
            test = slice(index * middle, (index + 1) * middle)
            context.Process(target=plain_worker, args=(theirs, half, test), daemon=True).start()
            self.pipes.append(ours)
        self._ask("evaluate")  # both are ready

    def round(self) -> float:
        """Seconds of a round: training, averaging, evaluation."""
        started = time.perf_counter()
        first, second = self._ask("train")
        self.weights = {name: (first[name] + second[name]) / self.examples for name in first}
        self._ask("evaluate")
        return time.perf_counter() - started

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)

    def _ask(self, kind: str) -> list:
        for pipe in self.pipes:
            pipe.send((kind, self.weights))
        return [pipe.recv() for pipe in self.pipes]


def seconds(record: RoundRecord) -> float:
    """All of a round."""
    return record.train_seconds + record.aggregate_seconds + record.evaluate_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")
    config = RunConfig.from_dict({}, FIELDS)
    data = datasets.load(config.data, 0)
    scenario = scenarios.build(config, data)
    with session(None):
        pool = RayPool(config, data, scenario)
        recorder = MemoryRecorder()
        federation = Federation(config, data, scenario, pool, recorder)
        payload = state.read(models.initialise("lenet", (1, 28, 28), 10, 0, "init/pretrain"))
        base = state.arrays(models.initialise("lenet", (1, 28, 28), 10, 0, "init/pretrain"))
        plain = PlainLoop(list(scenario.held), len(data.test_labels))
        pairs = []
        for number in range(1, given.pairs + 2):
            phase = Phase(
                name="pretrain",
                rounds=number,
                clients=range(50),
                work=lambda r: FullTraining("pretrain", r, 0, config.train, "held"),
                evaluation=ModelEvaluation(),
            )
            federation.run(phase, payload)
            pairs.append((seconds(recorder.records[-1]), plain.round()))
            print(f"round {number}: fused_ray {pairs[-1][0]:.2f} s, plain loop {pairs[-1][1]:.2f} s", flush=True)
        plain.close()
        pairs = pairs[1:]  # the first warms both up
        pool.install(state.flatten(base))
        masks = adapter.random_masks(0, base, ["fc3"], 0.5)
        step = AdapterStep(config.adapter_lr, config.train.momentum, 0.0)
        phase = Phase(
            name="unlearn",
            rounds=1 + given.pairs,
            clients=range(50),
            work=lambda r: AdapterTraining("unlearn", r, 0, config.train, step, masks),
            evaluation=AdapterEvaluation(masks),
        )
        federation.run(phase, state.Payload(np.zeros(masks.size, np.float32)))
        unlearning = [seconds(record) for record in recorder.records if record.phase == "unlearn"]
        pool.close()
    ours, theirs = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(a / b for a, b in pairs)
    cached = statistics.median(unlearning[1:])
    about = environment()
    versions = f"fused_ray {fused_ray.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{versions}, {about['processor']}, {about['cores']} cores")
    print(f"pre-training round: fused_ray {ours:.2f} s, plain two-process loop {theirs:.2f} s, "
          f"ratio {ratio:.2f} (median of {len(pairs)} pairs)")  # fmt: skip
    share = cached / ours
    print(f"unlearning round on fc3: first {unlearning[0]:.2f} s, then {cached:.3f} s = {share:.3f} of pre-training's")


if __name__ == "__main__":
    main()

"""The floor: two processes of plain PyTorch and FedAvg by hand, no simulator at all.

PYTHON plain_rounds.py full|suffix TASK ROUNDS         # training and evaluation; suffix: of the last layer alone
PYTHON plain_rounds.py empty CLIENTS VALUES ROUNDS     # clients add a constant, for each of the numbers of VALUES

Prints a line of JSON a round.
"""

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import common
import numpy as np
import torch
from torch import nn


class Worker:
    """Trains its clients on each model that it receives, one after the other, and adds up what they return."""

    def __init__(self, what: str, folder: str, index: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(index)
        self.task = common.task(folder)
        self.model = self.task.model()
        images, labels = self.task.test
        middle = slice(len(labels) * index // common.PROCESSES, len(labels) * (index + 1) // common.PROCESSES)
        self.test = (images[middle], labels[middle])
        self.prefix: Callable = self.model.features if what == "suffix" else lambda images: images
        self.test = self.seen(*self.test)
        if what == "suffix":
            self.model = self.model.fc3
        self.shares: dict = {}

    def seen(self, images: torch.Tensor, labels: torch.Tensor) -> tuple:
        """What is trained on: images, or what the frozen prefix makes of them, once and for all."""
        with torch.no_grad():
            return self.prefix(images), labels

    def answer(self, weights: dict, clients: list | None) -> object:
        self.model.load_state_dict(weights)
        return common.correct(self.model, *self.test) if clients is None else self._sum(weights, clients)

    def _sum(self, weights: dict, clients: list) -> dict:
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        for client in clients:
            if client not in self.shares:
                self.shares[client] = self.seen(*self.task.share(client))
            x, y = self.shares[client]
            self.model.load_state_dict(weights)
            self.task.learn(self.model, x, y)
            for name, value in self.model.state_dict().items():
                total[name] += value * len(y)
        return total


class Adder:
    """Computes nothing: every client adds a constant."""

    def __init__(self, *_: object) -> None:
        pass

    def answer(self, values: np.ndarray, clients: list) -> np.ndarray:
        total = np.zeros_like(values)
        for _ in clients:
            total += values + np.float32(0.001)
        return total


def serve(kind: type, given: tuple, pipe: Connection) -> None:
    worker = kind(*given)
    while (asked := pipe.recv()) is not None:
        pipe.send(worker.answer(*asked))


class Pair:
    """The two processes."""

    def __init__(self, kind: type, *given: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for index in range(common.PROCESSES):
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(kind, (*given, index), theirs), daemon=True).start()
            self.pipes.append(ours)

    def ask(self, payload: object, clients: list) -> list:
        for pipe, mine in zip(self.pipes, clients, strict=True):
            pipe.send((payload, mine))
        return [pipe.recv() for pipe in self.pipes]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)


def split(clients: list, sizes: np.ndarray) -> list:
    """The fairest split: largest client first, each to the process with fewer examples."""
    parts: list = [[] for _ in range(common.PROCESSES)]
    for client in sorted(clients, key=lambda client: -sizes[client]):
        min(parts, key=lambda part: sum(sizes[c] for c in part)).append(client)
    return parts


def train(what: str, folder: str, rounds: int) -> None:
    task = common.task(folder)
    sizes = task.arrays["sizes"]
    model: nn.Module = task.model()
    weights = (model.fc3 if what == "suffix" else model).state_dict()
    pair = Pair(Worker, what, folder)
    pair.ask(weights, [None] * common.PROCESSES)  # both are ready
    clock = common.Clock()
    for number in range(1, rounds + 1):
        chosen = task.chosen(number)
        parts = pair.ask(weights, split(chosen, sizes))
        examples = int(sum(sizes[client] for client in chosen))
        weights = {name: sum(part[name] for part in parts) / examples for name in weights}
        known = sum(pair.ask(weights, [None] * common.PROCESSES))
        common.tell(round=number, seconds=clock.lap(), accuracy=known / len(task.test[1]))
        clock.lap()
    pair.close()


def empty(clients: int, sizes: list, rounds: int) -> None:
    pair = Pair(Adder)
    everybody = [list(range(index, clients, common.PROCESSES)) for index in range(common.PROCESSES)]
    for number in range(1, rounds * len(sizes) + 1):
        payload = np.zeros(sizes[(number - 1) // rounds], np.float32)
        clock = common.Clock()
        first, second = pair.ask(payload, everybody)
        payload = (first + second) / np.float32(clients)
        common.tell(round=number, seconds=clock.lap())
    pair.close()


if __name__ == "__main__":
    if sys.argv[1] == "empty":
        empty(int(sys.argv[2]), [int(each) for each in sys.argv[3].split(",")], int(sys.argv[4]))
    else:
        train(sys.argv[1], sys.argv[2], int(sys.argv[3]))

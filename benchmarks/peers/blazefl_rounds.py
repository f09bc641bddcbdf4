"""BlazeFL with two processes of one thread. For an environment that has blazefl, torch and not fused_ray.

PYTHON blazefl_rounds.py full TASK ROUNDS              # training, and evaluation by the server
PYTHON blazefl_rounds.py empty CLIENTS VALUES ROUNDS   # clients add a constant, for each of the numbers of VALUES

Prints a line of JSON a round. Its pool trains what `common.Task` says, and tensors go through shared memory; threads
would need a Python without the interpreter's lock.
"""

import resource
import sys
from dataclasses import dataclass

import common
import torch
from blazefl.core import IPCMode, ProcessPoolClientTrainer, SHMHandle, deserialize_model, serialize_model


@dataclass
class Uplink:
    """What a client returns."""

    values: torch.Tensor
    examples: int


@dataclass
class Downlink:
    """What a client receives."""

    values: torch.Tensor


@dataclass
class Config:
    """Which client, of which task; without one it adds a constant."""

    folder: str
    client: int


class Trainer(ProcessPoolClientTrainer):
    def __init__(self, folder, values):
        self.folder, self.values = folder, values
        self.num_parallels, self.device, self.cache = common.PROCESSES, "cpu", []
        self.ipc_mode, self.stop_event = IPCMode.SHARED_MEMORY, NoEvent()

    def get_client_config(self, cid):
        return Config(self.folder, cid)

    def prepare_uplink_package_buffer(self):
        return Uplink(torch.zeros(self.values), 0)

    @staticmethod
    def worker(config, payload, device, stop_event, *, shm_buffer=None):
        torch.set_num_threads(1)
        values, examples = payload.values, 1
        if config.folder:
            task = common.task(config.folder)
            model = task.model()
            deserialize_model(model, values)
            images, labels = task.share(config.client)
            task.learn(model, images, labels)
            values, examples = serialize_model(model), len(labels)
        else:
            values = values + 0.001
        shm_buffer.values.copy_(values)
        return Uplink(SHMHandle(), examples)


class NoEvent:
    """Nobody stops a client; a true one would need a process of its own to be sent through."""

    def set(self):
        pass

    def clear(self):
        pass


def mean(packages):
    weight = sum(package.examples for package in packages)
    return torch.stack([package.values * (package.examples / weight) for package in packages]).sum(0)


def train(folder, rounds):
    task = common.task(folder)
    _ = task.train  # before the pool forks, so that all of its processes share it
    model = task.model()
    values = serialize_model(model)
    trainer = Trainer(folder, len(values))
    for number in range(1, rounds + 1):
        clock = common.Clock()
        trainer.cache = []
        trainer.local_process(Downlink(values), task.chosen(number))
        values = mean(trainer.cache)
        deserialize_model(model, values)
        known = common.correct(model, *task.test)
        common.tell(round=number, seconds=clock.lap(), accuracy=known / len(task.test[1]))


def empty(clients, sizes, rounds):
    for number in range(1, rounds * len(sizes) + 1):
        size = sizes[(number - 1) // rounds]
        trainer, payload = Trainer("", size), Downlink(torch.zeros(size))
        clock = common.Clock()
        trainer.local_process(payload, list(range(clients)))
        mean(trainer.cache)
        common.tell(round=number, seconds=clock.lap())


if __name__ == "__main__":
    # every client's result is a file that stays open for the round
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.argv[1] == "empty":
        empty(int(sys.argv[2]), [int(each) for each in sys.argv[3].split(",")], int(sys.argv[4]))
    else:
        train(sys.argv[2], int(sys.argv[3]))

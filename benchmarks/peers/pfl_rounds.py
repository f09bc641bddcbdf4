"""pfl-research in two processes of one thread. For an environment that has pfl, torch and not fused_ray.

PYTHON pfl_rounds.py full TASK ROUNDS               # training, and evaluation shared by the two
PYTHON pfl_rounds.py empty CLIENTS VALUES ROUNDS    # clients add a constant, for each of the numbers of VALUES

Prints a line of JSON a round. In training, pfl evaluates from the second round on.
"""

import contextlib
import os
import socket
import subprocess
import sys

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def launch() -> None:
    """Both processes, as pfl wants them: each told all addresses and its own rank."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(common.PROCESSES)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    told = {**os.environ, "PFL_WORKER_ADDRESSES": addresses}
    workers = [
        subprocess.Popen([sys.executable, *sys.argv], env={**told, "PFL_WORKER_RANK": str(rank)})
        for rank in range(common.PROCESSES)
    ]
    sys.exit(max(worker.wait() for worker in workers))


def run(model, make, sizes, per_round, rounds, settings, callbacks, algorithm=None):
    """FedAvg over the clients, weighted by their examples; in each round `per_round` of them."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams

    users = list(range(len(sizes)))
    sampler = get_user_sampler("minimize_reuse", users)
    data = FederatedDataset(make, sampler, user_id_to_weight=dict(zip(users, map(int, sizes), strict=True)))
    backend = SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()])
    (algorithm or FederatedAveraging)().run(
        backend=backend,
        model=model,
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=10**9,
            train_cohort_size=per_round,
            val_cohort_size=None,
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=settings["local_epochs"],
            local_learning_rate=settings["lr"],
            local_batch_size=settings["batch_size"],
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=common.EVALUATED),
        callbacks=callbacks,
        send_metrics_to_platform=False,
    )


def timed():
    """A callback that tells what a round took; it stands behind the one that evaluates."""
    from pfl.callback.base import TrainingProcessCallback
    from pfl.internal.ops.selector import get_framework_module
    from pfl.metrics import Metrics

    class Timed(TrainingProcessCallback):
        accuracy, before = None, 0

        def on_train_begin(self, *, model):
            self.clock = common.Clock()
            return Metrics()

        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            if get_framework_module().distributed.global_rank == 0:
                known = {} if self.accuracy is None else {"accuracy": self.accuracy}
                common.tell(round=self.before + central_iteration + 1, seconds=self.clock.lap(), **known)
            return False, Metrics()

    return Timed()


def evaluated(dataset, clock):
    """pfl's evaluation of the test set, that leaves its result with the clock."""
    from pfl.callback.central_evaluation import CentralEvaluationCallback
    from pfl.hyperparam import NNEvalHyperParams

    class Evaluated(CentralEvaluationCallback):
        def _eval(self, model):
            stop, metrics = super()._eval(model)
            named = {str(name): value for name, value in metrics.to_simple_dict().items()}
            clock.accuracy = next(value for name, value in named.items() if "accuracy" in name)
            return stop, metrics

    return Evaluated(dataset, NNEvalHyperParams(local_batch_size=common.EVALUATED), frequency=1)


def wrapped(net: nn.Module) -> nn.Module:
    """The network with the two methods that pfl asks for."""
    from pfl.metrics import Weighted

    def loss(images, labels):
        net.train()
        return F.cross_entropy(net(images), labels)

    def metrics(images, labels):
        net.eval()
        with torch.no_grad():
            known = (net(images).argmax(1) == labels).sum().item()
        return {"accuracy": Weighted(known, len(labels))}

    net.loss, net.metrics = loss, metrics
    return net


def train(folder: str, rounds: int) -> None:
    from pfl.data.dataset import Dataset
    from pfl.model.pytorch import PyTorchModel

    class Shuffled(Dataset):
        """A client's examples, in a new order every epoch; pfl by itself keeps them in one."""

        def iter(self, batch_size):
            images, labels = self.raw_data
            for rows in torch.randperm(len(labels)).split(batch_size):
                yield images[rows], labels[rows]

    task = common.task(folder)
    shares = {}

    def make(client):
        if client not in shares:
            shares[client] = Shuffled(raw_data=task.share(client), user_id=client)
        return shares[client]

    net = wrapped(task.model())
    central = torch.optim.SGD(net.parameters(), lr=1.0)
    model = PyTorchModel(net, lambda parameters, lr: task.optimiser(parameters, lr), central)
    clock = timed()
    callbacks = [evaluated(Dataset(raw_data=task.test), clock), clock]
    run(model, make, task.arrays["sizes"], task.per_round, rounds, task.settings, callbacks)


def empty(clients: int, sizes: list, rounds: int) -> None:
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    class AddConstant(FederatedAveraging):
        def train_one_user(self, initial_model_state, model, user_dataset, central_context):
            with torch.no_grad():
                for value in model.variable_map.values():
                    value += 0.001
            return model.get_model_difference(initial_model_state), Metrics()

    one = Dataset(raw_data=(np.zeros((1, 1), np.float32),))
    settings = {"local_epochs": 1, "lr": 0.1, "batch_size": 1}
    clock = timed()
    for values in sizes:
        net = nn.Module()
        net.values = nn.Parameter(torch.zeros(values))
        net.metrics = net.loss = lambda *_: {"nothing": Weighted(0, 1)}  # it evaluates its first round
        model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
        run(model, lambda client: one, [1] * clients, clients, rounds, settings, [clock], AddConstant)
        clock.before += rounds


if __name__ == "__main__":
    if "PFL_WORKER_RANK" not in os.environ:
        launch()
    torch.set_num_threads(1)
    torch.manual_seed(int(os.environ["PFL_WORKER_RANK"]))
    if sys.argv[1] == "empty":
        empty(int(sys.argv[2]), [int(each) for each in sys.argv[3].split(",")], int(sys.argv[4]))
    else:
        train(sys.argv[2], int(sys.argv[3]))

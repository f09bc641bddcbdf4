"""Flower's simulation, one thread a client. For an environment that has flwr[simulation], torch and not fused_ray.

PYTHON flower_rounds.py full TASK ROUNDS               # training, and evaluation by the server
PYTHON flower_rounds.py empty CLIENTS VALUES ROUNDS    # clients add a constant, for each of the numbers of VALUES

The first round of clients that add a constant has 2 of them.

Prints a line of JSON a round.
"""

import logging
import sys
from itertools import islice

import common
import numpy as np
import torch
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

FIRST = 2
"""Clients of an empty first round, which only warms up."""


class AddConstant(NumPyClient):
    def fit(self, parameters, config):
        return [parameters[0] + np.float32(0.001)], 100, {}


class Learner(NumPyClient):
    def __init__(self, folder, client):
        torch.set_num_threads(1)
        self.task, self.client = common.task(folder), client

    def fit(self, parameters, config):
        model = self.task.model()
        names = list(model.state_dict())
        model.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in zip(names, parameters, strict=True)})
        images, labels = self.task.share(self.client)
        self.task.learn(model, images, labels)
        return [value.numpy() for value in model.state_dict().values()], len(labels), {}


class Timed(FedAvg):
    """FedAvg that tells how long its rounds take, from choosing the clients to the evaluated mean."""

    def __init__(self, first, payload, **given):
        super().__init__(**given)
        self.first, self.payload = first, payload

    def configure_fit(self, server_round, parameters, client_manager):
        parameters = self.payload(server_round, parameters)
        self.clock = common.Clock()
        asked = super().configure_fit(server_round, parameters, client_manager)
        if self.first and server_round == 1:
            asked = list(islice(asked, self.first))
        self.asked = len(asked)
        return asked

    def aggregate_fit(self, server_round, results, failures):
        assert (len(results), len(failures)) == (self.asked, 0), failures[:1]
        return super().aggregate_fit(server_round, results, failures)

    def evaluate(self, server_round, parameters):
        found = super().evaluate(server_round, parameters)
        if server_round:
            known = {"accuracy": found[1]["accuracy"]} if found else {}
            common.tell(round=server_round, seconds=self.clock.lap(), **known)
        return found


def simulate(client, clients, rounds, start, first=0, payload=lambda number, before: before, share=1.0, evaluate=None):
    def server(context):
        strategy = Timed(
            first,
            payload,
            fraction_fit=share,
            fraction_evaluate=0.0,
            min_available_clients=clients,
            initial_parameters=start,
            evaluate_fn=evaluate,
        )
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(
        server_app=ServerApp(server_fn=server),
        client_app=ClientApp(client_fn=client),
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


def empty(clients, sizes, rounds):
    def zeros(number, before=None):
        return ndarrays_to_parameters([np.zeros(sizes[(number - 1) // rounds], np.float32)])

    simulate(lambda context: AddConstant().to_client(), clients, rounds * len(sizes), zeros(1), FIRST, zeros)


def train(folder, rounds):
    task = common.task(folder)
    model = task.model()
    names = list(model.state_dict())

    def evaluate(server_round, parameters, config):
        if not server_round:
            return None
        model.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in zip(names, parameters, strict=True)})
        known = common.correct(model, *task.test)
        return 0.0, {"accuracy": known / len(task.test[1])}

    def client(context):
        return Learner(folder, int(context.node_config["partition-id"])).to_client()

    start = ndarrays_to_parameters([task.weights[name].numpy() for name in names])
    share = task.per_round / task.clients
    simulate(client, task.clients, rounds, start, share=share, evaluate=evaluate)


if __name__ == "__main__":
    if sys.argv[1] == "empty":
        empty(int(sys.argv[2]), [int(each) for each in sys.argv[3].split(",")], int(sys.argv[4]))
    else:
        train(sys.argv[2], int(sys.argv[3]))

"""Empty rounds of Flower: clients add a constant. For an environment that has flwr[simulation] and not fused_ray.

PYTHON benchmarks/peers/flower_rounds.py CLIENTS VALUES ROUNDS    # prints a line of JSON: seconds of each round
"""

import json
import logging
import sys
import time
from itertools import pairwise

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

CLIENTS, VALUES, ROUNDS = map(int, sys.argv[1:4])
ended = []


class AddConstant(NumPyClient):
    def fit(self, parameters, config):
        return [parameters[0] + np.float32(0.001)], 100, {}


class Timed(FedAvg):
    def aggregate_fit(self, server_round, results, failures):
        assert (len(results), len(failures)) == (CLIENTS, 0)
        mean = super().aggregate_fit(server_round, results, failures)
        ended.append(time.perf_counter())
        return mean


def server(context):
    from flwr.common import ndarrays_to_parameters

    start = ndarrays_to_parameters([np.zeros(VALUES, np.float32)])
    strategy = Timed(fraction_fit=1.0, fraction_evaluate=0.0, min_available_clients=CLIENTS, initial_parameters=start)
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))


logging.getLogger("flwr").setLevel(logging.ERROR)
run_simulation(
    server_app=ServerApp(server_fn=server),
    client_app=ClientApp(client_fn=lambda context: AddConstant().to_client()),
    num_supernodes=CLIENTS,
    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
)
print(json.dumps([later - earlier for earlier, later in pairwise(ended)]))

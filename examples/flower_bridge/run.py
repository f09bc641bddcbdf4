"""FUSED's rounds of a finished run once more, on Flower's simulation, and whether the adapter has the same bits.

PYTHONPATH=FUSED_RAY python run.py RUN
"""

from __future__ import annotations

import logging
import sys

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from fused_on_flower import Fused, app, record, start_of, task_of, values_of

from fused_ray import load_run


def main(run: str) -> None:
    task, server = task_of(run), ServerApp()
    results = []

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy, rounds = Fused(run), task.phase.rounds
        results.append(strategy.start(grid, record(start_of(task)), rounds, evaluate_fn=strategy.evaluate))

    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=len(task.federation.scenario.held),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    (result,) = results
    for number, metrics in sorted(result.evaluate_metrics_serverapp.items()):
        print(f"round {number}: RA {metrics['ra']:.4f}, FA {metrics['fa']:.4f}")
    ours = load_run(run).adapter
    same = ours is not None and values_of(result.arrays).tobytes() == ours.values.tobytes()
    print(
        f"the adapter has {'the same' if same else 'OTHER'} bits as the run's: {len(values_of(result.arrays))} values"
    )
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.WARNING)
    main(sys.argv[1])

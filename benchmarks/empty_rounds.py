"""Empty rounds beside Flower's: 50 clients add a constant to a LeNet's values, and everything is recorded.

    python3 -m venv flower && flower/bin/pip install "flwr[simulation]"
    python benchmarks/empty_rounds.py --flower flower/bin/python [--repeats 5]

Flower has an environment of its own, for it needs another Ray. Both run on a Ray of this machine, alternately: each
repeat is four rounds of either, of which the first is left out and the middle one counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

from engine import AddConstant, said

from fused_ray import RunConfig, models
from fused_ray.core import state
from fused_ray.core.rounds import Federation, Saved
from fused_ray.data import datasets, scenarios
from fused_ray.engine.pool import RayPool
from fused_ray.engine.session import session
from fused_ray.runs.checkpoints import Checkpoints
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.recorder import DirectoryRecorder
from fused_ray.runs.sinks import Sinks
from fused_ray.types import PartialSum

CLIENTS, ROUNDS = 50, 4
PEER = Path(__file__).parent / "peers" / "flower_rounds.py"


def ours(folder: str) -> float:
    """Seconds of a round."""
    fields = [f"federation.clients={CLIENTS}", f"output.dir={folder}/run", f"pretrain.rounds={ROUNDS}"]
    config = RunConfig.from_dict({}, fields)
    data = datasets.load(config.data, 0)
    scenario = scenarios.build(config, data)
    payload = state.read(models.initialise("lenet", data.shape, data.classes, 0, "init/pretrain"))
    directory = RunDirectory.create(config.output.dir, config)
    directory.lock(0)
    checkpoints = Checkpoints(directory, ["pretrain"])
    recorder = DirectoryRecorder(
        directory, data, scenario, checkpoints=checkpoints, sinks=Sinks(lambda event: None, {})
    )
    seconds = []
    with closing(RayPool(config, data, scenario)) as pool:
        federation = Federation(config, data, scenario, pool, recorder)
        for number in range(1, ROUNDS + 1):
            work = AddConstant("pretrain", number)

            def conclude(total: PartialSum, work: AddConstant = work, number: int = number) -> Saved:
                return Saved(round=number, payload=federation.mean(work, payload, total), metrics={})

            began = time.perf_counter()
            federation.ask(work, payload, range(CLIENTS), conclude, ROUNDS)
            seconds.append(time.perf_counter() - began)
    directory.unlock()
    return statistics.median(seconds[1:])


def flowers(python: str, values: int) -> float:
    """The same of Flower."""
    arguments = [python, str(PEER), str(CLIENTS), str(values), str(ROUNDS)]
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": ""}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, cwd=PEER.parent)
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower", required=True, help="Python of an environment that has flwr[simulation]")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    values = state.read(models.initialise("lenet", (1, 28, 28), 10, 0, "init/pretrain")).values.size
    pairs = []
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as folder, session("local"):
            mine = ours(folder)
        pairs.append((mine, flowers(given.flower, values)))
        print(f"fused_ray {mine:.3f} s, Flower {pairs[-1][1]:.3f} s", flush=True)
    print(f"an empty round of {CLIENTS} clients, fused_ray:", said([a for a, _ in pairs]))
    print("  Flower:                                ", said([b for _, b in pairs]))
    print("  ratio:                                 ", said([a / b for a, b in pairs], "times"))


if __name__ == "__main__":
    main()

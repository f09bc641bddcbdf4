"""What the engine itself costs: who starts next, waiting for hundreds of actors, and the sums of a large model.

    python benchmarks/engine.py [--repeats 5]

Three figures, each the median of its repeats with the least and the most:

- Dispatch: the pure bookkeeping of a round of 1,000 actors on 50 nodes with room for 20 calls each, in four calls each
  that end in a random order.
- Waiting: a round of 400 actors in four calls each, against a bare loop of ray.wait over the same calls, alternately.
  An actor is a handle here, and a call sleeps for a tenth of a second: four processes serve all of them.
- Sums: a round of a ResNet-18 (44.7 MB) with 16 clients in two actors, four calls each, against one call each,
  alternately. The clients' work adds a constant, so that nearly all of it is moving and adding.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ray

from fused_ray import RunConfig, models
from fused_ray.config import EngineConfig
from fused_ray.core import state
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.rounds import Federation
from fused_ray.core.work import Update
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.engine import pool
from fused_ray.engine.calls import Calls, Request
from fused_ray.engine.crew import Crew
from fused_ray.engine.dispatch import Call, Dispatch
from fused_ray.engine.session import session
from fused_ray.types import Identity, IntVector, Payload, Scenario

CALLS = 4
SLEEP = 0.1


def dispatched(actors: int, nodes: int, room: int) -> float:
    """Seconds of bookkeeping of a round."""
    order = random.Random(0)
    calls = [Call(slot, (slot,)) for slot in range(actors) for _ in range(CALLS)]
    started = time.perf_counter()
    rooms = {f"node{node}": room for node in range(nodes)}
    dispatch = Dispatch(calls, lambda slot: f"node{slot % nodes}", rooms, lambda item: 1.0 + item % 7)
    running = [*dispatch.start()]
    ended = 0
    while running:
        at = order.randrange(len(running))
        running[at], running[-1] = running[-1], running[at]
        dispatch.end(running.pop())
        ended += 1
        running += dispatch.start()
    assert ended == len(calls)
    return time.perf_counter() - started


@ray.remote(num_cpus=0, max_concurrency=1000)
class Sleeper:
    """As many actors as one likes in one process."""

    async def identity(self) -> Identity:
        return Identity(ray.get_runtime_context().get_node_id(), 0, "", "", "cpu")

    async def train(self) -> None:
        await asyncio.sleep(SLEEP)


def waited(actors: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds beyond the sleep of rounds by the engine, and by a bare loop."""
    processes = [Sleeper.remote() for _ in range(4)]
    crew = Crew(actors, lambda slot, anywhere: processes[slot % len(processes)], 1)
    while len(crew.ready) < actors:
        crew.join(0.5)
    room = {crew.identity(0).node: actors}
    request = Request("train", lambda call, last: (), "a round")

    def engine() -> None:
        calls = [Call(slot, (slot,)) for slot in range(actors) for _ in range(CALLS)]
        answers = Calls(crew, room, EngineConfig(), set(), lambda: None).answers(calls, request)
        assert sum(1 for _ in answers) == len(calls)

    def bare() -> None:
        left = dict.fromkeys(range(actors), CALLS - 1)
        running = {crew[slot].train.remote(): slot for slot in range(actors)}
        while running:
            ready, _ = ray.wait([*running], timeout=0.5)
            more, _ = ray.wait([*running], num_returns=len(running), timeout=0)
            for ref in {*ready, *more}:
                ray.get(ref)
                slot = running.pop(ref)
                if left[slot]:
                    left[slot] -= 1
                    running[crew[slot].train.remote()] = slot

    pairs = alternately(engine, bare, repeats)
    crew.close()
    return [a - CALLS * SLEEP for a, _ in pairs], [b - CALLS * SLEEP for _, b in pairs]


@dataclass(frozen=True)
class AddConstant:
    """Work that computes nothing."""

    phase: str
    round: int

    def indices(self, scenario: Scenario, client: int) -> IntVector:
        return scenario.held[client]

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        return Update(Payload(payload.values + 0.001, payload.counters), 0.0)

    def upload_bytes(self, payload: Payload) -> int:
        return payload.values.nbytes

    def download_bytes(self, payload: Payload) -> int:
        return payload.values.nbytes


def summed(repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of rounds in the engine's calls, and in one call an actor."""
    fields = ["model.name=resnet18", "data.limit=640", "federation.clients=16", "federation.clients_per_actor=8"]
    config = RunConfig.from_dict({}, fields)
    data = datasets.load(config.data, 0)
    scenario = scenarios.build(config, data)
    payload = state.read(models.initialise("resnet18", data.shape, data.classes, 0, "init/pretrain"))
    usual, number = pool._CALLS, iter(range(1, 1000))
    with closing(pool.RayPool(config, data, scenario)) as workers:
        federation = Federation(config, data, scenario, workers, MemoryRecorder())

        def round(calls: int) -> Callable[[], None]:
            def go() -> None:
                pool._CALLS = calls
                federation.gather(AddConstant("pretrain", next(number)), payload, range(16))

            return go

        pairs = alternately(round(usual), round(1), repeats)
    pool._CALLS = usual
    return [a for a, _ in pairs], [b for _, b in pairs]


def alternately(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> list[tuple[float, float]]:
    """Seconds of both, side by side; the first pair warms up and is left out."""
    pairs = []
    for _ in range(repeats + 1):
        times = []
        for work in (one, other):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        pairs.append((times[0], times[1]))
    return pairs[1:]


def said(values: list[float], unit: str = "s", factor: float = 1.0) -> str:
    middle, least, most = (pick(values) * factor for pick in (statistics.median, min, max))
    return f"{middle:.3g} {unit} ({least:.3g} to {most:.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    times = [dispatched(1000, 50, 20) for _ in range(repeats + 1)][1:]
    print("dispatch, 1,000 actors on 50 nodes: ", said(times, "ms a round", 1000))
    with session(None):
        ours, bare = waited(400, repeats)
        print("waiting, 400 actors:                ", said(ours, "s a round beyond their sleep"))
        print("  a bare loop of ray.wait:          ", said(bare))
        print("  the engine's own:                 ", said([a - b for a, b in zip(ours, bare, strict=True)]))
        parts, whole = summed(repeats)
        print("sums, 44.7 MB, 16 clients, 2 actors:", said(parts, "s a round"))
        print("  in one call each:                 ", said(whole))
        print("  ratio:                            ", said([a / b for a, b in zip(parts, whole, strict=True)], "times"))


if __name__ == "__main__":
    main()

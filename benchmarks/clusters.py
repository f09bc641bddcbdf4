"""Thirteen clusters: where a run's actors go by arithmetic, and where they really went.

    python benchmarks/clusters.py [docs/clusters.md]     # the table, or the page with it renewed
    python benchmarks/clusters.py --only NAME            # make that cluster here, and tell what ran

A cluster is made of several Ray nodes on this machine, which believe what they are told of cores, memory and GPUs.
Where they have GPUs, which are not there, empty actors take the places of the clients' actors: Ray grants them the
same shares, and nothing is computed. Else it is a run, from pre-training to the retrained model, as its result.json
tells it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fused_ray import FusedRayError, RunConfig, run
from fused_ray.engine.cluster import free_nodes
from fused_ray.engine.cluster_text import nodes_of
from fused_ray.engine.placement import Seat, plan

SMALL = ["data.name=fashion-mnist-mini", "data.limit=1000", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1"]
SMALL += ["data.min_examples=1", "audit.enabled=false", "output.plots=none"]
STORE = 100_000_000
"""Object store memory of a node, bytes."""
NUMBER = "number"
"""The label that tells which node is which."""
BEGIN, END = "<!-- clusters: begin -->", "<!-- clusters: end -->"


@dataclass(frozen=True)
class Case:
    """A cluster in words, what is wanted of it, and how much of it can be had here."""

    nodes: str
    clients: int
    fields: tuple[str, ...] = ()
    how: str = "run"
    """run, seats (empty actors) or arithmetic."""

    @property
    def config(self) -> RunConfig:
        return RunConfig.from_dict({}, [*SMALL, f"federation.clients={self.clients}", *self.fields])


PACKED = ("federation.clients_per_actor=1",)
CASES = {
    "one machine": Case("2c", 12),
    "uneven nodes": Case("1c, 2c", 12),
    "fractions of cores, from the node itself": Case("1c, 3c", 8, PACKED, "seats"),
    "a node with a GPU among ten of cores": Case("8c/1g, 10x64c", 700, (), "arithmetic"),
    "GPUs that are worth more than the other node's cores": Case("8c/4g, 32c", 50, (), "seats"),
    "a quarter of a GPU each, and fewer cores than actors": Case("1c/2g", 8, ("federation.actor_gpus=0.25",), "seats"),
    "GPUs with few and with many cores": Case("1c/1g, 8c/2g", 9, PACKED, "seats"),
    "a head without cores": Case("0c, 2c", 6),
    "labels": Case("2c, 1c/zone=a, 1c/zone=b", 6, ('federation.actor_labels={zone: "in(a, b)"}',)),
    "little memory on one node": Case("2c/500MB, 2c", 6),
    "what others hold is left to them": Case("2c/-1c, 1c", 6),
    "a share that would span two GPUs": Case("8c/2g", 5, (*PACKED, "federation.actor_gpus=0.4")),
    "labels that no node has": Case("2c/zone=a", 6, ("federation.actor_labels={zone: b}",)),
}


def planned(case: Case) -> str:
    """Where the actors go by arithmetic, or why they cannot."""
    try:
        return told(plan(case.config.federation, [1] * case.clients, nodes_of(case.nodes)).seats)
    except FusedRayError as error:
        return f"refused: {error}"


def told(seats: Iterable[Seat]) -> str:
    """Alike nodes together: 2 x (1 CPU + 0.5 GPU) on node 1, 3."""
    alike: dict[str, list[int]] = defaultdict(list)
    for seat, count in Counter(seats).items():
        gpus = f" + {seat.gpus:g} GPU" if seat.gpus else ""
        alike[f"{count} x ({seat.cpus:g} CPU{gpus})"].append(int(seat.node.removeprefix("node ")))
    ordered = sorted((sorted(numbers), actors) for actors, numbers in alike.items())
    return "; ".join(f"{actors} on node {', '.join(map(str, numbers))}" for numbers, actors in ordered)


# -- what really runs


def made(case: Case) -> str:
    """What ran on such a cluster of Ray nodes on this machine, in the words of `planned`."""
    cluster = Cluster()
    try:
        for number, node in enumerate(nodes_of(case.nodes), 1):
            cluster.add_node(
                num_cpus=node.cpus + node.others_cpus,
                num_gpus=node.gpus + node.others_gpus,
                memory=int(node.memory),
                labels={NUMBER: str(number), **node.labels},
                object_store_memory=STORE,
                include_dashboard=False,
                include_log_monitor=False,
            )
        ray.init(address=cluster.address, log_to_driver=False)
        others = _others(case)  # noqa: F841  they hold what they hold as long as this does
        return _ran(case) if case.how == "run" else _seated(case)
    finally:
        ray.shutdown()
        cluster.shutdown()


def _others(case: Case) -> list[Any]:
    """Actors of somebody else, which hold what the words say, and are seen to."""

    @ray.remote
    class Other:
        def there(self) -> bool:
            return True

    nodes = nodes_of(case.nodes)
    others = [
        Other.options(
            num_cpus=node.others_cpus, num_gpus=node.others_gpus, label_selector={NUMBER: str(number)}
        ).remote()
        for number, node in enumerate(nodes, 1)
        if node.others_cpus or node.others_gpus
    ]
    ray.get([other.there.remote() for other in others])
    deadline = time.monotonic() + 30
    while sum(n.cpus for n in free_nodes()) != sum(n.cpus for n in nodes) and time.monotonic() < deadline:
        time.sleep(0.2)
    return others


def _ran(case: Case) -> str:
    with tempfile.TemporaryDirectory() as folder:
        config = case.config.model_copy(
            update={"output": case.config.output.model_copy(update={"dir": f"{folder}/run"})}
        )
        try:
            result = run(config)
        except FusedRayError as error:
            return f"refused: {error}"
    name = _names()
    return told(
        Seat(name[worker["node"]], worker["cpus"], worker["gpus"])
        for worker in result["placement"]["workers"]
        for _ in range(worker["actors"])
    )


def _seated(case: Case) -> str:
    """Empty actors in the seats of a plan for the cluster that is there."""

    @ray.remote
    class Empty:
        def where(self) -> Seat:
            here = ray.get_runtime_context()
            held = here.get_assigned_resources()
            return Seat(here.get_node_id(), held.get("CPU", 0.0), held.get("GPU", 0.0))

    seats = plan(case.config.federation, [1] * case.clients, free_nodes()).seats
    actors = [
        Empty.options(
            num_cpus=seat.cpus,
            num_gpus=seat.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(seat.node, soft=False),
        ).remote()
        for seat in seats
    ]
    name = _names()
    found = ray.get([actor.where.remote() for actor in actors], timeout=120)
    return told(Seat(name[seat.node], seat.cpus, seat.gpus) for seat in found)


def _names() -> dict[str, str]:
    return {node["NodeID"]: f"node {node['Labels'][NUMBER]}" for node in ray.nodes()}


# -- the page


def table(ran: dict[str, str]) -> list[str]:
    """Rows of Markdown; `ran` has what ran of those that can be made here."""
    lines = ["| cluster | nodes | clients, fields | plan | what ran |", "|---|---|---|---|---|"]
    for name, case in CASES.items():
        wanted = ", ".join([str(case.clients), *(f"`{field}`" for field in case.fields)])
        lines.append(f"| {name} | `{case.nodes}` | {wanted} | {planned(case)} | {ran[name]} |")
    return lines


def row_of(name: str, outcome: str) -> str:
    """What the table says of what ran."""
    how = {"run": "a run", "seats": "empty actors"}[CASES[name].how]
    return f"{how}: the same" if outcome == planned(CASES[name]) else f"{how}: {outcome}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, help="a Markdown file with the table, to be renewed")
    parser.add_argument("--only", choices=CASES, metavar="NAME", help="one cluster")
    given = parser.parse_args()
    if given.only:
        print(made(CASES[given.only]))
        return
    ran = {}
    for name, case in CASES.items():
        ran[name] = "arithmetic only"
        if case.how != "arithmetic":
            command = [sys.executable, __file__, "--only", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            ran[name] = row_of(name, done.stdout.strip().splitlines()[-1])
    text = "\n".join(table(ran))
    if given.page is None:
        print(text)
        return
    before, _, rest = given.page.read_text(encoding="utf-8").partition(BEGIN)
    given.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()

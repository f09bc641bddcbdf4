"""Where the seconds of a round went, from what its run recorded of it.

A round lasts from its start to the start of the next one, by the driver's clock. Of that the run knows the driver's
adding and averaging, the evaluation, and the wall seconds of training; of every client, when it began on which worker
and how long it trained and was added there. Split over what an average actor did:

- train: computed its clients;
- idle: was done with them, before the last actor was;
- aggregate: checked and added their updates, and the driver's adding up and averaging;
- transfer: what is left until all sums were there: the payload to the actors, calls, and the sums back;
- evaluate, and record: what is left until the next round: rows and checkpoint written.

The six sum up to the round. Nodes' clocks are taken to agree: where they do not, it shows between transfer and idle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from fused_ray.config import RunConfig
from fused_ray.errors import RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.studies.scaling.grid import Point

PARTS = ("train", "transfer", "aggregate", "evaluate", "idle", "record")
"""What the seconds of a round go to."""
Row = Mapping[str, Any]


def measured(run: RunDirectory, point: Point, phase: str, warmup: int, examples: int) -> list[dict[str, Any]]:
    """A row for each round of a finished run that counts.

    Raises RunDirectoryError where the run was not what its point says (other actors, nodes or examples), or where no
    round counts.
    """
    rounds = sorted((row for row in run.rounds.to_pylist() if row["phase"] == phase), key=lambda row: row["round"])
    by_round = defaultdict(list)
    for client in run.clients.to_pylist():
        if client["phase"] == phase:
            by_round[client["round"]].append(client)
    found = []
    held = run.read_json("scenario.json")["examples"]
    for row, after in pairwise(rounds):
        if row["round"] > warmup:
            clients = by_round[row["round"]]
            if (wrong := next(_otherwise(point, clients, held, examples), None)) is not None:
                raise RunDirectoryError(f"{run.path}: {wrong}")
            wall = (after["started_at"] - row["started_at"]).total_seconds()
            found.append(figures(run.config, row, clients, wall))
    if not found:
        raise RunDirectoryError(
            f"{run.path}: of its {len(rounds)} round(s) of {phase} none counts after {warmup} to warm up, with one "
            "more to end it; ask for more"
        )
    return found


def figures(config: RunConfig, row: Row, clients: Sequence[Row], wall: float) -> dict[str, Any]:
    """What is told of a round of so many wall seconds, by its row and its clients' rows."""
    steps = [config.train.steps(client["examples"]) for client in clients]
    workers, nodes = len(_workers(clients)), len({client["node"] for client in clients})
    local = {client["node"] for client in clients} == {"local"}
    return {
        "round": row["round"],
        "seconds": wall,
        **split(row, clients, wall),
        "busy": max(map(_busy, _workers(clients).values())),
        "steps": fmean(steps),
        "step_seconds": sum(client["train_seconds"] for client in clients) / sum(steps),
        "add_seconds": fmean(client["aggregate_seconds"] for client in clients),
        "payload_bytes": row["bytes_down_client"],
        # a copy of the payload for each node, and from each actor a sum of 8 bytes for 4 of the payload
        "cluster_bytes": 0 if local else row["bytes_down_client"] * (nodes + 2 * workers),
        "memory_worker": max(client["memory"] for client in clients),
        "memory_driver": row["memory"],
        "device": max({client["device"] for client in clients}),  # cuda, where there is any
    }


def split(row: Row, clients: Sequence[Row], wall: float) -> dict[str, float]:
    """Seconds by what they went to, PARTS; their sum is `wall`, up to rounding."""
    ends, trained, added = [], [], []
    for own in _workers(clients).values():
        last = max(own, key=lambda client: client["started_at"])
        ends.append(last["started_at"].timestamp() + last["train_seconds"] + last["aggregate_seconds"])
        trained.append(sum(client["train_seconds"] for client in own))
        added.append(sum(client["aggregate_seconds"] for client in own))
    train, adding, idle = fmean(trained), fmean(added), fmean(max(ends) - end for end in ends)
    left = row["train_seconds"] - train - adding - idle
    # what the driver added while actors were still at work is in their seconds already
    hidden = max(0.0, min(-left, row["aggregate_seconds"]))
    known = row["train_seconds"] + row["aggregate_seconds"] + row["evaluate_seconds"]
    return {
        "train": train,
        "transfer": left + hidden,
        "aggregate": adding + row["aggregate_seconds"] - hidden,
        "evaluate": row["evaluate_seconds"],
        "idle": idle,
        "record": wall - known,
    }


def _busy(clients: Sequence[Row]) -> float:
    """Seconds that one worker's clients took, by their own times."""
    return float(sum(client["train_seconds"] + client["aggregate_seconds"] for client in clients))


def _workers(clients: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """The clients of each process."""
    found = defaultdict(list)
    for client in clients:
        found[client["node"], client["worker"]].append(client)
    return dict(found)


def _otherwise(point: Point, clients: Sequence[Row], held: Sequence[int], examples: int) -> Iterator[str]:
    workers, nodes = len(_workers(clients)), len({client["node"] for client in clients})
    if {*held} != {examples}:
        yield f"its clients hold {min(held)} to {max(held)} examples, not {examples}; the data have too few"
    if len(clients) != point.clients:
        yield f"{len(clients)} clients took part, not {point.clients}"
    if workers != point.actors:
        yield f"{workers} actors computed its clients, not {point.actors}"
    if nodes != point.nodes:
        yield f"they were on {nodes} nodes, not {point.nodes}"

"""The cost model of a round: few physical terms, with coefficients that are no less than 0.

    seconds = round + client * n + work * k (steps x step + add) + byte * B + test * e

n clients, k those of the fullest actor, B bytes that Ray moves, e test examples of the busiest evaluator. `step` and
`add` are each payload's own and come from the clients' own times. The coefficients are fitted to the points that are
not held out, by least squares in shares of each point's seconds: `work` to the seconds that the busiest actor's clients
took, the others to all that is left of the round. So none of them can stand for what another one does, which would not
show here but on a larger cluster. On paper, bytes between nodes take their time on an assumed network as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from fused_ray.core.workspace import BLOCK
from fused_ray.engine.cluster_text import nodes_of
from fused_ray.engine.placement import plan
from fused_ray.studies.scaling.config import Paper, Point, ScaleConfig
from fused_ray.studies.scaling.rows import point_of

Row = Mapping[str, Any]

TERMS = {
    "work": ("", "the busiest actor's clients, against k (steps x step + add)"),
    "round": ("s", "a round, whatever it does"),
    "client": ("s a client", "the driver, for each client of the round: calls, reports, rows"),
    "byte": ("s a byte", "bytes that Ray moves, and the driver adds up"),
    "test": ("s an example", "evaluation, by the test examples of the busiest evaluator"),
}
"""Coefficients that are fitted: unit, and what each stands for."""
OWN = {
    "steps": ("", "steps of a client in a round"),
    "step_seconds": ("s", "a step, by the clients' own times"),
    "add_seconds": ("s", "checking and adding a client's update, by the clients' own times"),
}
"""What is measured of each payload: unit, and what it stands for."""
REST = tuple(name for name in TERMS if name != "work")


@dataclass(frozen=True)
class Load:
    """What a round has to do, in the terms of the model."""

    clients: int
    fullest: int
    """Clients of the actor that has most."""
    steps: float
    """Of a client."""
    step_seconds: float
    add_seconds: float
    bytes: int
    """That Ray moves."""
    tests: int
    """Test examples of the busiest evaluator."""

    @property
    def work(self) -> float:
        """Seconds of the fullest actor's clients, by their own times."""
        return self.fullest * (self.steps * self.step_seconds + self.add_seconds)

    @property
    def rest(self) -> tuple[float, ...]:
        """What the other coefficients are multiplied by, in the order of REST."""
        return (1.0, self.clients, self.bytes, self.tests)


def fit(loads: Sequence[Load], busy: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """The coefficients, none below 0, for rounds of so many seconds, of which `busy` are the busiest actor's."""
    own = _least([[load.work] for load in loads], busy, seconds)
    rest = [whole - part for whole, part in zip(seconds, busy, strict=True)]
    others = _least([load.rest for load in loads], rest, seconds)
    return dict(zip(("work", *REST), (*own, *others), strict=True))


def _least(terms: Sequence[Sequence[float]], wanted: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Coefficients of no less than 0 with the least squares of errors, each as a share of its `seconds`."""
    from sklearn.linear_model import LinearRegression  # takes a while

    shares = np.asarray(terms, np.float64) / np.asarray(seconds)[:, None]
    scale = np.where(shares.max(0) > 0, shares.max(0), 1.0)  # of one size, or small ones would be lost
    fitted = LinearRegression(fit_intercept=False, positive=True)
    fitted.fit(shares / scale, np.asarray(wanted) / np.asarray(seconds))
    found: list[float] = (fitted.coef_ / scale).tolist()
    return found


@dataclass(frozen=True)
class CostModel:
    """What a round costs, as far as these points tell."""

    coefficients: Mapping[str, float]
    own: Mapping[str, Mapping[str, float]]
    """Each payload's steps of a client in a round, seconds of a step, and of adding an update: by OWN, by payload."""
    points: int
    """That it was fitted on."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> CostModel:
        """Fitted on measured points, which are rows of points.parquet. There must be some."""
        payloads = dict.fromkeys(row["payload"] for row in rows)
        own = {
            name: {payload: median(row[name] for row in rows if row["payload"] == payload) for payload in payloads}
            for name in OWN
        }
        empty = cls({}, own, len(rows))
        busy, seconds = ([row[name] for row in rows] for name in ("busy", "seconds"))
        return cls(fit([empty.load(row) for row in rows], busy, seconds), own, len(rows))

    def load(self, row: Row) -> Load:
        """What a round of a point has to do; its payload must be among those that the model knows."""
        return self.load_of(point_of(row), row["cluster_bytes"], row["tests"])

    def load_of(self, point: Point, moved: int, tests: int) -> Load:
        """The same of a point that need not be measured: so many bytes are moved, so many test examples evaluated."""
        blocks = math.ceil(tests / BLOCK)
        busiest = min(tests, math.ceil(blocks / min(point.actors, blocks)) * BLOCK)
        steps, step, add = (self.own[name][point.payload] for name in OWN)
        return Load(point.clients, point.fullest, steps, step, add, moved, busiest)

    def seconds(self, load: Load) -> float:
        """Of a round."""
        others = sum(self.coefficients[name] * amount for name, amount in zip(REST, load.rest, strict=True))
        return self.coefficients["work"] * load.work + others

    def knows(self, payload: str) -> bool:
        """Whether it can predict rounds with that payload."""
        return all(payload in by_payload for by_payload in self.own.values())

    def parameters(self, paper: Paper) -> Iterator[dict[str, Any]]:
        """Rows of model.parquet."""
        for name, (unit, meaning) in TERMS.items():
            value, source = self.coefficients[name], f"fitted to {self.points} measured points"
            yield {"name": name, "payload": "", "value": value, "unit": unit, "source": source, "meaning": meaning}
        for name, (unit, meaning) in OWN.items():
            for payload, value in self.own[name].items():
                yield {"name": name, "payload": payload, "value": value, "unit": unit, "source": "measured",
                       "meaning": meaning}  # fmt: skip
        yield {"name": "network", "payload": "", "value": paper.network_gbps, "unit": "Gbit/s", "source": "assumed",
               "meaning": "on paper: between the driver's node and all others together"}  # fmt: skip
        yield {"name": "cores", "payload": "", "value": 1.0, "unit": "", "source": "assumed",
               "meaning": "on paper: speed of a core with an actor on each, against here"}  # fmt: skip


def predicted(rows: Sequence[dict[str, Any]]) -> CostModel | None:
    """Fit a model on the rows of points that are not held out, and tell each row what it predicts; None of none."""
    fitted = [row for row in rows if not row["held_out"]]
    if not fitted:
        return None
    model = CostModel.of(fitted)
    for row in rows:
        if model.knows(row["payload"]):
            row["predicted"] = model.seconds(model.load(row))
            row["error"] = row["predicted"] / row["seconds"] - 1
    return model


def held_out_error(rows: Collection[Row]) -> float | None:
    """Median of the absolute relative errors of the points that were held out; None of none."""
    errors = [abs(row["error"]) for row in rows if row["held_out"] and row.get("error") is not None]
    return median(errors) if errors else None


def on_paper(model: CostModel, rows: Sequence[Row], config: ScaleConfig) -> Iterator[dict[str, Any]]:
    """Rows of paper.parquet: each cluster with each number of clients and each payload that was measured.

    Actors are where a run would place them there, one on each core; the driver is on the first node.
    """
    by_payload = {row["payload"]: [other for other in rows if other["payload"] == row["payload"]] for row in rows}
    for cluster in config.paper.clusters:
        nodes = nodes_of(cluster)
        for clients in config.paper.clients:
            wanted = config.base.federation.model_copy(
                update={"clients": clients, "clients_per_actor": "auto", "actor_cpus": 1.0, "actor_gpus": 0.0}
            )
            seats = Counter(seat.node for seat in plan(wanted, [config.examples] * clients, nodes).seats)
            for payload, measured in by_payload.items():
                if model.knows(payload):
                    point = Point(clients, seats.total(), len(seats), payload)
                    yield {"cluster": cluster} | _on_cluster(model, measured, point, seats, nodes[0].name, config.paper)


def _on_cluster(
    model: CostModel, rows: Sequence[Row], point: Point, seats: Mapping[str, int], first: str, paper: Paper
) -> dict[str, Any]:
    """What is predicted of a point whose actors are on these nodes, so many on each."""
    payload, away = max(row["payload_bytes"] for row in rows), {node: seats[node] for node in seats if node != first}
    moved, crossing = payload * (point.nodes + 2 * point.actors), payload * (len(away) + 2 * sum(away.values()))
    load, network = model.load_of(point, moved, max(row["tests"] for row in rows)), 8e-9 * crossing / paper.network_gbps
    return {
        "clients": point.clients,
        "actors": point.actors,
        "nodes": point.nodes,
        "payload": point.payload,
        "seconds": model.seconds(load) + network,
        "work": model.coefficients["work"] * load.work,
        "network": network,
        "cluster_bytes": moved,
        "network_bytes": crossing,
        "memory_node": max(seats.values()) * max(row["memory_worker"] for row in rows),
    }

"""The cost model of a round: few physical terms, with coefficients that are no less than 0.

    seconds = round + client * n + work * k (steps x step + add) + byte * B + test * e

n clients, k those of the fullest actor, B bytes that Ray moves, e test examples of the busiest evaluator. `step` and
`add` are each payload's own and come from the clients' own times. The coefficients are fitted to the points that are
not held out, by least squares in shares of each point's seconds: `work` to the seconds that the busiest actor's clients
took, the others to all that is left of the round. So none of them can stand for what another one does, which would not
show here but on a larger cluster. Terms that are in step at all of these points cannot be told apart: then their
coefficients are not given, and only rounds are predicted for which that makes no difference. What becomes of the others
when one of the points is left out says how much rests on it. On paper, bytes between nodes take their time on an
assumed network as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from fused_ray.core.workspace import BLOCK
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.scaling.grid import Point
from fused_ray.studies.scaling.paper import Paper, seats
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
LEAST_POINTS, LEAST_ACTORS = 5, 2
"""Fitted points, and different numbers of actors among them, without which no cluster is put on paper."""


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
    seen: tuple[tuple[float, ...], ...] = ()
    """What the coefficients of REST are multiplied by at these points."""
    without: tuple[CostModel, ...] = ()
    """The same fitted on all of them but one, for each."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> CostModel:
        """Fitted on measured points, which are rows of points.parquet. There must be some."""
        payloads = dict.fromkeys(row["payload"] for row in rows)
        own = {
            name: {payload: median(row[name] for row in rows if row["payload"] == payload) for payload in payloads}
            for name in OWN
        }
        left_out = range(len(rows) if len(rows) > 1 else 0)
        empty = cls({}, own, 0)
        without = [empty._fitted([*rows[:number], *rows[number + 1 :]]) for number in left_out]
        return replace(empty._fitted(rows), without=tuple(without))

    def _fitted(self, rows: Sequence[Row]) -> CostModel:
        """The same with the coefficients by these points."""
        loads = [self.load(row) for row in rows]
        busy, seconds = ([row[name] for row in rows] for name in ("busy", "seconds"))
        found, seen = fit(loads, busy, seconds), tuple(load.rest for load in loads)
        return replace(self, coefficients=found, points=len(rows), seen=seen)

    def tells(self, name: str) -> bool:
        """Whether the points tell a coefficient from all others."""
        return name == "work" or self._spans([float(other == name) for other in REST])

    def predicts(self, load: Load) -> bool:
        """Whether a round's seconds are the same with all coefficients that fit the points as well."""
        return self._spans(load.rest)

    def _spans(self, terms: Sequence[float]) -> bool:
        """Whether these multiples of REST are made up of those that were seen."""
        seen, wanted = np.asarray(self.seen, np.float64), np.asarray(terms, np.float64)
        scale = np.where(seen.max(0) > 0, seen.max(0), 1.0)  # of one size, or small ones would be lost
        seen, wanted = seen / scale, wanted / scale
        seen, wanted = seen / seen.max(1, keepdims=True), wanted / wanted.max()
        parts = np.linalg.lstsq(seen.T, wanted, rcond=1e-9)[0]
        return bool(np.allclose(parts @ seen, wanted, rtol=0, atol=1e-6))

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

    def around(self, load: Load) -> tuple[float | None, float | None]:
        """The least and the most seconds of a round when one of the points is left out, if all others tell it."""
        return _ends([model.seconds(load) if model.predicts(load) else None for model in self.without])

    def _fitted_row(self, name: str) -> dict[str, Any]:
        points = f"{self.points} measured points"
        if not self.tells(name):
            return {"value": None, "least": None, "most": None, "source": f"not told by {points}"}
        least, most = _ends([model.coefficients[name] if model.tells(name) else None for model in self.without])
        return {"value": self.coefficients[name], "least": least, "most": most, "source": f"fitted to {points}"}

    def parameters(self, paper: Paper) -> Iterator[dict[str, Any]]:
        """Rows of model.parquet."""
        for name, (unit, meaning) in TERMS.items():
            yield {"name": name, "payload": "", "unit": unit, "meaning": meaning} | self._fitted_row(name)
        for name, (unit, meaning) in OWN.items():
            for payload, value in self.own[name].items():
                yield {"name": name, "payload": payload, "value": value, "unit": unit, "source": "measured",
                       "meaning": meaning}  # fmt: skip
        yield {"name": "network", "payload": "", "value": paper.network_gbps, "unit": "Gbit/s", "source": "assumed",
               "meaning": "on paper: between the driver's node and all others together"}  # fmt: skip
        yield {"name": "cores", "payload": "", "value": 1.0, "unit": "", "source": "assumed",
               "meaning": "on paper: speed of a core with an actor on each, against here"}  # fmt: skip


def _ends(found: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The least and the most, if there are some and none is unknown."""
    known = [value for value in found if value is not None]
    return (min(known), max(known)) if known and len(known) == len(found) else (None, None)


def predicted(rows: Sequence[dict[str, Any]]) -> CostModel | None:
    """Fit a model on the rows of points that are not held out, and tell each row what it predicts; None of none."""
    fitted = [row for row in rows if not row["held_out"]]
    if not fitted:
        return None
    model = CostModel.of(fitted)
    for row in rows:
        if model.knows(row["payload"]) and model.predicts(load := model.load(row)):
            row["predicted"] = model.seconds(load)
            row["error"] = row["predicted"] / row["seconds"] - 1
    return model


def held_out(rows: Collection[Row]) -> dict[str, Any]:
    """How far the model is off at points that were held out; of none, None.

    The median of the absolute relative errors, the largest error, and the name of its point.
    """
    errors = {point_of(row).name: row["error"] for row in rows if row["held_out"] and row.get("error") is not None}
    worst = max(errors, key=lambda name: abs(errors[name]), default="")
    return {
        "held_out_error": median(map(abs, errors.values())) if errors else None,
        "held_out_worst": errors.get(worst),
        "held_out_worst_point": worst or None,
    }


def paper_lacks(parameters: Sequence[Row], rows: Sequence[Row]) -> str:
    """Why no cluster is put on paper, by rows of model.parquet and points.parquet; empty: nothing is amiss."""
    fitted = [row for row in rows if not row["held_out"]]
    if any(row.get("device") == "cuda" for row in rows):
        return "the points were computed on GPUs, whose steps say nothing of a core's"
    if untold := [row["name"] for row in parameters if row["value"] is None]:
        return f"the fitted points do not tell {', '.join(untold)}"
    if len(fitted) < LEAST_POINTS or len({row["actors"] for row in fitted}) < LEAST_ACTORS:
        return f"it takes {LEAST_POINTS} fitted points or more, with {LEAST_ACTORS} numbers of actors among them"
    return ""


def on_paper(model: CostModel, rows: Sequence[Row], config: ScaleConfig) -> Iterator[dict[str, Any]]:
    """Rows of paper.parquet: each cluster with each number of clients and each payload that was measured.

    Actors are where a run would place them there, one on each core; the driver is on the first node.
    """
    by_payload = {row["payload"]: [other for other in rows if other["payload"] == row["payload"]] for row in rows}
    for cluster in config.paper.clusters:
        for clients in config.paper.clients:
            first, seated = seats(cluster, config.base.federation, clients)
            for payload, measured in by_payload.items():
                if model.knows(payload):
                    point = Point(clients, seated.total(), len(seated), payload)
                    yield {"cluster": cluster} | _on_cluster(model, measured, point, seated, first, config.paper)


def _on_cluster(
    model: CostModel, rows: Sequence[Row], point: Point, seated: Mapping[str, int], first: str, paper: Paper
) -> dict[str, Any]:
    """What is predicted of a point whose actors are on these nodes, so many on each."""
    payload, away = max(row["payload_bytes"] for row in rows), {node: seated[node] for node in seated if node != first}
    moved, crossing = payload * (point.nodes + 2 * point.actors), payload * (len(away) + 2 * sum(away.values()))
    load, network = model.load_of(point, moved, max(row["tests"] for row in rows)), 8e-9 * crossing / paper.network_gbps
    least, most = (None if end is None else end + network for end in model.around(load))
    return {
        "clients": point.clients,
        "actors": point.actors,
        "nodes": point.nodes,
        "payload": point.payload,
        "seconds": model.seconds(load) + network,
        "least": least,
        "most": most,
        "work": model.coefficients["work"] * load.work,
        "network": network,
        "cluster_bytes": moved,
        "network_bytes": crossing,
        "memory_node": max(seated.values()) * max(row["memory_worker"] for row in rows),
    }

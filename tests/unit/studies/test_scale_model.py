"""What a round's seconds go to, efficiency, the cost model and clusters on paper: numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from fused_ray import RunConfig, ScaleConfig
from fused_ray.studies.scaling import measure, model, plots, rows, tables
from fused_ray.studies.scaling.grid import Point
from fused_ray.studies.scaling.model import CostModel, Load

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def client(number: int, worker: int, began: float, train: float, add: float, node: str = "n") -> dict[str, Any]:
    return {"client": number, "worker": worker, "node": node, "started_at": START + timedelta(seconds=began),
            "train_seconds": train, "aggregate_seconds": add, "examples": 20, "memory": 100 + worker,
            "device": "cpu"}  # fmt: skip


def a_round(train: float, aggregate: float, evaluate: float) -> dict[str, Any]:
    return {"round": 2, "started_at": START, "train_seconds": train, "aggregate_seconds": aggregate,
            "evaluate_seconds": evaluate, "bytes_down_client": 400, "memory": 7}  # fmt: skip


# Actor 1 has two clients and ends at 3.5 s, actor 2 has one and ends at 2.5 s; all sums were there after 4 s.
TWO = [client(0, 1, 0.5, 1.0, 0.5), client(1, 1, 2.0, 1.25, 0.25), client(2, 2, 0.5, 1.5, 0.5)]


# -- what seconds go to


def test_the_seconds_of_a_round() -> None:
    parts = measure.split(a_round(4.0, 0.5, 1.0), TWO, 6.0)
    assert parts == {
        "train": pytest.approx((2.25 + 1.5) / 2),
        "idle": pytest.approx((0 + 1.0) / 2),
        "aggregate": pytest.approx((0.75 + 0.5) / 2 + 0.5),
        "transfer": pytest.approx(4.0 - 1.875 - 0.5 - 0.625),
        "evaluate": 1.0,
        "record": pytest.approx(0.5),
    }
    assert sum(parts.values()) == pytest.approx(6.0)


def test_what_the_driver_adds_while_actors_work_is_counted_once() -> None:
    """The driver's clock leaves its own adding out of training, though an actor trained meanwhile."""
    alone = [client(0, 1, 0.0, 2.0, 0.0)]
    parts = measure.split(a_round(1.5, 0.75, 0.0), alone, 2.5)
    assert parts["transfer"] == pytest.approx(0.0)
    assert parts["aggregate"] == pytest.approx(0.25)
    assert sum(parts.values()) == pytest.approx(2.5)


def test_the_figures_of_a_round() -> None:
    config = RunConfig.from_dict({}, ["train.batch_size=8", "train.local_epochs=2"])  # 20 examples are 6 steps
    found = measure.figures(config, a_round(4.0, 0.5, 1.0), TWO, 6.0)
    assert (found["seconds"], found["steps"], found["busy"]) == (6.0, 6.0, pytest.approx(3.0))
    assert found["step_seconds"] == pytest.approx(3.75 / 18)
    assert found["add_seconds"] == pytest.approx(1.25 / 3)
    assert (found["memory_worker"], found["memory_driver"]) == (102, 7)
    assert found["cluster_bytes"] == 400 + 2 * 800  # the payload to one node, and two sums
    assert found["device"] == "cpu"
    assert (
        measure.figures(config, a_round(4.0, 0.5, 1.0), [*TWO[:2], TWO[2] | {"device": "cuda"}], 6.0)["device"]
        == "cuda"
    )


def test_in_one_process_nothing_is_moved() -> None:
    alone = [client(0, 1, 0.0, 1.0, 0.0, "local")]
    assert measure.figures(RunConfig(), a_round(1.0, 0.0, 0.0), alone, 1.0)["cluster_bytes"] == 0


# -- points


def measured(clients: int, actors: int, seconds: float, nodes: int = 1, **more: Any) -> dict[str, Any]:
    row = {"clients": clients, "actors": actors, "nodes": nodes, "payload": "p", "repeat": 0, "status": "done",
           "seconds": seconds, **dict.fromkeys(measure.PARTS, seconds / 6), "busy": 0.5, "steps": 1.0,
           "step_seconds": 0.1, "add_seconds": 0.0, "payload_bytes": 4, "cluster_bytes": 12, "tests": 250,
           "memory_worker": 5, "memory_driver": 6, "device": "cpu"}  # fmt: skip
    return row | more


def test_a_point_is_the_median_of_all_of_its_rounds() -> None:
    found = [measured(4, 1, seconds, repeat=number) for number, seconds in enumerate((1.0, 4.0, 1.5))]
    failed = measured(4, 1, 9.0) | {"status": "failed: so"}
    (point,) = rows.by_point([*found, failed], frozenset({Point(4, 1, 1, "p")}))
    assert (point["seconds"], point["least"], point["most"], point["rounds"]) == (1.5, 1.0, 4.0, 3)
    assert point["held_out"]
    assert sum(point[part] for part in measure.PARTS) == pytest.approx(1.0)
    assert (point["strong"], point["weak"]) == (None, None)


def test_efficiency() -> None:
    found = [measured(8, 1, 4.0), measured(8, 2, 2.5), measured(8, 2, 3.2, nodes=2), measured(16, 2, 5.0)]
    points = rows.by_point(found, frozenset())
    assert [point["strong"] for point in points] == [1.0, pytest.approx(4 / 5), pytest.approx(4 / 6.4), None]
    assert [point["weak"] for point in points] == [1.0, None, None, pytest.approx(4 / 5)]


# -- the cost model

CONFIG = ScaleConfig.from_dict({"points": [{"clients": [4, 6, 8, 10]}], "hold_out": [{"clients": [6, 8, 10]}]})
ROUNDS = {"rounds": 1, "least": 1.0, "most": 1.0}
TRUE = {"work": 1.25, "round": 0.02, "client": 3e-4, "byte": 2e-9, "test": 1e-5}


def loads() -> list[Load]:
    return [
        Load(clients, -(-clients // actors), 2.0, 1e-3 * size, 2e-4 * size, 4000 * size * (1 + 2 * actors), tests)
        for clients in (10, 100, 1000)
        for actors in (1, 2)
        for size in (1, 100)
        for tests in (80, 1000)
    ]


def seconds(load: Load) -> tuple[float, float]:
    """Of the busiest actor, and of the round, as the coefficients above have it."""
    busy = TRUE["work"] * load.fullest * (load.steps * load.step_seconds + load.add_seconds)
    rest = TRUE["round"] + TRUE["client"] * load.clients + TRUE["byte"] * load.bytes + TRUE["test"] * load.tests
    return busy, busy + rest


def test_the_fit_finds_the_coefficients_of_rounds_that_have_them() -> None:
    busy, whole = zip(*map(seconds, loads()), strict=True)
    assert model.fit(loads(), busy, whole) == {name: pytest.approx(value, rel=1e-6) for name, value in TRUE.items()}


def test_no_coefficient_is_below_0() -> None:
    """Rounds that get shorter with their bytes: the least squares would take something off for each."""
    given = [Load(4, 4, 1.0, 0.1, 0.0, moved, 0) for moved in (0, 1000, 2000)]
    found = model.fit(given, [0.4, 0.4, 0.4], [1.4, 1.2, 1.0])
    assert found["byte"] == 0.0
    assert all(value >= 0 for value in found.values())


def points_of_the_model() -> list[dict[str, Any]]:
    """Points that are as TRUE says, but for one that is held out and takes twice as long."""
    found = []
    for clients, actors in ((10, 1), (10, 2), (100, 1), (100, 2), (300, 1), (50, 2), (1000, 2)):
        for payload, size in (("small", 1), ("large", 100)):
            moved = 4000 * size * (1 + 2 * actors)
            tests = 80 if clients == 10 else 1000
            blocks = -(-tests // 250)
            busiest = min(tests, -(-blocks // min(actors, blocks)) * 250)
            load = Load(clients, -(-clients // actors), 2.0, 1e-3 * size, 2e-4 * size, moved, busiest)
            busy, whole = seconds(load)
            row = measured(clients, actors, whole, payload=payload, busy=busy, steps=2.0, step_seconds=1e-3 * size)
            row |= {"add_seconds": 2e-4 * size, "payload_bytes": 4000 * size, "cluster_bytes": moved, "tests": tests}
            found.append(row | {"held_out": clients == 1000, "strong": None, "weak": None} | ROUNDS)
    found[-1]["seconds"] *= 2
    return found


def test_held_out_points_are_predicted_and_not_fitted() -> None:
    points = points_of_the_model()
    found = model.predicted(points)
    assert found is not None
    assert found.coefficients == {name: pytest.approx(value, rel=1e-6) for name, value in TRUE.items()}
    assert [point["error"] for point in points] == pytest.approx([0.0] * 13 + [-0.5], abs=1e-6)
    assert model.held_out(points) == {
        "held_out_error": pytest.approx(0.25),  # of 0 and .5
        "held_out_worst": pytest.approx(-0.5),
        "held_out_worst_point": "c1000-a2-n1-large",
    }
    assert found.points == 12
    text = tables.markdown(points, list(found.parameters(CONFIG.paper)), [], CONFIG)
    assert "median 25%, worst -50%, at 1,000 clients, 2 actors, payload large" in text
    assert "2 of 3 held-out points were measured. Which are held out stands in scaling.yaml." in text
    assert "before anything was measured" not in text


def test_without_points_there_is_no_model() -> None:
    assert model.predicted([measured(4, 1, 1.0) | {"held_out": True}]) is None
    nothing = {"held_out_error": None, "held_out_worst": None, "held_out_worst_point": None}
    assert model.held_out([measured(4, 1, 1.0) | {"held_out": False, "error": 0.1}]) == nothing


def test_what_points_do_not_tell_is_not_given_out_as_fitted() -> None:
    """In one process no bytes move, and with these few test examples they are as many as clients, times 8."""
    points = [
        measured(clients, 1, 0.1 + 0.01 * clients, cluster_bytes=0, tests=8 * clients, busy=0.001 * clients)
        | {"held_out": clients in (6, 40)}
        for clients in (4, 6, 8, 40)
    ]
    points[3]["tests"] = 250  # no more in step with the clients
    found = model.predicted(points)
    assert found is not None
    rows_of = {row["name"]: row for row in found.parameters(CONFIG.paper)}
    told = {name: rows_of[name]["value"] for name in TRUE}
    assert told == {
        "work": pytest.approx(0.01),
        "round": pytest.approx(0.1),
        "client": None,
        "byte": None,
        "test": None,
    }
    assert rows_of["byte"]["source"] == "not told by 2 measured points"
    assert rows_of["round"]["source"] == "fitted to 2 measured points"
    assert rows_of["round"]["least"] is None  # of one point alone nothing is told
    assert points[1]["predicted"] == pytest.approx(0.16)  # half way between the fitted ones, whatever the three are
    assert points[3].get("predicted") is None
    lacks = "the fitted points do not tell client, byte, test"
    assert model.paper_lacks([*rows_of.values()], points) == lacks
    shown = [row | {"error": row.get("error"), "strong": None, "weak": None} | ROUNDS for row in points]
    text = tables.markdown(shown, [*rows_of.values()], [], CONFIG)
    assert f"No cluster is put on paper: {lacks}." in text
    assert "1 of these cannot be predicted: the fitted points do not tell." in text
    assert "| byte | - | - | s a byte | not told by 2 measured points |" in text


def test_paper_takes_enough_points_of_several_actors_and_no_gpus() -> None:
    points = points_of_the_model()
    found = model.predicted(points)
    assert found is not None
    parameters = list(found.parameters(CONFIG.paper))
    assert model.paper_lacks(parameters, points) == ""
    assert "computed on GPUs" in model.paper_lacks(parameters, [points[0] | {"device": "cuda"}, *points[1:]])
    alone = [point for point in points if point["actors"] == 1]
    for few in (alone, points[:4]):
        assert model.paper_lacks(parameters, few) == (
            "it takes 5 fitted points or more, with 2 numbers of actors among them"
        )


def test_what_is_fitted_says_what_it_is_without_one_of_the_points() -> None:
    """Busy seconds of 1, 2 and 6 a unit of work at rounds of one length: the mean, and that of each two of them."""
    points = [measured(4, 1, 10.0, busy=0.4 * times) | {"held_out": False} for times in (1, 2, 6)]
    found = model.predicted(points)
    assert found is not None
    work = next(row for row in found.parameters(CONFIG.paper) if row["name"] == "work")
    assert [work[name] for name in ("value", "least", "most")] == pytest.approx([3.0, 1.5, 4.0])
    load = found.load(points[0])  # the rest of these rounds is 10 less 0.4, 0.8 and 2.4: their means, and 0.4 work
    assert found.around(load) == (pytest.approx(10.0), pytest.approx(10.0))


def test_every_parameter_says_where_it_comes_from() -> None:
    found = model.predicted(points_of_the_model())
    assert found is not None
    parameters = list(found.parameters(ScaleConfig.from_dict({"points": [{"clients": 4}]}).paper))
    sources = {row["name"]: row["source"] for row in parameters}
    assert {name for name, source in sources.items() if source == "assumed"} == {"network", "cores"}
    assert {name for name, source in sources.items() if source == "measured"} == {
        "steps",
        "step_seconds",
        "add_seconds",
    }
    assert {name for name, source in sources.items() if source == "fitted to 12 measured points"} == {*TRUE}
    assert all(row["meaning"] for row in parameters)


def test_a_cluster_on_paper() -> None:
    """100 clients on 2 nodes of 4 and 12 cores: 16 actors, 7 clients on the fullest, 12 sums over the network."""
    paper = {"clusters": ["4c, 12c"], "clients": [100], "network_gbps": 8}
    config = ScaleConfig.from_dict({"points": [{"clients": 4}], "paper": paper})
    found = CostModel(TRUE, {"steps": {"p": 2.0}, "step_seconds": {"p": 1e-3}, "add_seconds": {"p": 2e-4}}, 9)
    (row,) = model.on_paper(found, [measured(4, 1, 1.0, payload_bytes=1_000_000, tests=1000)], config)
    assert (row["actors"], row["nodes"], row["memory_node"]) == (16, 2, 12 * 5)
    assert row["cluster_bytes"] == 1_000_000 * (2 + 2 * 16)
    assert row["network_bytes"] == 1_000_000 * (1 + 2 * 12)
    assert row["network"] == pytest.approx(25e6 * 8 / 8e9)
    assert row["work"] == pytest.approx(1.25 * 7 * 2.2e-3)
    others = 0.02 + 3e-4 * 100 + 2e-9 * 34e6 + 1e-5 * 250
    assert row["seconds"] == pytest.approx(row["work"] + row["network"] + others)
    assert (row["least"], row["most"]) == (None, None)
    half = CostModel({**TRUE, "round": 0.01}, found.own, 8, seen=tuple(tuple(unit) for unit in np.eye(4).tolist()))
    (row,) = model.on_paper(
        replace(found, without=(half, half)), [measured(4, 1, 1.0, payload_bytes=1_000_000, tests=1000)], config
    )
    assert row["least"] == row["most"] == pytest.approx(row["seconds"] - 0.01)


# -- pictures


def test_no_two_lines_of_one_legend_look_the_same() -> None:
    found = [measured(clients, actors, 1.0) for clients in (8, 16) for actors in (1, 2)]
    figure = plots._efficiency(rows.by_point(found, frozenset()))
    assert figure is not None
    looks = [
        (line.get_color(), line.get_marker())
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_label()[0] != "_"
    ]
    assert len(looks) == len({*looks}) == 3  # 8 and 16 clients, and 8 an actor

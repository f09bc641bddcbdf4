"""A scaling study's file: which points it means, which are held out, and what is wrong in it in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fused_ray import RunConfig, ScaleConfig
from fused_ray.config.parts.methods import Method
from fused_ray.errors import ConfigError
from fused_ray.studies.scaling.config import of_study
from fused_ray.studies.scaling.grid import Grid, Point
from fused_ray.studies.scaling.network import two_layers
from fused_ray.studies.scaling.paper import seats

EXAMPLE = Path(__file__).parents[3] / "examples" / "scale.yaml"


def study(**changes: Any) -> ScaleConfig:
    return ScaleConfig.from_dict({"points": [{"clients": [4, 8], "actors": [1, 2]}], **changes})


# -- what it means


def test_a_grid_is_every_combination() -> None:
    grid = Grid(clients=(10, 20), actors=(1, 2), payload=("a", "b"))
    assert len(list(grid.points("a"))) == 8
    assert Point(20, 2, 1, "b") in grid.points("a")


def test_clients_of_each_actor_times_actors_are_the_clients() -> None:
    assert list(Grid(per_actor=(5, 50), actors=(1, 3)).points("p")) == [
        Point(5, 1, 1, "p"), Point(50, 1, 1, "p"), Point(15, 3, 1, "p"), Point(150, 3, 1, "p"),
    ]  # fmt: skip


def test_all_points_come_once_in_every_repeat_those_with_the_same_actors_together() -> None:
    config = study(points=[{"clients": [8, 4], "actors": [2, 1]}, {"per_actor": 4, "actors": [1, 2]}], repeats=2)
    once = [(4, 1), (8, 1), (4, 2), (8, 2)]
    assert [(take.point.clients, take.point.actors) for take in config.takes] == once * 2
    assert [take.repeat for take in config.takes] == [0] * 4 + [1] * 4
    assert [take.number for take in config.takes] == list(range(8))


def test_a_run_is_what_its_point_says() -> None:
    config = study(warmup=2, rounds=3, examples=5, base={"seed": 7, "pretrain": {"participation": 0.5}})
    run = next(take.config for take in config.takes if take.point == Point(8, 2, 1, "base"))
    assert (run.seed, run.federation.clients, run.federation.clients_per_actor, run.data.limit) == (7, 8, 4, 40)
    assert (run.pretrain.rounds, run.unlearn.method, run.unlearn.rounds, run.retrain_rounds) == (6, "finetune", 0, 0)
    assert (run.data.partition, run.participation("pretrain"), run.audit.enabled) == ("iid", 1.0, False)
    assert run.output.dir.endswith("runs/scale/runs/c8-a2-n1-base-r0")


def test_unlearning_follows_one_round_of_pretraining() -> None:
    sparse = {"label": "sparse", "set": {"unlearn.layers": ["fc3"]}}
    run = study(phase="unlearn", payloads=[sparse]).runs[0]
    assert (run.pretrain.rounds, run.unlearn.method, run.unlearn.rounds, run.unlearn.layers) == (
        1,
        "fused",
        4,
        ("fc3",),
    )


def test_a_payload_that_is_a_number_is_so_many_values() -> None:
    config = ScaleConfig.from_yaml(EXAMPLE, ["payloads=[50]", "points=[{clients: 4, payload: 50}]", "hold_out=[]"])
    assert config.runs[0].model.args == {"values": 50}
    assert config.all_points == (Point(4, 1, 1, "50"),)


def test_the_example_holds_out_the_largest_and_one_of_each_payload() -> None:
    config = ScaleConfig.from_yaml(EXAMPLE)
    assert max(config.all_points) in config.held_out
    assert {point.payload for point in config.held_out} == {"10000", "100000", "1000000"}
    assert {point.clients for point in config.all_points} >= {10, 100, 1000, 10_000}
    assert (len(config.fitted), len(config.held_out)) == (12, 5)


def test_it_survives_a_trip_through_yaml() -> None:
    config = ScaleConfig.from_yaml(EXAMPLE)
    assert ScaleConfig.from_dict(yaml.safe_load(config.to_yaml())) == config
    assert config.at("/elsewhere").runs[0].output.dir == "/elsewhere/runs/c10-a1-n1-10000-r0"


# -- what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"points": []}, "points: name at least one"),
        ({"points": [{"actors": 2}]}, "name either clients or per_actor"),
        ({"points": [{"clients": 4, "per_actor": 4}]}, "name either clients or per_actor"),
        ({"points": [{"clients": 10, "actors": 6}]}, "with 2 clients an actor there are fewer than 6 actors"),
        ({"points": [{"clients": 10, "actors": 2, "nodes": 3}]}, "2 actor(s) cannot be on 3 nodes"),
        ({"points": [{"clients": 4, "payload": "b"}]}, "points: there is no payload 'b'; payloads has base"),
        ({"points": [{"clients": 5000}]}, "40,000 training examples are more than the 10,000 of fashion-mnist-mini"),
        ({"hold_out": [{"clients": 5}]}, "hold_out: c5-a1-n1-base is none of the points"),
        ({"hold_out": [{"clients": [4, 8], "actors": [1, 2]}]}, "no point is left to fit the cost model on"),
        ({"payloads": ["big"]}, "write a number of values"),
        ({"payloads": [{"label": "a"}, {"label": "a"}]}, "payloads: 'a' is there twice"),
        ({"payloads": [{"label": "a", "set": {"federation.clients": 3}}]}, "a payload cannot set federation.clients"),
        ({"payloads": [{"label": "a", "set": {"unlearn.layer": 3}}]}, "unlearn.layer: unknown key"),
        ({"payloads": [{"label": "../a"}]}, "it names folders"),
        ({"base": {"engine": {"backend": "local"}}}, "c4-a2-n1-base: several actors or nodes take base.engine.backend"),
        ({"base": {"pretrain": {"from": "runs/x"}}}, "base.pretrain.from"),
        ({"paper": {"clusters": ["4 nodes"]}}, "paper.clusters: '4 nodes': write nodes as"),
        ({"paper": {"clusters": ["2x0.5c"]}}, "each node needs a core"),
        ({"paper": {"clusters": ["2x4c/100MB"]}}, "paper.clusters: '2x4c/100MB': 1 actors of 300 MB need"),
        ({"paper": {"clients": [10**9]}}, "paper.clients: 1,000,000,000 clients are more than 1,000,000"),
        ({"points": [{"clients": 4, "actors": []}]}, "actors: name at least one"),
        ({"points": [{"clients": 4, "nodes": []}]}, "nodes: name at least one"),
        ({"payloads": [0]}, "write a number of values"),
        ({"payloads": [500]}, "payloads: 500: a number asks a model for so many values; set base.model.factory"),
        ({"repeats": 0}, "repeats"),
        ({"rounds": 0}, "rounds"),
        ({"warmup": 99_999}, "rounds: pretrain.rounds: input should be less than or equal to 100000"),
        ({"repeats": 10**6}, "repeats: 1,000,000 of each of 4 points are more than 10,000 runs"),
        ({"base": {"federation": {"aggregate": "median"}}}, "base.federation.aggregate: with median single updates"),
        ({"base": {"deployment": {"profile": "phones", "participation": "available"}}}, "not everybody takes part"),
    ],
)
def test_what_is_wrong_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        study(**changes)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


WHOLE = {"forget": {"scenario": "client"}}


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (
            {"unlearn": {"method": "retrain"}},
            "phase: unlearn cannot measure retrain, whose rounds are not unlearn.rounds",
        ),
        ({"unlearn": {"method": "ridge"}}, "phase: unlearn cannot measure ridge"),
        ({"unlearn": {"method": "exactfun"}}, "phase: unlearn cannot measure exactfun"),
        ({"unlearn": {"method": "federaser"}, **WHOLE}, "phase: unlearn cannot measure federaser"),
        ({"unlearn": {"method": "fedosd"}, **WHOLE}, "phase: unlearn cannot measure fedosd"),
        ({"unlearn": {"method": "fedmemprune"}}, "to whose server single updates travel"),
        ({"unlearn": {"method": "puf"}, **WHOLE}, "phase: unlearn cannot measure the scenario 'client'"),
        (WHOLE, "phase: unlearn cannot measure the scenario 'client', whose clients take no part any more"),
        ({"unlearn": {"wire": "int8"}}, "base.unlearn.wire: with int8"),
        (
            {"unlearn": {"method": "tests.unit.studies.test_scale_config:ONCE"}},
            "needs 4 rounds (warmup, rounds, and one",
        ),
    ],
)
def test_unlearning_that_cannot_be_measured_is_refused(base: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        study(phase="unlearn", base=base)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


ONCE = Method("fused_ray.core.methods.fedavg:unlearn_by_finetuning", phases=lambda settings: {"unlearn": 1})
"""A method of one round, whatever is asked for."""


def test_first_rounds_of_another_kind_are_warmed_up_over() -> None:
    """FedQuit has one before those of unlearn.rounds; so there are as many in all as with any other method."""
    base = {"unlearn": {"method": "fedquit"}, "forget": {"scenario": "sample"}}
    run = study(phase="unlearn", base=base, warmup=1, rounds=2).runs[0]
    assert run.method.phases(run)["unlearn"] == 1 + 2 + 1
    with pytest.raises(ConfigError, match=r"^warmup: the first 1 round\(s\) of fedquit are of another kind"):
        study(phase="unlearn", base=base, warmup=0)


def test_payloads_come_in_their_order_on_the_same_actors() -> None:
    """Not by their names: what a large one left in memory would be the small one's."""
    payloads = [{"label": label, "set": {"train.batch_size": 4}} for label in ("b", "a")]
    config = study(payloads=payloads, points=[{"clients": [8, 4], "actors": [1, 2], "payload": ["a", "b"]}])
    found = [(point.actors, point.payload, point.clients) for point in config.all_points]
    assert found == [(1, "b", 4), (1, "b", 8), (1, "a", 4), (1, "a", 8),
                     (2, "b", 4), (2, "b", 8), (2, "a", 4), (2, "a", 8)]  # fmt: skip


def test_labels_of_this_cluster_say_nothing_of_one_on_paper() -> None:
    federation = RunConfig.from_dict({"federation": {"actor_labels": {"zone": "a"}}}).federation
    assert seats("2x3c", federation, 100) == ("node 1", {"node 1": 3, "node 2": 3})


def test_a_field_that_the_study_sets_has_the_study_s_name() -> None:
    assert of_study("data.limit: must be at least 10") == "examples: data.limit: must be at least 10"
    assert of_study("the cluster has 1 node") == "the cluster has 1 node"


def test_a_network_is_not_of_fewer_values_than_its_smallest() -> None:
    assert sum(p.numel() for p in two_layers((16,), 10, 37).parameters()) == 37
    with pytest.raises(ValueError, match="36 values are too few: with a hidden layer of width 1 there are 37"):
        two_layers((16,), 10, 36)


def test_a_field_of_the_base_is_blamed_there() -> None:
    with pytest.raises(ConfigError, match=r"^base\.forget\.clients: .*15.* \(c4-a1-n1-base\)"):
        study(base={"forget": {"scenario": "client", "clients": [15]}})


def test_a_field_of_a_payload_is_blamed_there() -> None:
    with pytest.raises(ConfigError, match=r"^payloads: one: unlearn\.layers: lenet has no layer 'x'"):
        study(phase="unlearn", payloads=[{"label": "one", "set": {"unlearn.layers": ["x"]}}])


def test_a_file_of_another_kind_names_its_command(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("methods: [fused]\nscenarios: [class]\n")
    with pytest.raises(ConfigError, match="describes a comparison, not a scaling-study: fused-ray compare"):
        ScaleConfig.from_yaml(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="describes a scaling-study, not a run: fused-ray scale"):
        RunConfig.from_yaml(EXAMPLE)

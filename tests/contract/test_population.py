"""Many clients: a run of a hundred thousand, and ten thousand packed into actors, with the plain loop's bits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray import RunConfig, load_run, run
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import LocalPool
from fused_ray.core.simulation import simulate
from fused_ray.data import datasets, scenarios
from fused_ray.engine.pool import RayPool
from tests.conftest import STORE

TINY = (
    *("data.name=benchmarks.population:DATA", "model.factory=benchmarks.population:linear", "data.min_examples=1"),
    *("data.partition=iid", "train.lr=0.1", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1"),
    *("unlearn.layers=1", "unlearn.selection=random", "unlearn.sparsity=0.5", "unlearn.mask=random"),
    *("forget.scenario=client", "forget.poison=false", "forget.share=0.01", "output.plots=none", "audit.enabled=false"),
)


@pytest.mark.slow
def test_a_run_of_a_hundred_thousand_clients(tmp_path: Path) -> None:
    fields = ("federation.clients=100000", "data.args.examples=200000", "federation.participation=500")
    kept = ("output.clients=sample", "output.clients_sample=20", "engine.backend=local", f"output.dir={tmp_path}/run")
    found = run(RunConfig.from_dict({}, [*TINY, *fields, *kept]))
    assert found["reversible"]
    made = load_run(tmp_path / "run")
    assert made.rounds.column("clients_used").to_pylist() == [500] * 3
    assert made.rounds.column("examples_shown").to_pylist() == [1000] * 3
    assert made.clients.num_rows == 60
    assert sum(made.read_json("scenario.json")["retained"]) == 198_000


@pytest.mark.slow
def test_ten_thousand_clients_packed_into_two_actors_give_the_plain_loops_bits(cluster: Any) -> None:
    fields = ("federation.clients=10000", "data.args.examples=20000", "federation.clients_per_actor=5000")
    config = RunConfig.from_dict({}, [*TINY, *fields])
    data = datasets.load(config.data, 0)
    scenario = scenarios.build(config, data)
    data = scenarios.extended(config, data, scenario)
    kept = []
    for make in (LocalPool, RayPool):
        recorder = MemoryRecorder()
        pool = make(config, data, scenario)
        found = simulate(config, data, scenario, pool, recorder)
        pool.close()
        kept.append((found.unlearned_hash, found.retrained, recorder.saved["unlearn"].payload.values.tobytes()))
        assert [record.clients_used for record in recorder.records] == [10_000, 9_900, 9_900]
    assert kept[0] == kept[1]
    assert np.frombuffer(kept[0][2], np.float32).any()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_hundred_clients_on_four_nodes_and_the_full_data_give_the_plain_loops_bits(cluster: Any) -> None:
    fields = ("data.name=fashion-mnist", "federation.clients=300", "federation.actor_cpus=1", "unlearn.layers=1")
    short = ("pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1", "audit.enabled=false")
    config = RunConfig.from_dict({}, [*fields, *short, "federation.clients_per_actor=60"])
    data = datasets.load(config.data, 0)
    scenario = scenarios.build(config, data)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE, include_log_monitor=False) for _ in range(3)]
    kept = []
    try:
        for make in (RayPool, LocalPool):
            with contextlib.closing(make(config, data, scenario)) as pool:
                found = simulate(config, data, scenario, pool, MemoryRecorder())
                assert len({identity.node for identity in pool.identities}) == (4 if make is RayPool else 1)
            kept.append((found.base_hash, found.unlearned_hash, found.restored_hash, found.retrained))
    finally:
        for node in nodes:
            cluster.remove_node(node)
    assert kept[0] == kept[1]
    assert kept[0][0] == kept[0][2] != kept[0][1]

"""Nodes that go and come while a run is under way: it completes, with the plain loop's bits.

Three nodes with an actor each; this process, and with it the head, stays.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from fused_ray import run
from fused_ray.config import RunConfig
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import LocalPool
from fused_ray.engine.pool import RayPool
from fused_ray.errors import ClientFailedError, Interrupted
from fused_ray.types import ImageData, Scenario
from tests.conftest import STORE
from tests.contract.test_pools import make_case, outcome_of

NODE = {"num_cpus": 2, "object_store_memory": STORE, "include_log_monitor": False}
CASE = ("data.limit=400", "pretrain.rounds=2", "unlearn.rounds=2", "retrain.rounds=1", "federation.actor_cpus=2")


class Eventful(MemoryRecorder):
    """Something happens once in the middle of a round of some phases."""

    def __init__(self, happen: dict[str, Callable[[RayPool], None]]) -> None:
        super().__init__()
        self._happen, self._phase = happen, ""
        self.pool: RayPool | None = None
        self.nodes: list[tuple[str, set[str]]] = []
        """After each round, its phase and where its clients were computed."""

    def make_pool(self, config: RunConfig, data: ImageData, scenario: Scenario) -> RayPool:
        self.pool = RayPool(config, data, scenario)
        assert len({identity.node for identity in self.pool.identities}) == len(self.pool.identities)
        return self.pool

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self._phase = phase

    def clients_done(self, count: int) -> None:
        if count and self._phase in self._happen:
            assert self.pool is not None
            self._happen.pop(self._phase)(self.pool)

    def finish_round(self, record: Any, total: Any, predictions: Any, saved: Any) -> None:
        self.nodes.append((record.phase, {report.node for report in total.reports}))
        where = len(self.nodes[-1][1])
        print(f"{record.phase} round {record.round}: {record.train_seconds:.1f} s on {where} nodes")
        super().finish_round(record, total, predictions, saved)


def head() -> str:
    return str(ray.get_runtime_context().get_node_id())


@pytest.fixture
def nodes(cluster: Any) -> Iterator[list[Any]]:
    """The nodes beside the head, two of them; a test may take some away and add others."""
    found = [cluster.add_node(wait=False, **NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    yield found
    for node in [node for node in found if node in cluster.worker_nodes]:
        cluster.remove_node(node)
    deadline = time.monotonic() + 30
    while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)


def lose(cluster: Any, nodes: list[Any]) -> Callable[[RayPool], None]:
    return lambda pool: cluster.remove_node(nodes.pop())


def local(*fields: str) -> Any:
    return outcome_of(make_case(6, "class", *CASE, *fields), LocalPool)


def test_a_node_that_dies_in_the_middle_of_a_round_changes_no_bit(cluster: Any, nodes: list[Any]) -> None:
    case = make_case(6, "class", *CASE, "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=0")
    recorder = Eventful({"pretrain": lose(cluster, nodes)})
    assert outcome_of(case, recorder.make_pool, 2, recorder) == outcome_of(case, LocalPool)
    assert [len(where) for _, where in recorder.nodes] == [2] * len(recorder.nodes)  # the clients of the third as well


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["pretrain", "rank", "unlearn", "retrain"])
def test_a_node_may_die_in_any_phase(cluster: Any, nodes: list[Any], phase: str) -> None:
    recorder = Eventful({phase: lose(cluster, nodes)})
    assert outcome_of(make_case(6, "class", *CASE), recorder.make_pool, 2, recorder) == local()
    assert len(recorder.nodes[-1][1]) == 2


@pytest.mark.slow
def test_two_nodes_of_three_may_die_at_once(cluster: Any, nodes: list[Any]) -> None:
    def happen(pool: RayPool) -> None:
        cluster.remove_node(nodes.pop())
        cluster.remove_node(nodes.pop())

    recorder = Eventful({"unlearn": happen})
    assert outcome_of(make_case(6, "class", *CASE), recorder.make_pool, 2, recorder) == local()
    assert recorder.nodes[-1][1] == {head()}


@pytest.mark.slow
def test_a_node_that_comes_takes_over_what_a_lost_one_had(cluster: Any, nodes: list[Any]) -> None:
    def come(pool: RayPool) -> None:
        nodes.append(cluster.add_node(**NODE))
        ray.wait(pool._members.starting, timeout=60)

    recorder = Eventful({"pretrain": lose(cluster, nodes), "unlearn": come})
    assert outcome_of(make_case(6, "class", *CASE), recorder.make_pool, 2, recorder) == local()
    used = {phase: len(where) for phase, where in recorder.nodes}  # by the last round of each phase
    assert (used["pretrain"], used["retrain"]) == (2, 3)
    assert len({node for _, where in recorder.nodes for node in where}) == 3  # the lost one finished no round


@pytest.mark.slow
def test_what_moves_stays_on_nodes_with_the_labels(cluster: Any) -> None:
    labelled = [cluster.add_node(labels={"zone": "a"}, **NODE) for _ in range(2)]
    case = make_case(6, "class", *CASE, "federation.actor_labels={zone: a}")
    recorder = Eventful({"unlearn": lose(cluster, labelled)})
    try:
        assert outcome_of(case, recorder.make_pool, 3, recorder) == local()  # the head has room for what was lost
        assert {len(where) for phase, where in recorder.nodes if phase == "pretrain"} == {2}
        assert {len(where) for phase, where in recorder.nodes if phase == "retrain"} == {1}
        assert head() not in {node for _, where in recorder.nodes for node in where}
    finally:
        cluster.remove_node(labelled.pop())


@pytest.mark.slow
def test_more_lost_nodes_than_are_borne_end_the_run(cluster: Any, nodes: list[Any]) -> None:
    recorder = Eventful({"pretrain": lose(cluster, nodes)})
    with pytest.raises(ClientFailedError, match=r"1 nodes were lost .*, more than the 0 of engine\.max_lost_nodes"):
        outcome_of(make_case(6, "class", *CASE, "engine.max_lost_nodes=0"), recorder.make_pool, 2, recorder)


@pytest.mark.slow
def test_what_was_interrupted_goes_on_on_another_cluster(cluster: Any, nodes: list[Any]) -> None:
    def stop(pool: RayPool) -> None:
        raise Interrupted("stopped")

    recorder, case = Eventful({"unlearn": stop}), make_case(6, "class", *CASE)
    with pytest.raises(Interrupted):
        outcome_of(case, recorder.make_pool, 2, recorder)
    cluster.remove_node(nodes.pop())
    cluster.remove_node(nodes.pop())
    while len(ray.nodes()) - len([n for n in ray.nodes() if not n["Alive"]]) > 1:
        time.sleep(0.1)
    assert outcome_of(case, recorder.make_pool, "auto", recorder) == local()
    assert recorder.nodes[-1][1] == {head()}


@pytest.mark.slow
def test_two_jobs_share_a_cluster(cluster: Any, nodes: list[Any], tmp_path: Path) -> None:
    fields = [
        *("federation.clients=6", "data.limit=600", "pretrain.rounds=3", "unlearn.rounds=3", "output.plots=none"),
        *("retrain.rounds=2", "audit.enabled=false"),
    ]
    jobs = []
    for number in range(2):
        there = [f"engine.address={cluster.address}", f"output.dir={tmp_path / str(number)}"]
        sets = [part for field in (*fields, *there) for part in ("--set", field)]
        command = [sys.executable, "-m", "fused_ray", "run", *sets]
        jobs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [job.communicate(timeout=280)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    run(RunConfig.from_dict({}, [*fields, "engine.backend=local", f"output.dir={tmp_path / 'local'}"]))
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("0", "1", "local")]
    assert len({tuple(result["hash"].values()) for result in results}) == 1

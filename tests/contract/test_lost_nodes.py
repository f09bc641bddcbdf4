"""Nodes that go and come while a run is under way: it completes, with the plain loop's bits.

Three nodes with an actor each; this process, and with it the head, stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from fused_ray.config import RunConfig
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.rounds import LocalPool
from fused_ray.engine.pool import RayPool
from fused_ray.types import ImageData, Scenario
from tests.conftest import STORE
from tests.contract.test_pools import make_case, outcome_of

NODE = {"num_cpus": 2, "object_store_memory": STORE}
CASE = ("data.limit=400", "pretrain.rounds=2", "unlearn.rounds=2", "retrain.rounds=1", "federation.cpus_per_client=2")


class Losing(MemoryRecorder):
    """Does something once in the middle of a round of each of these phases."""

    def __init__(self, phases: list[str], happen: Callable[[RayPool], None]) -> None:
        super().__init__()
        self._left, self._happen, self._phase = phases, happen, ""
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
        if count and self._phase in self._left:
            self._left.remove(self._phase)
            assert self.pool is not None
            self._happen(self.pool)

    def finish_round(self, record: Any, total: Any, predictions: Any, saved: Any) -> None:
        self.nodes.append((record.phase, {report.node for report in total.reports}))
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


def test_a_node_that_dies_in_the_middle_of_a_round_changes_no_bit(cluster: Any, nodes: list[Any]) -> None:
    case = make_case(6, "class", *CASE, "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=0")
    recorder = Losing(["pretrain"], lose(cluster, nodes))
    assert outcome_of(case, recorder.make_pool, 2, recorder) == outcome_of(case, LocalPool)
    assert [len(where) for _, where in recorder.nodes] == [2] * len(recorder.nodes)  # the clients of the third as well

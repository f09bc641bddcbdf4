"""A lease keeps a pool and what its workers cached for the next run, and lends none that was left half done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.config import RunConfig
from fused_ray.core.lease import Lease, same
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import LocalPool
from fused_ray.core.simulation import Outcome, simulate
from fused_ray.data import datasets, scenarios
from fused_ray.types import ImageData, Payload, Scenario

SMALL = ["federation.clients=3", "data.limit=120", "pretrain.rounds=1", "unlearn.rounds=1", "unlearn.layers=[fc3]"]
BASE = Payload(np.arange(4, dtype=np.float32))


class Pool:
    """Notes what is asked of it."""

    identities = ()
    second: list[str]

    def __init__(self, *wanted: Any) -> None:
        self.calls: list[str] = []

    def assign(self, *wanted: Any) -> None:
        self.calls.append("assign")

    def install(self, base: Payload) -> None:
        self.calls.append("install")

    def train(self, *arguments: Any) -> Iterator[Any]:
        yield from ("first", "second")

    def evaluate(self, *arguments: Any) -> Any:
        raise RuntimeError("a worker is lost")

    def base_hashes(self) -> list[list[str]]:
        return [["a", "a"], self.second]

    def close(self) -> None:
        self.calls.append("close")


class Counting(Lease):
    """A lease of such pools."""

    def __init__(self) -> None:
        self.made: list[Pool] = []
        super().__init__(self._make)  # type: ignore[arg-type]

    def _make(self, *wanted: Any) -> Pool:
        self.made.append(Pool())
        return self.made[-1]


def case(*changes: str) -> tuple[RunConfig, ImageData, Scenario]:
    config = RunConfig.from_dict({}, [*SMALL, *changes])
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    return config, scenarios.extended(config, data, scenario), scenario


@pytest.fixture(scope="module")
def classes() -> tuple[RunConfig, ImageData, Scenario]:
    return case()


def test_the_same_data_and_base_find_the_pool_as_it_was(classes: Any) -> None:
    lease = Counting()
    for changes in ([], ["unlearn.sparsity=0.5"]):
        config = RunConfig.from_dict({}, [*SMALL, *changes])
        with contextlib.closing(lease(config, *case()[1:])) as pool:
            pool.install(BASE)
    assert [made.calls for made in lease.made] == [["install"]]
    lease.close()
    assert lease.made[0].calls == ["install", "close"]


@pytest.mark.parametrize(
    "change", ["forget.scenario=client", "seed=1", "data.augment=flip", "engine.prefix_cache_mb=0"]
)
def test_other_data_scenarios_or_workers_settings_assign_it_anew(classes: Any, change: str) -> None:
    lease = Counting()
    for wanted in (classes, case(change)):
        with contextlib.closing(lease(*wanted)) as pool:
            pool.install(BASE)
    assert [made.calls for made in lease.made] == [["install", "assign", "install"]]


def test_another_base_is_installed(classes: Any) -> None:
    lease = Counting()
    pool = lease(*classes)
    for base in (BASE, Payload(BASE.values.copy()), Payload(-BASE.values)):
        pool.install(base)
    assert lease.made[0].calls == ["install", "install"]


@pytest.mark.parametrize("how", ["given up", "failed"])
def test_a_pool_that_was_left_half_done_is_not_lent_again(classes: Any, how: str) -> None:
    lease = Counting()
    pool = lease(*classes)
    if how == "given up":
        parts = pool.train(None, BASE, [0], lambda count: None)  # type: ignore[arg-type]
        next(parts)
    else:
        with pytest.raises(RuntimeError):
            pool.evaluate(None, BASE)  # type: ignore[arg-type]
    lease(*classes)
    assert [made.calls for made in lease.made] == [["close"], []]


@pytest.mark.parametrize(("second", "made"), [(["a"], 1), (["a", "b"], 2), (["b"], 2)])
def test_workers_that_do_not_agree_on_their_base_are_not_lent_again(classes: Any, second: list[str], made: int) -> None:
    lease = Counting()
    pool = lease(*classes)
    lease.made[0].second = second
    assert pool.base_hashes() == [["a", "a"], second]
    lease(*classes)
    assert len(lease.made) == made


def test_work_that_was_finished_leaves_it_whole(classes: Any) -> None:
    lease = Counting()
    assert list(lease(*classes).train(None, BASE, [0], lambda count: None))  # type: ignore[arg-type]
    lease(*classes)
    assert len(lease.made) == 1


def test_a_borrowed_pool_gives_the_bits_of_a_fresh_one() -> None:
    wanted = [case(), case("unlearn.start=zero"), case("forget.scenario=client"), case()]
    with contextlib.closing(Lease(LocalPool)) as lease:
        borrowed = [facts(simulate(*one, lease(*one), MemoryRecorder())) for one in wanted]
    assert borrowed == [facts(simulate(*one, LocalPool(*one), MemoryRecorder())) for one in wanted]
    assert borrowed[0] == borrowed[3] != borrowed[1]


def facts(found: Outcome) -> Any:
    return found.base_hash, found.unlearned_hash, found.restored_hash, found.unlearned.metrics, found.retrained


def test_records_are_the_same_if_all_their_bits_are(classes: Any) -> None:
    _, _, scenario = classes
    assert same(scenario, replace(scenario, train_labels=scenario.train_labels.copy()))
    assert not same(scenario, replace(scenario, held=scenario.held[::-1]))
    assert not same(scenario, replace(scenario, views={**scenario.views, "fa": scenario.views["ra"]}))
    assert not same(np.array([0.0], np.float32), np.array([-0.0], np.float32))
    assert not same(np.zeros(2, np.float32), np.zeros(2, np.float64))
    assert not same(BASE, None)

"""One contract for both pools: whatever RayPool computes equals LocalPool's result bit for bit.

However clients are packed, on however many nodes, and also when an actor is killed in the middle of a round.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray import models
from fused_ray.config import RunConfig
from fused_ray.core import state
from fused_ray.core.lease import Lease
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.pools import ClientPool, LocalPool
from fused_ray.core.rounds import Federation, Saved
from fused_ray.core.simulation import Outcome, simulate
from fused_ray.core.work import Update
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.data.partitions import digest
from fused_ray.engine.pool import RayPool
from fused_ray.errors import ClientFailedError
from fused_ray.types import ImageData, Payload, Scenario, TestView

BATCH = 32


@dataclass(frozen=True)
class Case:
    """A small federation with clients whose size modulo the batch is 0, 1, 2, 3 and more."""

    config: RunConfig
    data: ImageData
    scenario: Scenario


def make_case(clients: int, scenario: str, *more: str) -> Case:
    fields = [
        f"federation.clients={clients}",
        f"train.batch_size={BATCH}",
        "data.limit=2000",
        "data.min_examples=1",
        "pretrain.rounds=2",
        "unlearn.rounds=2",
        "retrain.rounds=1",
        "unlearn.layers=2",
        "unlearn.selection=critical",
        "unlearn.sparsity=0.5",
        "unlearn.mask=random",
        "unlearn.saliency=forget",
        "unlearn.start=zero",
        f"forget.scenario={scenario}",
        *more,
    ]
    config = RunConfig.from_dict({}, fields)
    data = datasets.load(config.data, 0)
    if scenario != "class":
        found = scenarios.build(config, data)
        return Case(config, scenarios.extended(config, data, found), found)
    sizes = [BATCH + 1, BATCH + 2, BATCH + 3, BATCH, 1, 2 * BATCH + 1, 5]
    sizes = [sizes[k % len(sizes)] for k in range(clients)]
    cuts = np.cumsum(sizes)
    order = np.random.Generator(np.random.PCG64(7)).permutation(len(data.train_labels))[: cuts[-1]]
    held = tuple(np.sort(part) for part in np.split(order, cuts[:-1]))
    test = data.test_labels
    views = {
        name: TestView(np.flatnonzero(chosen), test[chosen]) for name, chosen in (("ra", test != 0), ("fa", test == 0))
    }
    retained = tuple(part[data.train_labels[part] != 0] for part in held)
    return Case(config, data, Scenario(held, retained, data.train_labels, views, digest(held)))


def deep_case(*fields: str) -> Case:
    """Three clients with 8, 9 and 7 coloured images of 8 x 8 pixels; class 0 is forgotten."""
    common = ["federation.clients=3", "train.batch_size=4", "pretrain.rounds=1", "unlearn.rounds=2", "retrain.rounds=0"]
    common += ["unlearn.selection=critical", "unlearn.sparsity=0.5", "unlearn.mask=random", "unlearn.start=zero"]
    config = RunConfig.from_dict({}, [*common, *fields])
    random, labels = np.random.Generator(np.random.PCG64(3)), np.arange(24) % 3
    images = random.integers(0, 256, (24, 3, 8, 8), np.uint8)
    data = ImageData("noise", 3, (0.5,) * 3, (0.3,) * 3, images, labels, images[:9], labels[:9])
    held = tuple(np.split(np.arange(24), [8, 17]))
    views = {"ra": TestView(np.array([1, 2]), labels[1:3]), "fa": TestView(np.array([0]), labels[:1])}
    retained = tuple(part[labels[part] != 0] for part in held)
    return Case(config, data, Scenario(held, retained, labels, views, digest(held)))


def outcome_of(
    case: Case,
    make_pool: Callable[[RunConfig, ImageData, Scenario], ClientPool],
    packing: int | str = "auto",
    recorder: MemoryRecorder | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, bytes]]:
    """Everything of a simulation that must not depend on the pool."""
    values = case.config.model_dump(mode="json", by_alias=True)
    config = RunConfig.from_dict(values, [f"federation.clients_per_actor={packing}"])
    recorder = recorder or MemoryRecorder()
    with contextlib.closing(make_pool(config, case.data, case.scenario)) as pool:
        found = simulate(config, case.data, case.scenario, pool, recorder)
    rounds = [{k: v for k, v in asdict(r).items() if not k.endswith("_seconds")} for r in recorder.records]
    payloads = {phase: saved.payload.values.tobytes() for phase, saved in recorder.saved.items()}
    return _facts(found), rounds, payloads


def _facts(found: Outcome) -> dict[str, Any]:
    return {
        "hashes": (found.base_hash, found.unlearned_hash, found.restored_hash),
        "metrics": (found.before, found.unlearned.start_metrics, found.unlearned.metrics, found.retrained),
        "adapter": found.unlearned.values is not None and found.unlearned.values.tobytes(),
        "masks": found.unlearned.adapter and found.unlearned.adapter.digest,
        "ranking": found.unlearned.ranking,
        "fingerprints": {identity.fingerprint for identity in found.identities},
    }


class KillingRecorder(MemoryRecorder):
    """Kills a client actor's process in the middle of a round of each phase."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: RayPool | None = None
        self.killed: list[str] = []
        self._phase = ""

    def make_pool(self, config: RunConfig, data: ImageData, scenario: Scenario) -> RayPool:
        self.pool = RayPool(config, data, scenario)
        return self.pool

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self._phase = phase

    def clients_done(self, count: int) -> None:
        if count and self._phase not in self.killed:
            self.killed.append(self._phase)
            assert self.pool is not None
            os.kill(self.pool.identities[-1].pid, signal.SIGKILL)


@dataclass(frozen=True)
class Deadly(FullTraining):
    """Client 5's work kills its process, as running out of memory would."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        if client == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(space, payload, client)


@dataclass(frozen=True)
class Slow(FullTraining):
    """Clients 0 and 1 take 1.2 s each, client 5 hangs."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        time.sleep({0: 1.2, 1: 1.2, 5: 60.0}.get(client, 0.0))
        return Update(payload, 0.0)


@dataclass(frozen=True)
class Careless(FullTraining):
    """Client 5's work leaves something behind in the base; the others' only use it."""

    @torch.no_grad()
    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        space.use_base()
        if client == 5:
            space.model.get_parameter("fc1.bias")[0] += 1e-6
        return Update(payload, 0.0)


@pytest.fixture(scope="module")
def small() -> Case:
    return make_case(8, "class")


@pytest.fixture(scope="module")
def expected(small: Case) -> Any:
    return outcome_of(small, LocalPool)


@pytest.fixture(scope="module")
def second_node(cluster: Any) -> Iterator[None]:
    from tests.conftest import STORE, WITH_PLUGIN

    node = cluster.add_node(num_cpus=2, object_store_memory=STORE, env_vars=WITH_PLUGIN)
    cluster.wait_for_nodes()
    yield
    cluster.remove_node(node)


def test_removal_is_exact_and_changes_something(expected: Any) -> None:
    base, unlearned, restored = expected[0]["hashes"]
    assert base == restored != unlearned


@pytest.mark.parametrize("packing", [5, 8, "auto"])
def test_any_packing_gives_the_plain_loops_bits(cluster: Any, small: Case, expected: Any, packing: int | str) -> None:
    assert outcome_of(small, RayPool, packing) == expected


def test_a_killed_actor_changes_no_bit(cluster: Any, small: Case, expected: Any) -> None:
    recorder = KillingRecorder()
    assert outcome_of(small, recorder.make_pool, 4, recorder) == expected
    assert recorder.killed == ["pretrain", "rank", "unlearn", "retrain"]


def test_two_nodes_and_an_actor_for_each_client_give_the_same_bits(
    cluster: Any, small: Case, expected: Any, second_node: None
) -> None:
    assert outcome_of(small, RayPool, 1) == expected


KINDS = {
    "lora": ("exclusive", ["unlearn.adapter=lora"]),
    "saliency": ("client", ["forget.poison=false", "unlearn.mask=saliency", "unlearn.budget=85"]),
    "difference": ("sample", ["unlearn.mask=saliency", "unlearn.saliency=difference"]),
    "int8": ("client", ["unlearn.wire=int8", "unlearn.layers=[fc3]", "unlearn.rounds=3"]),
    "some are absent": (
        "client",
        [
            *("federation.participation=0.5", "federation.sampling=weighted", "unlearn.participation=2"),
            *("unlearn.wire=int8", "unlearn.layers=[fc3]", "unlearn.rounds=3"),
        ],
    ),
    "optimisers": (
        "client",
        [
            *("train.optimiser=adam", "train.lr=0.003", "train.local_steps=3", "train.schedule=cosine"),
            *("train.proximal=0.01", "federation.server=fedadam", "federation.aggregate=trimmed"),
            *("federation.aggregate_args.share=0.2", "unlearn.layers=[fc3]"),
        ],
    ),
    "another package's": (
        "fused_ray_plugin.text.author:SCENARIO",
        [
            *("data.name=fused_ray_plugin.text.documents:DATASET", "data.args.train=300", "data.limit=null"),
            *("data.partition=fused_ray_plugin.text.sources:PARTITION", "unlearn.args.strength=0.1"),
            *("model.factory=fused_ray_plugin.text.model:two_layers", "train.lr=0.002", "pretrain.rounds=3"),
            *("unlearn.method=fused_ray_plugin.methods.ridge:METHOD", "train.schedule_args.every=2"),
            *("train.optimiser=fused_ray_plugin.training.rmsprop:CLIENT", "federation.server_args.lr=0.05"),
            *("train.schedule=fused_ray_plugin.training.restarts:SCHEDULE", "federation.aggregate_args.steps=3"),
            *("federation.aggregate=fused_ray_plugin.training.geometric_median:AGGREGATE",),
            *("federation.server=fused_ray_plugin.training.fedyogi:SERVER",),
        ],
    ),
    "another package's kind of adapter": ("client", ["unlearn.adapter=fused_ray_plugin.adapters.scales:KIND"]),
    "another package's mask and start": (
        "client",
        [
            *("unlearn.selection=fused_ray_plugin.adapters.every:SELECTION", "unlearn.selection_args.step=3"),
            *("unlearn.mask=fused_ray_plugin.adapters.magnitude:MASK", "unlearn.sparsity=0.8"),
            *("unlearn.start=fused_ray_plugin.adapters.shrink:START", "unlearn.start_args.share=0.75"),
        ],
    ),
    "random views": ("client", ["data.limit=300", "data.augment=crop-flip", "train.local_epochs=2"]),
}
DEEP = {
    "resnet18": ["model.name=resnet18", "unlearn.layers=[layer4.1.conv2, layer4.1.bn2, fc]", "unlearn.wire=int8"],
    "simplevit": [
        "model.name=simplevit",
        "unlearn.selection=budget",
        "unlearn.budget=5000",
        "unlearn.input_layer=true",
    ],
}


@pytest.mark.slow
def test_every_scenario_kind_of_adapter_and_model_gives_the_same_bits_on_one_warm_pool(cluster: Any) -> None:
    with contextlib.closing(Lease(RayPool)) as warm:
        for name, (scenario, fields) in KINDS.items():
            case = make_case(6, scenario, "data.limit=600", *fields)
            assert outcome_of(case, warm, 3) == outcome_of(case, LocalPool), name
        for name, fields in DEEP.items():
            case = deep_case(*fields)
            expected = outcome_of(case, LocalPool)
            assert outcome_of(case, warm, 2) == expected, name
            base, unlearned, restored = expected[0]["hashes"]
            assert base == restored != unlearned, name


def test_random_views_differ_from_the_images() -> None:
    scenario, fields = KINDS["random views"]
    case = make_case(6, scenario, *fields)
    plain = RunConfig.from_dict(case.config.model_dump(mode="json", by_alias=True), ["data.augment=none"])
    found, without = (outcome_of(Case(c, case.data, case.scenario), LocalPool) for c in (case.config, plain))
    assert found[0]["hashes"] != without[0]["hashes"]


@pytest.mark.slow
def test_a_killed_actor_changes_no_bit_of_what_int8_keeps_back(cluster: Any) -> None:
    case = make_case(6, "client", "data.limit=600", "unlearn.wire=int8", "unlearn.layers=[fc3]", "retrain.rounds=0")
    recorder = KillingRecorder()
    found = outcome_of(case, recorder.make_pool, 3, recorder)
    expected = MemoryRecorder()
    assert found == outcome_of(case, LocalPool, recorder=expected)
    assert recorder.killed == ["pretrain", "unlearn"]
    states = [{c: s.tobytes() for c, s in r.saved["unlearn"].states.items()} for r in (recorder, expected)]
    assert states[0] == states[1]
    assert len(states[0]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("packing", [1, 3])
@pytest.mark.parametrize("name", DEEP)
def test_deep_models_give_the_same_bits_under_any_packing(cluster: Any, name: str, packing: int) -> None:
    case = deep_case(*DEEP[name])
    assert outcome_of(case, RayPool, packing) == outcome_of(case, LocalPool)


def test_a_client_that_kills_its_actor_again_and_again_is_named(cluster: Any, small: Case) -> None:
    with contextlib.closing(RayPool(small.config, small.data, small.scenario)) as pool:
        payload = state.read(models.initialise("lenet", (1, 28, 28), 10, 0, "init/test"))
        with pytest.raises(ClientFailedError, match=r"client 5, .*its actor died 3 times"):
            list(
                pool.train(Deadly("pretrain", 1, 0, small.config.train, "held"), payload, range(8), lambda count: None)
            )


def test_a_client_that_hangs_is_named_and_clients_that_share_a_call_have_their_time_each(
    cluster: Any, small: Case
) -> None:
    fields = ["engine.client_timeout=2", "federation.clients_per_actor=8"]
    config = RunConfig.from_dict(small.config.model_dump(mode="json", by_alias=True), fields)
    done: list[int] = []
    with contextlib.closing(RayPool(config, small.data, small.scenario)) as pool:
        payload = state.read(models.initialise("lenet", (1, 28, 28), 10, 0, "init/test"))
        work = Slow("pretrain", 1, 0, config.train, "held")
        list(pool.train(work, payload, [4], lambda count: None))  # the first one waits for imports
        with pytest.raises(ClientFailedError, match=r"longer than 2 s each .engine\.client_timeout.: \[5\] on node"):
            list(pool.train(work, payload, (0, 1, 2, 3, 5), done.append))
    assert [count for count in done if count] == [2, 2]  # the first call took 2.4 s


def without_client_5(small: Case, kind: type[FullTraining], *fields: str) -> None:
    """A round goes on without a client: the sum is the others', exactly, and the record tells."""
    given = ["federation.on_failure=skip", "federation.clients_per_actor=4", *fields]
    config = RunConfig.from_dict(small.config.model_dump(mode="json", by_alias=True), given)
    payload = state.read(models.initialise("lenet", (1, 28, 28), 10, 0, "init/test"))
    work, others, recorder = kind("pretrain", 1, 0, config.train, "held"), [0, 1, 2, 3, 4, 6, 7], MemoryRecorder()

    def conclude(total: Any) -> Saved:
        return Saved(round=1, payload=Payload(total.total.astype(np.float32)), metrics={})

    with contextlib.closing(RayPool(config, small.data, small.scenario)) as pool:
        list(pool.train(work, payload, [4], lambda count: None))  # the first one waits for imports
        found = Federation(config, small.data, small.scenario, pool, recorder).ask(work, payload, range(8), conclude)
    (record,) = recorder.records
    assert (record.clients_expected, record.clients_received, record.clients_used) == (8, 7, 7)
    local = LocalPool(config, small.data, small.scenario)
    alone = Federation(config, small.data, small.scenario, local, MemoryRecorder())
    assert found.payload.values.tobytes() == alone.ask(work, payload, others, conclude).payload.values.tobytes()


def test_a_client_that_kills_its_actor_is_left_out_where_the_run_goes_on(cluster: Any, small: Case) -> None:
    """What its actor had computed before died with it, and is in the sum all the same."""
    without_client_5(small, Deadly, "engine.max_attempts=2")


@pytest.mark.slow
def test_a_client_that_is_late_is_left_out_where_the_run_goes_on(cluster: Any, small: Case) -> None:
    without_client_5(small, Slow, "engine.client_timeout=2")


@pytest.mark.slow
def test_a_round_in_which_everybody_fails_ends_the_run(cluster: Any, small: Case) -> None:
    given = ["federation.on_failure=skip", "engine.max_attempts=1"]
    config = RunConfig.from_dict(small.config.model_dump(mode="json", by_alias=True), given)
    payload = state.read(models.initialise("lenet", (1, 28, 28), 10, 0, "init/test"))
    with contextlib.closing(RayPool(config, small.data, small.scenario)) as pool:
        federation = Federation(config, small.data, small.scenario, pool, MemoryRecorder())
        with pytest.raises(ClientFailedError, match=r"pretrain round 1: every client failed"):
            federation.gather(Deadly("pretrain", 1, 0, config.train, "held"), payload, [5])


def test_every_actor_proves_its_base_as_it_lies(cluster: Any, small: Case) -> None:
    base = models.initialise("lenet", (1, 28, 28), 10, 0, "init/test")
    expected, payload = state.state_hash(state.arrays(base)), state.read(base)
    with contextlib.closing(RayPool(small.config, small.data, small.scenario)) as pool:
        pool.install(payload)
        assert pool.base_hashes() == [[expected]] * len(pool.identities)
        work = Careless("unlearn", 1, 0, small.config.train, "held")
        list(pool.train(work, payload, range(8), lambda count: None))
        for clients, (stored, live) in zip(pool._plan.clients, pool.base_hashes(), strict=True):
            assert stored == expected
            assert (live == expected) == (5 not in clients)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("packing", [1, 7, 50])
def test_fifty_clients(cluster: Any, second_node: None, packing: int) -> None:
    case = make_case(50, "class")
    recorder = KillingRecorder()
    assert outcome_of(case, recorder.make_pool, packing, recorder) == outcome_of(case, LocalPool)

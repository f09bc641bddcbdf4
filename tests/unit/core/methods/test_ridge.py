"""The ridge head: by hand, against numpy's solution, and bit for bit the head of those that never had the data."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from fused_ray import models
from fused_ray.audit.verdict import Figures, judge
from fused_ray.config.parts.models import MODELS, ModelInfo
from fused_ray.core import herding, methods, state
from fused_ray.core.methods import ridge
from fused_ray.core.model_check import check_model
from fused_ray.core.rounds import Federation
from fused_ray.core.standard import standard
from fused_ray.core.wire import values_bytes
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ConfigError, NumericsError
from fused_ray.types import Payload, Scenario


def one(g: float, h: float, penalty: float = 1.0) -> float:
    """W of one feature and one output."""
    return float(ridge.solved(np.array([[g]]), np.array([[h]]), penalty)[0, 0])


def test_by_hand_two_clients_and_one_without_the_other() -> None:
    """x, y of client 1: (1, 1), (2, 3); of client 2: (1, 0). No bias, lambda 1."""
    g, h = 1 + 4 + 1, 1 + 6 + 0
    assert (g, h, one(g, h)) == (6, 7, pytest.approx(1))
    assert one(g - 1, h - 0) == pytest.approx(7 / 6)
    # Woodbury, from the inverse 1 / 7 and the deleted row u = 1
    assert pytest.approx(1 / 6) == 1 / 7 + (1 / 49) / (1 - 1 / 7)
    assert one(g - 1, 1) == pytest.approx(1 / 6)


def test_afls_form_gives_the_same_numbers() -> None:
    """Clients send W_k and C_k = G_k + gamma I, gamma 1; the server merges, and takes gamma away at the end."""
    w1, w2 = one(5, 7, 1), one(1, 0, 1)
    assert (w1, w2) == (pytest.approx(7 / 6), 0)
    merged = (6 * w1 + 2 * w2) / (6 + 2)
    assert merged == pytest.approx(0.875)
    assert (6 + 2) * merged / (6 + 2 - 2) == pytest.approx(7 / 6) == one(6, 7, 0)


@pytest.mark.parametrize(("d", "bytes"), [(85, 36_040), (513, 1_095_768)])
def test_the_bytes_of_a_message(d: int, bytes: int) -> None:
    work = ridge.Products("head", "held", "fc", d, 10)
    assert 8 * work.size == bytes
    assert bytes < work.upload_bytes(Payload(np.zeros(0, np.float32))) < bytes + 100


def test_it_is_the_pooled_solution() -> None:
    random = np.random.default_rng(0)
    phi, labels = random.normal(size=(400, 30)).clip(0), random.integers(0, 4, 400)
    exact = np.c_[phi, np.ones(400)]
    pooled = np.linalg.solve(exact.T @ exact + np.eye(31), exact.T @ np.eye(4)[labels])
    parts = [
        ridge.products(ridge.rounded(phi[part], "test"), labels[part], 4)
        for part in (np.s_[:100], np.s_[100:130], np.s_[130:])
    ]
    gram, moments = ridge.unpacked(sum(parts), 31, 4)
    assert np.allclose(gram, exact.T @ exact, rtol=1e-3, atol=0.02)  # features are rounded to 2**-12
    found = ridge.solved(gram, moments, 1.0)
    assert np.allclose(found, np.linalg.solve(gram + np.eye(31), moments), rtol=0, atol=1e-12)
    assert np.allclose(found, pooled, rtol=0, atol=1e-4)


def test_whatever_the_order_and_the_partition() -> None:
    random = np.random.default_rng(1)
    phi, labels = random.normal(size=(90, 7)) * 50, random.integers(0, 3, 90)

    def sums(rows: Any) -> Any:
        return ridge.products(ridge.rounded(phi[rows], "test"), labels[rows], 3)

    whole = sums(np.arange(90))
    assert np.array_equal(whole, sums(np.arange(90)[::-1]))
    assert np.array_equal(whole, sum(sums([row]) for row in random.permutation(90)))
    assert np.array_equal(whole - sums(np.arange(30)), sums(np.arange(30, 90)))


def test_whole_numbers_come_back_from_an_update() -> None:
    sums = np.array([0, 1, -1, 2**62 - 1, -(2**62), 123_456_789_012_345, -987_654_321_098_765])
    carried = ridge.limbs(sums)
    assert carried.dtype == np.float32
    assert np.abs(carried).max() <= 2**10
    assert np.array_equal(ridge.whole(carried), sums)


def test_what_is_singular_or_too_large_is_refused() -> None:
    with pytest.raises(NumericsError, match=r"raise ridge\.penalty"):
        ridge.solved(np.zeros((2, 2)), np.zeros((2, 1)), 0.0)
    with pytest.raises(NumericsError, match="a feature is 600, and ridge takes them up to 512"):
        ridge.rounded(np.array([[600.0]]), "client 0, head")


def test_a_class_of_which_nothing_is_left_is_masked() -> None:
    base = {"fc.weight": np.ones((2, 1), np.float32), "fc.bias": np.ones(2, np.float32)}
    found = ridge.with_head(base, "fc", np.array([[0.5, 0.0], [0.25, 0.0]]))
    assert found["fc.bias"].tolist() == [0.25, ridge.MASKED]
    assert found["fc.weight"].tolist() == [[0.5], [0.0]]


@pytest.fixture(scope="module")
def based(federate: Callable[..., Federation], pretrained: Any) -> tuple[Callable[..., Any], Any]:
    """`unlearned(on, ...)` from one M_r, and that M_r: the same features."""
    first = federate("unlearn.method=ridge")
    base = pretrained(first)

    def make(on: Any, *more: str) -> tuple[Federation, Any]:
        federation = federate("unlearn.method=ridge", *more, on=on)
        federation.pool.install(state.flatten(base))
        return federation, methods.unlearn(federation, base)

    return make, base


def test_a_deleted_client_leaves_the_very_bits_of_a_head_that_never_had_it(based: Any, gone: Any) -> None:
    unlearned, base = based
    federation, found = unlearned(gone)
    never = dataclasses.replace(gone, held=gone.retained)
    _, alone = unlearned(never)
    assert state.state_hash(found.state) == state.state_hash(alone.state)
    _, before = unlearned(dataclasses.replace(gone, retained=gone.held))
    assert state.state_hash(before.state) != state.state_hash(found.state)
    assert found.before == before.metrics
    # the features are those of M_r
    assert {name for name in base if not np.array_equal(base[name], found.state[name])} == {"fc.weight", "fc.bias"}
    (record,) = federation.recorder.records
    assert (record.phase, record.clients_used, len(record.once)) == ("head", 5, 5)
    assert record.bytes_up == ridge.Products("head", "held", "fc", 129, 4).upload_bytes(Payload(np.zeros(0)))
    assert min(record.once.values()) > values_bytes(570)  # M_r


def test_so_do_a_class_and_the_examples_of_clients_that_keep_others(based: Any, scenario: Any) -> None:
    unlearned, _ = based
    federation, found = unlearned(scenario, "forget.scenario=class")
    _, alone = unlearned(dataclasses.replace(scenario, held=scenario.retained), "forget.scenario=class")
    assert state.state_hash(found.state) == state.state_hash(alone.state)
    assert [(r.phase, r.clients_used, len(r.once)) for r in federation.recorder.records] == [
        *(("head", 5, 5), ("unlearn", 5, 0))
    ]
    assert found.metrics["fa"] == 0 < found.start_metrics["fa"]
    assert found.state["fc.bias"][0] == ridge.MASKED
    assert found.metrics["ra"] > 0.8


def test_who_never_sent_a_message_is_not_subtracted(based: Any, scenario: Any) -> None:
    unlearned, _ = based
    federation, found = unlearned(scenario, "forget.scenario=class", "federation.participation=0.4")
    head, last = federation.recorder.records
    assert head.clients_used == last.clients_used == 2
    some = federation.recorder.rounds["head", 1].figures["clients"]
    rest = [part if client in some else part[:0] for client, part in enumerate(scenario.retained)]
    _, alone = unlearned(dataclasses.replace(scenario, held=rest, retained=rest), "forget.scenario=class")
    assert state.state_hash(found.state) == state.state_hash(alone.state)


def test_an_audit_never_calls_it_forgotten() -> None:
    """Its outputs may be those of retraining: nothing below the output layer changed."""
    level = {"classes": 10, "ra_before": 0.8, "fa_before": 0.9, "ra_retrained": 0.8, "fa_retrained": 0.0}
    found = judge(Figures(ra=0.8, fa=0.0, head_only=True, **level))
    assert (found.word, "head only" in found.sentence) == ("shallow", True)


@pytest.mark.parametrize("count", [1, 2, 3, 51])
def test_an_example_has_the_same_features_in_whatever_message(make_config: Any, make_data: Any, count: int) -> None:
    """Few rows alone are multiplied by other kernels; a request about three examples must take away what was added."""
    config, data = make_config("unlearn.method=ridge"), make_data(250, classes=10)
    scenario = types.SimpleNamespace(train_labels=data.train_labels)
    with standard():
        space = Workspace(config, data, cast(Scenario, scenario))
        space.install(state.flatten(state.arrays(models.initialise(config.model, data.shape, 10, 0, "init/test"))))
        space.use_base()
        rows = np.random.default_rng(0).choice(250, count, replace=False)
        together = herding.features(space, "fc3", np.arange(250))
        assert np.array_equal(herding.features(space, "fc3", rows), together[rows])


def test_messages_that_do_not_fit_are_refused_before_anything_starts(make_config: Any) -> None:
    """LeNet's last layer has 84 features, and so a message 4,505 whole numbers, each carried by three values."""
    exact = 20 * 3 * 4505 * 4 / 1e6
    fields = (f"engine.aggregate_memory_mb={mb}" for mb in (exact, exact - 0.1))
    fits, not_ = (make_config("unlearn.method=ridge", field) for field in fields)
    check_model(fits, (1, 28, 28), 10)
    said = r"unlearn\.method: ridge needs every update at once, 20 clients x 13,515 values x 4 bytes = 1\.1 MB"
    with pytest.raises(ConfigError, match=said):
        check_model(not_, (1, 28, 28), 10)


class Bare(nn.Module):
    """Its last layer has no bias."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(math.prod(shape), classes, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(torch.flatten(x, 1))


def test_a_last_layer_without_a_bias_is_refused(federate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "bare", ModelInfo(("fc",), f"{__name__}:Bare"))
    federation = federate("unlearn.method=ridge", "model.name=bare", "unlearn.layers=1")
    with pytest.raises(ConfigError, match=r"ridge takes a last layer that is linear with a bias; fc of .*bare is not"):
        ridge.output_layer(federation)

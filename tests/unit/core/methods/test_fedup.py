"""FedUP: its loss by hand, what clients send, and a bottleneck that leaves no trace when it is closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray import models
from fused_ray.audit.yardstick import changed_head_alone
from fused_ray.config import ModelConfig, RunConfig
from fused_ray.core import herding, methods, state
from fused_ray.core.methods import fedup
from fused_ray.core.rounds import Federation
from fused_ray.core.server import check_messages
from fused_ray.core.wire import values_bytes
from fused_ray.errors import ConfigError
from fused_ray.models.bottleneck import passed
from fused_ray.types import Payload

PLACE = ("model.factory=fused_ray.models.bottleneck:build", "model.args={name: tiny, width: 8}")
Z, DOWN, UP = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [0.0]])


def test_the_loss_by_hand() -> None:
    """One unit: a(z) = (3, 0); the head is the identity, and the label 0."""
    head = [torch.eye(2)]
    assert passed(Z, DOWN, UP).tolist() == [[3, 0]]
    cross_entropy, squares = torch.log1p(torch.exp(torch.tensor(-3.0))).item(), (2**2 + 2**2) / 2
    assert (cross_entropy, squares) == (pytest.approx(0.0486, abs=5e-5), 4)
    assert fedup.objective(Z, torch.tensor([0]), [DOWN, UP], head).item() == pytest.approx(2.0243, abs=5e-5)


def test_both_maps_end_in_a_relu() -> None:
    assert passed(Z, -DOWN, UP).tolist() == [[0, 0]]
    assert passed(Z, DOWN, -UP).tolist() == [[0, 0]]


@pytest.mark.parametrize(("share", "bytes"), [(0.8, 1_638_400), (0.1, 204_800)])
def test_the_bytes_of_a_message(share: float, bytes: int) -> None:
    """A client with a thousand examples of one class, 512 features; the bottleneck itself is 131,072 bytes."""
    sent = int(np.ceil(share * 1000))
    work = fedup.Centroids("centroids", "retained", 0, "fc", 512, 10, share, sent, sent, ())
    assert bytes < work.upload_bytes(Payload(np.zeros(0, np.float32))) == values_bytes(sent * 512) < bytes + 100
    assert sum(4 * map_.numel() for map_ in (fedup.begun((32, 512), 0, "down"), fedup.begun((512, 32), 0, "up"))) == (
        131_072
    )


def test_centroids_of_two_heaps() -> None:
    """Of the starts, one with both points in one heap would stay there; the other finds both means."""
    points = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2], [10, 4]])
    found = fedup.kmeans(points, [np.array([0, 1]), np.array([1, 3])])
    assert sorted(found.tolist()) == [[0, 1], [10, 2]]
    assert fedup.kmeans(points, [np.arange(5)]).tolist() == points.tolist()


def test_a_class_with_one_example_sends_that() -> None:
    assert fedup.kmeans(np.array([[3.0, 4]]), [np.array([0])]).tolist() == [[3, 4]]


def test_a_class_to_be_forgotten_has_another_label_for_each_client() -> None:
    work = fedup.Centroids("centroids", "held", 0, "fc", 2, 4, 0.1, 3, 3, (1,))
    drawn = [work.label(1, client) for client in range(50)]
    assert {*drawn} == {0, 2, 3}
    assert [work.label(label, 0) for label in (0, 2, 3)] == [0, 2, 3]
    z, y = work.read(7, np.arange(6, dtype=np.float32), [1.0, 1.0, 0.0, 0.0])
    assert (z.tolist(), y.tolist()) == ([[0, 1], [2, 3]], [0, work.label(1, 7)])


def test_a_closed_bottleneck_leaves_the_models_bits() -> None:
    plain = ModelConfig(name="tiny")
    placed = RunConfig.from_dict({}, PLACE).model
    shape = (1, 28, 28)
    one, other = (models.initialise(config, shape, 4, 0, "test").eval() for config in (plain, placed))
    x = torch.from_numpy(np.random.default_rng(0).random((5, *shape), np.float32))
    assert torch.equal(one(x), other(x))
    other.fc.bottleneck.open += 1
    assert other(x).unique(dim=0).shape == (1, 4)  # its maps are zero, so that the bias is left


@pytest.fixture(scope="module")
def based(federate: Callable[..., Federation], pretrained: Any) -> tuple[Callable[..., Any], Any]:
    """`unlearned(on, ...)` from one M_r, and that M_r."""
    base = pretrained(federate("unlearn.method=fedup", *PLACE))

    def make(on: Any, *more: str) -> tuple[Federation, Any]:
        federation = federate("unlearn.method=fedup", *PLACE, "fedup.epochs=3", *more, on=on)
        federation.pool.install(state.flatten(base))
        return federation, methods.unlearn(federation, base)

    return make, base


def test_nothing_but_the_bottleneck_changes_and_closing_it_gives_the_model_back(based: Any, gone: Any) -> None:
    unlearned, base = based
    federation, found = unlearned(gone)
    own = {f"fc.bottleneck.{name}" for name in ("down", "up", "open")}
    assert {name for name in base if not np.array_equal(base[name], found.state[name])} == own
    closed = {**found.state, **{name: base[name] for name in own}}
    assert state.state_hash(closed) == state.state_hash(base)
    # with the gate alone closed, whatever the maps are, the answers are those of M_r
    shut = state.flatten({**found.state, "fc.bottleneck.open": base["fc.bottleneck.open"]})
    before = federation.pool.evaluate(fedup.ModelEvaluation(), state.flatten(base))
    assert np.array_equal(federation.pool.evaluate(fedup.ModelEvaluation(), shut), before)


def test_who_sends_what(based: Any, gone: Any, space_of: Any) -> None:
    unlearned, base = based
    federation, found = unlearned(gone, "fedup.share=0.25")
    (record,) = federation.recorder.records
    assert (record.phase, record.clients_used, sorted(record.once)) == ("centroids", 3, [0, 2, 4])
    counts = [np.bincount(gone.train_labels[gone.retained[client]], minlength=4) for client in (0, 2, 4)]
    each = [int(np.ceil(0.25 * count).sum()) for count in counts]
    assert found.figures == {"centroids": sum(each)}
    assert record.bytes_up == values_bytes(round(sum(each) / 3) * 128)
    # of one client and class, by k-means over its features
    work, space = fedup.asking(federation, base, "fc"), space_of(federation)
    space.install(state.flatten(base))
    update = work.update(space, Payload(np.zeros(0, np.float32)), 2)
    z, y = work.read(2, update.payload.values, update.figures)
    assert np.bincount(y, minlength=4).tolist() == np.ceil(0.25 * counts[1]).astype(int).tolist()
    rows = gone.retained[2][gone.train_labels[gone.retained[2]] == 0]
    features = herding.features(space, "fc", rows)
    assert z[y == 0].mean(0) == pytest.approx(features.mean(0), abs=0.5)


def test_training_brings_the_loss_down(based: Any, gone: Any) -> None:
    unlearned, base = based
    federation, _ = unlearned(gone)
    z = np.abs(np.random.default_rng(0).normal(size=(40, 128))).astype(np.float32)
    examples = z, np.arange(40) % 4
    head = [torch.tensor(base["fc.weight"]), torch.tensor(base["fc.bias"])]

    def loss(epochs: int) -> float:
        settings = federation.config.fedup.model_copy(update={"epochs": epochs, "lr": 0.1})
        maps = [torch.tensor(part) for part in fedup.trained(base, "fc", examples, settings, 0)]
        return fedup.objective(*(torch.from_numpy(part) for part in examples), maps, head).item()

    assert loss(20) < loss(1) - 0.1


def test_the_last_part_batch_is_left_out(based: Any, gone: Any) -> None:
    unlearned, base = based
    federation, _ = unlearned(gone)
    settings = federation.config.fedup.model_copy(update={"epochs": 1, "batch_size": 4})
    z, y = np.ones((6, 128), np.float32), np.zeros(6, np.int64)
    once = fedup.trained(base, "fc", (z[:4], y[:4]), settings, 0)
    again = fedup.trained(base, "fc", (z, y), settings, 0)
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))  # all rows alike: one step each


def test_it_forgets_a_class_by_other_labels(based: Any, scenario: Any) -> None:
    unlearned, _ = based
    federation, found = unlearned(scenario, "forget.scenario=class", "fedup.epochs=20", "fedup.lr=0.1")
    assert federation.recorder.records[0].clients_used == 5
    assert found.metrics["fa"] < 0.1 < found.start_metrics["fa"]


def test_a_model_without_the_place_is_refused(federate: Any) -> None:
    federation = federate("unlearn.method=fedup")
    with pytest.raises(ConfigError, match=r"tiny has no place for it; set model\.factory=fused_ray"):
        fedup.place(federation)


def test_messages_that_do_not_fit_are_refused(make_config: Any) -> None:
    config = make_config("unlearn.method=fedup", "engine.aggregate_memory_mb=1")
    check_messages(config, 10, 25_000)
    with pytest.raises(ConfigError, match=r"unlearn\.method: fedup needs every update at once, 10 clients x 25,001"):
        check_messages(config, 10, 25_001)


def test_an_audit_says_head_only(based: Any, gone: Any) -> None:
    """What changed lies behind the features, though not in the layer's weight."""
    unlearned, base = based
    _, found = unlearned(gone)
    assert changed_head_alone(base, found.state, "fc")
    assert not changed_head_alone(base, {**found.state, "conv.bias": base["conv.bias"] + 1}, "fc")
    assert not changed_head_alone(base, dict(base), "fc")


def test_the_share_is_the_papers_by_the_scenario(make_config: Any) -> None:
    shares = {name: make_config(f"forget.scenario={name}").fedup_share for name in ("client", "class", "sample")}
    assert shares == {"client": 0.8, "class": 0.1, "sample": 0.5}

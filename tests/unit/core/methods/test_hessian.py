"""Hessian-selected reset: information and the diagonal by hand, the choice, and the rounds that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray.core import methods, state, wire
from fused_ray.core.methods import hessian
from fused_ray.core.rounds import Federation
from fused_ray.errors import ConfigError
from fused_ray.seeding import bits
from fused_ray.types import Payload

H = np.array([[1.0, 3.0], [3.0, 1.0]])


def test_information_by_hand() -> None:
    assert hessian.information(H[0], H.sum(0)).tolist() == [0.03125, 0.28125]
    assert hessian.information(np.zeros(2), np.zeros(2)).tolist() == [0, 0]  # dead units


def test_of_clients_that_are_alike_every_value_has_the_same() -> None:
    alike = np.array([0.5, 7.0, 1e-9])
    assert hessian.information(alike, 5 * alike) == pytest.approx(np.full(3, 1 / 50))


def test_a_share_of_each_layer_is_chosen_and_nothing_without_information() -> None:
    base = {"a.weight": np.ones((2, 5), np.float32), "b.weight": np.ones((1, 4), np.float32)}
    info = np.array([0.1, 0.3, 0, 0.2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.4])
    found = hessian.chosen(base, ["a", "b"], info, 0.5)
    assert [(mask.layer, mask.positions.tolist()) for mask in found.layers] == [("a", [0, 1, 3]), ("b", [3])]
    few = hessian.chosen(base, ["a", "b"], info, 0.2)
    assert [(mask.layer, mask.positions.tolist()) for mask in few.layers] == [("a", [1, 3])]
    with pytest.raises(ConfigError, match="finds no value to reset"):
        hessian.chosen(base, ["a", "b"], np.zeros(14), 0.5)


@pytest.fixture(scope="module")
def ended(federate: Callable[..., Federation], pretrained: Any) -> tuple[Federation, Any, Any]:
    federation = federate("unlearn.method=hessian-reset", "unlearn.rounds=2", "train.lr=0.05")
    base = pretrained(federation)
    federation.pool.install(state.flatten(base))
    return federation, base, methods.unlearn(federation, base)


@pytest.fixture(scope="module")
def at_base(ended: Any, space_of: Any) -> Any:
    federation, base, _ = ended
    space = space_of(federation)
    space.install(state.flatten(base))
    space.use_base()
    return space


def test_the_diagonal_of_a_last_layer_is_known(at_base: Any, gone: Any) -> None:
    """Of logit c it is p_c (1 - p_c), of a weight that times the feature's square."""
    rows = gone.held[2]
    features: list[torch.Tensor] = []
    hook = at_base.model.fc.register_forward_pre_hook(lambda module, given: features.append(given[0].detach()))
    with torch.no_grad():
        p = at_base.suffix(0, at_base.images("train", rows)).softmax(1).double()
    hook.remove()
    x = torch.cat([features[0].double(), torch.ones(len(rows), 1)], 1)
    weight = torch.einsum("nc,nd->ncd", p * (1 - p), x**2).mean(0)
    expected = torch.cat([weight[:, :-1].reshape(-1), weight[:, -1]]).numpy()
    found, loss = hessian.diagonal(at_base, ["fc"], rows, None)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-9)
    right = p.log().gather(1, at_base.labels(rows)[:, None]).mean()
    assert loss == pytest.approx(-right.item(), rel=1e-5)


def test_it_is_the_curvature_where_the_loss_is_quadratic_in_a_value(at_base: Any, gone: Any) -> None:
    """In a layer below, against squares of single examples' gradients."""
    rows = gone.held[0][:3]
    bias = at_base.model.conv.bias
    expected = np.zeros(2)
    for row in rows:
        logits = at_base.suffix(0, at_base.images("train", np.array([row])))
        for c, p in enumerate(logits.softmax(1)[0].tolist()):
            (g,) = torch.autograd.grad(logits.log_softmax(1)[0, c], [bias], retain_graph=True)
            expected += p * g.double().numpy() ** 2 / len(rows)
    found, _ = hessian.diagonal(at_base, ["conv"], rows, None)
    assert found[-2:] == pytest.approx(expected, rel=1e-3)


def test_a_drawn_class_gives_the_same_on_average(at_base: Any, gone: Any) -> None:
    row = np.repeat(gone.held[2][:1], 2000)
    exact, _ = hessian.diagonal(at_base, ["fc"], row[:1], None)
    sampled, _ = hessian.diagonal(at_base, ["fc"], row, bits(2000, 0, "test"))
    assert np.linalg.norm(sampled - exact) < 0.2 * np.linalg.norm(exact)


def test_what_is_reset_is_what_the_targets_diagonals_say(ended: Any, at_base: Any, gone: Any, targets: Any) -> None:
    federation, base, found = ended
    names = federation.anatomy.ranked
    assert names == ("conv", "fc")  # not the normalisation
    by_client = []
    for client in range(5):
        on, round = ("forgotten", 1) if client in targets else ("retained", 2)
        work = hessian.Diagonal("diagonal", round, on, 0, names, every_class=False)
        by_client.append(work.update(at_base, Payload(np.zeros(0, np.float32)), client).payload.values)
    info = hessian.information(
        np.sum([by_client[client] for client in targets], axis=0, dtype=np.float64),
        np.sum(by_client, axis=0, dtype=np.float64),
    )
    masks = hessian.chosen(base, names, info, 0.1)
    assert found.figures == {"values_reset": masks.size}
    for mask in masks.layers:
        before, after = (hessian.layer_vector(model, mask.layer) for model in (base, found.state))
        assert set(np.flatnonzero(before != after)) <= set(mask.positions)
        assert (before != after).sum() > 0.9 * len(mask.positions)
    for name in ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        assert np.array_equal(found.state[name], base[name])


def test_the_bytes_are_a_diagonal_once_and_what_was_reset_each_round(ended: Any, targets: Any) -> None:
    federation, base, found = ended
    records = federation.recorder.records[2:]
    assert [(record.phase, record.round, record.clients_used) for record in records] == [
        *(("diagonal", 1, len(targets)), ("diagonal", 2, 3), ("unlearn", 1, 3), ("unlearn", 2, 3))
    ]
    entries = 2 * 25 + 2 + 128 * 4 + 4
    whole = wire.model_bytes(state.flatten(base), 0)
    for record in records[:2]:
        assert (record.bytes_up, record.bytes_down) == (wire.values_bytes(entries), 0)
        assert set(record.once.values()) == {whole}  # M_r
    values = int(found.figures["values_reset"])
    for record in records[2:]:
        assert record.bytes_up == record.bytes_down == wire.values_bytes(values)
    assert [bool(record.once) for record in records[2:]] == [True, False]
    assert 0 < max(records[2].once.values()) < whole


def test_without_rounds_what_was_chosen_is_zero(federate: Any, pretrained: Any) -> None:
    federation = federate("unlearn.method=hessian-reset", "unlearn.rounds=0", "hessian_reset.diagonal=exact")
    base = pretrained(federation)
    federation.pool.install(state.flatten(base))
    found = methods.unlearn(federation, base)
    changed = [found.state[name][found.state[name] != base[name]] for name in base]
    assert sum(map(len, changed)) == found.figures["values_reset"]
    assert not np.concatenate(changed).any()


def test_it_forgets_classes_of_clients_that_keep_others(federate: Any, pretrained: Any, scenario: Any) -> None:
    more = ("forget.scenario=class", "unlearn.rounds=1")
    federation = federate("unlearn.method=hessian-reset", *more, on=scenario)
    base = pretrained(federation)
    federation.pool.install(state.flatten(base))
    found = methods.unlearn(federation, base)
    first, second, third = federation.recorder.records[2:]
    assert (first.clients_used, second.clients_used, third.clients_used) == (5, 5, 5)
    assert (len(first.once), len(second.once)) == (5, 0)  # nobody is sent M_r twice
    assert found.figures == {"values_reset": int(0.1 * 52) + int(0.1 * 516)}


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_what_is_trained_is_sent_in_the_format_that_is_asked_for(
    federate: Callable[..., Federation], pretrained: Any, ended: Any, form: str
) -> None:
    whole, base, found = ended
    federation = federate("unlearn.method=hessian-reset", "unlearn.rounds=2", "train.lr=0.05", f"unlearn.wire={form}")
    federation.pool.install(state.flatten(base))
    other = methods.unlearn(federation, base)
    sent = [
        [record.bytes_up for record in one.recorder.records if record.phase == "unlearn"] for one in (whole, federation)
    ]
    assert all(short < full for full, short in zip(*sent, strict=True))
    for name, after in found.state.items():
        assert after == pytest.approx(other.state[name], abs=0.02)
    assert state.state_hash(other.state) != state.state_hash(found.state)
    kept_back = federation.recorder.saved["unlearn"].states
    assert (sorted(kept_back) == [0, 2, 4]) == (form == "int8")

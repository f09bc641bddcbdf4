"""FedOSD: loss, direction and recovery by hand, and what the server makes of a round."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray.core import methods, state
from fused_ray.core.gradient import model_gradient
from fused_ray.core.methods import fedosd
from fused_ray.core.rounds import Federation
from fused_ray.errors import ConfigError, NumericsError


def vector(*values: float) -> Any:
    return np.array(values)


def test_the_loss_that_makes_a_target_forget() -> None:
    logits = torch.tensor([[np.log(4.0), 0.0]], requires_grad=True)  # p_y = .8
    loss = fedosd.unlearning_loss(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.5108, abs=5e-5)
    assert logits.grad is not None
    assert logits.grad[0, 0].item() == pytest.approx(0.8 * 0.2 / 1.2, abs=1e-6) == pytest.approx(0.1333, abs=5e-5)


def test_at_right_angles_to_the_others_and_as_long_as_before() -> None:
    assert fedosd.direction(vector(1, 1), [vector(1, 0)]) == pytest.approx([0, 1.4142], abs=5e-5)
    twice = fedosd.direction(vector(1, 1), [vector(1, 0), vector(2, 0)])  # a singular A A^T
    assert twice == pytest.approx([0, np.sqrt(2)])
    random = np.random.default_rng(0)
    target, others = random.normal(size=30), [*random.normal(size=(4, 30))]
    found = fedosd.direction(target, others)
    assert [float(found @ other) for other in others] == pytest.approx([0] * 4, abs=1e-9)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(target))


def test_a_direction_has_the_same_bits_on_however_many_threads() -> None:
    """Of this many clients the factors are computed in blocks, one a thread."""
    code = (
        "import hashlib, numpy as np; from fused_ray.core.methods import fedosd; r = np.random.default_rng(0);"
        "found = fedosd.direction(r.normal(size=300), [*r.normal(size=(100, 300))]);"
        "print(hashlib.sha256(found.tobytes()).hexdigest())"
    )
    threads = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **dict.fromkeys(threads, number)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("1", "2")
    }
    assert len(found) == 1


def test_a_gradient_among_the_others_is_refused() -> None:
    with pytest.raises(NumericsError, match="finds no way to forget that leaves the others alone"):
        fedosd.direction(vector(1, 0), [vector(1, 0)])


def test_recovery_does_not_go_back() -> None:
    assert fedosd.beside(vector(3, 4), vector(0, 1)) == pytest.approx([5, 0])
    assert fedosd.beside(vector(3, 4), vector(0, 0)).tolist() == [3, 4]  # nothing moved yet


@pytest.fixture(scope="module")
def ended(federate: Callable[..., Federation], pretrained: Any) -> tuple[Federation, Any, Any]:
    rates = ("fedosd.rounds=2", "fedosd.lr=0.1", "fedosd.recovery_lr=0.05", "unlearn.rounds=1")
    federation = federate("unlearn.method=fedosd", *rates)
    base = pretrained(federation)
    return federation, base, methods.unlearn(federation, base)


def test_a_round_by_separate_gradients(ended: Any, space_of: Any, gone: Any, targets: Any) -> None:
    federation, base, _ = ended
    space, start = space_of(federation), state.flatten(base)
    space.load(start)

    def gradient(client: int) -> Any:
        loss = {"loss": fedosd.unlearning_loss} if client in targets else {}
        return model_gradient(space, gone.held[client], **loss)[0].astype(np.float64)

    others = [gradient(client) for client in range(5) if client not in targets]
    d = fedosd.direction(np.mean([gradient(client) for client in targets], axis=0), others)
    after = federation.recorder.rounds["unlearn", 1].payload
    assert np.allclose(after.values, start.values - 0.1 * d, rtol=0, atol=1e-6)
    buffers = np.setdiff1d(np.arange(len(start.values)), state.parameters(space.model))
    assert np.array_equal(after.values[buffers], start.values[buffers])
    assert np.array_equal(after.counters, start.counters)


def test_recovery_is_without_the_targets(ended: Any, space_of: Any, gone: Any) -> None:
    federation, base, found = ended
    space, before = space_of(federation), federation.recorder.rounds["unlearn", 2].payload
    space.load(before)
    moved = before.values.astype(np.float64) - state.flatten(base).values
    sent = [model_gradient(space, gone.held[client])[0].astype(np.float64) for client in (0, 2, 4)]
    step = 0.05 * np.mean([fedosd.beside(gradient, moved) for gradient in sent], axis=0)
    assert np.allclose(state.flatten(found.state).values, before.values - step, rtol=0, atol=1e-6)
    model = 4 * (2 * 25 + 2 + 4 * 2 + 128 * 4 + 4)
    for record in federation.recorder.records[2:]:
        assert model < record.bytes_up < record.bytes_down < model + 200


def test_it_refuses_classes_and_says_why(make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"it can do client, exclusive: in it a client either forgets or remembers"):
        make_config("unlearn.method=fedosd", "forget.scenario=sample")

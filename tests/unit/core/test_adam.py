"""Our Adam has the bits of PyTorch's, and does not load the compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fused_ray.config.parts.client_optimisers import AdamConfig
from fused_ray.core.adam import Adam


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
def test_bits_of_pytorchs_class(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((4, 3), (5,), (2,))]
    own, theirs = ([p.clone().requires_grad_(True) for p in start] for _ in range(2))
    ours = Adam(own, 0.1, weight_decay, AdamConfig(beta1=0.8, beta2=0.95, eps=1e-6))
    reference = torch.optim.Adam(theirs, 0.1, (0.8, 0.95), 1e-6, weight_decay, fused=True)
    for _ in range(3):
        ours.zero_grad()
        for p, q in zip(own[:2], theirs[:2], strict=True):  # the third never has a gradient
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        ours.step()
        reference.step()
        assert all(torch.equal(p, q) for p, q in zip(own, theirs, strict=True))
    assert torch.equal(own[2], start[2])


def test_two_steps_on_two_values_by_hand() -> None:
    weight = torch.tensor([1.0, 1.0], requires_grad=True)
    optimiser = Adam([weight], 0.5, 0.0, AdamConfig(beta1=0.5, beta2=0.5, eps=1.0))
    # m = g / 2, v = g**2 / 2; without their bias g and g**2, so the step is 0.5 g / (|g| + 1)
    weight.grad = torch.tensor([1.0, -3.0])
    optimiser.step()
    assert weight.tolist() == pytest.approx([1 - 0.25, 1 + 0.375])
    # m = (0.25 - 0.5, -0.75 + 0.5) and v = (0.25 + 0.5, 2.25 + 0.5), each divided by 1 - 0.25
    weight.grad = torch.tensor([-1.0, 1.0])
    optimiser.step()
    first = 0.75 - 0.5 * (-0.25 / 0.75) / (1.0 + 1)
    second = 1.375 - 0.5 * (-0.25 / 0.75) / ((2.75 / 0.75) ** 0.5 + 1)
    assert weight.tolist() == pytest.approx([first, second])


def test_a_step_does_not_load_the_compiler() -> None:
    program = """
import sys, torch
from fused_ray.config import TrainConfig
train = TrainConfig(optimiser="adam")
part, settings = train.optimiser_part
weight = torch.ones(1, requires_grad=True)
weight.grad = torch.ones(1)
part.function([weight], train, settings).step()
assert weight.item() < 1
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

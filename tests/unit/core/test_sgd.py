"""Our SGD has the bits of PyTorch's, and does not load the compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fused_ray.core.sgd import SGD


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 5e-4)])
def test_bits_of_pytorchs_class(fused: bool | None, momentum: float, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((4, 3), (5,), (2,))]
    own, theirs = ([p.clone().requires_grad_(True) for p in start] for _ in range(2))
    ours = SGD(own, 0.1, momentum, weight_decay, fused)
    reference = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=weight_decay, fused=fused)
    for _ in range(3):
        ours.zero_grad()
        for p, q in zip(own[:2], theirs[:2], strict=True):  # the third never has a gradient
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        ours.step()
        reference.step()
        assert all(torch.equal(p, q) for p, q in zip(own, theirs, strict=True))
    assert torch.equal(own[2], start[2])


def test_a_step_by_hand() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    optimiser = SGD([weight], lr=0.5, momentum=0.5)
    for gradient, expected in ((1.0, 0.5), (1.0, -0.25)):  # velocity 1, then 1.5
        weight.grad = torch.tensor([gradient])
        optimiser.step()
        assert weight.item() == expected


def test_a_step_does_not_load_the_compiler() -> None:
    program = """
import sys
from fused_ray.core.numerics import fingerprint
fingerprint()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

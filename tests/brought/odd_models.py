"""Models that people bring: odd tensors and attributes, frozen layers, buffers, and weights that are computed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from tests.brought.own_models import WIDTH, Net, Shape, View

# --- tensors and attributes of other kinds ------------------------------------------------------------------


class Kinds(Net):
    """Attributes that cannot be compared as bytes, and containers that contain themselves."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.sparse = torch.eye(WIDTH).to_sparse()
        self.meta = torch.zeros(WIDTH, device="meta")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.quantized = torch.quantize_per_tensor(torch.ones(WIDTH), 0.1, 0, torch.qint8)
        self.conjugate = torch.ones(WIDTH, dtype=torch.complex64).conj()
        self.cache: dict[str, Any] = {"size": 1}
        self.cache["self"] = self.cache
        self.line: list[Any] = [0]
        self.line.append([self.line])

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.sparse.mm(self.sparse, self.hidden(x).T).T)


class KindsMove(Kinds):
    """A container that contains itself, and changes."""

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.cache["size"] += 1
        return super().forward(x)


class Expanded(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("scale", torch.ones(1).expand(WIDTH))


class Windows(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("parts", torch.ones(WIDTH).unfold(0, 4, 2))


class Transposed(Net):
    """A buffer that does not lie in order, each element in its own place."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("table", torch.rand(3, WIDTH).T[:, :2])

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.hidden(x) * self.table[:, 0])


class SparseBuffer(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("pairs", torch.eye(WIDTH).to_sparse())


# --- what is frozen, and buffers ----------------------------------------------------------------------------


class Frozen(Net):
    """Values below the resolution of the fixed point, in a layer and in a bare parameter."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.place = nn.Parameter(torch.rand(WIDTH) * 1e-11, requires_grad=False)
        self.body.requires_grad_(False)
        with torch.no_grad():
            self.body.bias.mul_(1e-10)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.middle(self.hidden(x) + self.place).relu())


FROZEN = ("body.weight", "body.bias", "place")


class HalfFrozen(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.body.weight.requires_grad_(False)


def all_frozen(shape: Shape, classes: int) -> nn.Module:
    return Net(shape, classes).requires_grad_(False)


class Masks(Net):
    """Buffers that nobody changes, of any size, and one of which training changes a part."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 1e9, 1e-12, 3e38, torch.nan]))
        self.register_buffer("partly", torch.tensor([-torch.inf, 0.0]))

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.partly[1] += len(x)
        return self.head(self.hidden(x).masked_fill(self.mask[1] == 0, 0.0))


class Unmasks(Masks):
    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.mask[1] = 1.0
        return super().forward(x)


class Bytes(nn.Module):
    """BatchNorm on values of about 0 to 1000: variances of a hundred thousand."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(shape[0], momentum=1.0), nn.Linear(192, classes)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(1000 * x).flatten(1))


# --- weights that are computed ------------------------------------------------------------------------------


def old_weight_norm(module: nn.Module) -> nn.Module:
    with contextlib.suppress(FutureWarning):
        return torch.nn.utils.weight_norm(module)


def pruned(module: nn.Module) -> nn.Module:
    return prune.l1_unstructured(module, "weight", 0.5)


DERIVED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "old_weight_norm": old_weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old_spectral_norm": torch.nn.utils.spectral_norm,
    "pruned": pruned,
}


def derived(shape: Shape, classes: int, how: str) -> nn.Module:
    body = DERIVED[how](nn.Linear(192, WIDTH))
    return nn.Sequential(nn.Flatten(), body, nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, classes))


class Wrapper(nn.Module):
    """Shows its inner layer's weight as its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @property
    def weight(self) -> torch.Tensor:
        return self.inner.weight  # type: ignore[return-value]

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)


class Turned(Wrapper):
    @property
    def weight(self) -> torch.Tensor:
        return super().weight.T


class Unwilling(Wrapper):
    @property
    def weight(self) -> torch.Tensor:
        raise NotImplementedError("ask the layer inside")


class Own(nn.Module):
    """A parameter by another name, which makes no layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.raw = nn.Parameter(inner.weight.detach().T.contiguous())

    @property
    def weight(self) -> torch.Tensor:
        return self.raw.T

    def forward(self, x: torch.Tensor) -> Any:
        return F.linear(x, self.weight)


WRAPPERS = {kind.__name__: kind for kind in (Wrapper, Turned, Unwilling, Own)}


class Wrapped(Net):
    def __init__(self, shape: Shape, classes: int, how: str) -> None:
        super().__init__(shape, classes)
        self.body = WRAPPERS[how](self.body)


class Everything(View):
    """All at once: a .view, a tuple, a frozen layer, a computed weight, a mask, large statistics."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.norm = nn.BatchNorm2d(shape[0])
        self.fixed = nn.Linear(16 * WIDTH, 16 * WIDTH).requires_grad_(False)
        self.computed = parametrizations.weight_norm(nn.Linear(16 * WIDTH, 16 * WIDTH))
        self.register_buffer("mask", torch.tensor([-torch.inf, 1e9]))

    def forward(self, x: torch.Tensor) -> Any:
        h = self.computed(self.fixed(self.flat(self.features(self.norm(1000 * x)))).relu()).relu()
        return self.head(h), h

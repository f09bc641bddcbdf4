"""Models that people bring: their outputs, what only training shows, what they keep or draw, memory formats.

Images are 3 x 8 x 8 here, so that channels-last tensors are other ones than contiguous ones.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray import models

Shape = tuple[int, int, int]


SHAPE, CLASSES, WIDTH = (3, 8, 8), 3, 8


class Net(nn.Module):
    """What the others are made of: a body, a ReLU and a head."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(shape[0] * shape[1] * shape[2], WIDTH), nn.Linear(WIDTH, classes)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.flatten(1)).relu()

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.hidden(x))


# --- what comes out of forward() ----------------------------------------------------------------------------


class Two(Net):
    """A tuple in training, as Inception has it."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.aux = nn.Linear(WIDTH, classes)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        return (self.head(h), self.aux(h)) if self.training else self.head(h)


class One(Two):
    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.hidden(x))


class Always(Two):
    """In evaluation too."""

    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        return [self.head(h), h]


class Nested(Two):
    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        return ((self.head(h), self.aux(h)), h)


class Mapped(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return {"out": super().forward(x)} if self.training else super().forward(x)


class HiddenFirst(Net):
    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        return (h, self.head(h)) if self.training else self.head(h)


class Squeezed(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x).squeeze()


# --- what only training shows -------------------------------------------------------------------------------


class InPlace(Net):
    def forward(self, x: torch.Tensor) -> Any:
        h = torch.sigmoid(self.body(x.flatten(1)))
        if self.training:
            h += 1
        return self.head(h)


class NoGradient(Net):
    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x)


class NoGradientInTraining(Net):
    def forward(self, x: torch.Tensor) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            return super().forward(x)


class OnePixel(nn.Module):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(shape[0], 4, shape[1]), nn.InstanceNorm2d(4, track_running_stats=True)
        self.head = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(self.conv(x)).flatten(1))


class OneValue(Net):
    """BatchNorm of the batch's mean."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        return self.head(h + self.norm(h.mean(0, keepdim=True)))


class KeepsGraph(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("last", torch.zeros(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        if self.training:
            self.last = self.last * 0.9 + h.mean(0)
        return self.head(h - self.last)


class OfThree(Net):
    """Knows one size of batches."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x.view(3, -1) if self.training else x)


def lazy(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))


def lazy_norm(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.LazyBatchNorm2d(affine=False), nn.Flatten(), nn.Linear(192, classes))


def woken(shape: Shape, classes: int) -> nn.Module:
    model = lazy(shape, classes)
    model(torch.zeros(2, *shape))
    return model


class Alone(nn.Linear):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(192, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1))


# --- what a model keeps or draws by itself ------------------------------------------------------------------


class MovingBuffer(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("average", torch.zeros(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        if self.training:
            self.average = 0.9 * self.average + 0.1 * h.detach().mean(0)
        return self.head(h - self.average)


class MovingTensor(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.inner = nn.Module()
        self.inner.seen = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.inner.seen += len(x)
        return super().forward(x)


class Counter(Net):
    steps = 0

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.steps += 1
        return super().forward(x) * (2.0 if self.steps > 1000 else 1.0)


class Memories(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.memories: dict[str, list[torch.Tensor]] = {"means": []}

    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        if self.training:
            self.memories["means"].append(h.detach().mean())
        return self.head(h)


class Previous(Net):
    """Each pass uses what the last one left, and leaves as much."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.previous = torch.zeros(WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        h, before = self.hidden(x), self.previous
        if self.training:
            self.previous = h.detach().mean(0)
        return self.head(h + before)


class Centred(Net):
    """What the last batch of training left is used in evaluation alone."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.center = torch.zeros(WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.hidden(x)
        if self.training:
            self.center = h.detach().mean(0)
            return self.head(h)
        return self.head(h - self.center)


class Shows(Net):
    """Keeps what every pass makes anew: the size of its batch, and something to look at."""

    def forward(self, x: torch.Tensor) -> Any:
        self.batch_size, h = len(x), self.hidden(x)
        self.shown = h.detach()
        return self.head(h.view(self.batch_size, -1))


class ExtraState(Net):
    def get_extra_state(self) -> Any:
        return {"version": 2}

    def set_extra_state(self, state: Any) -> None:
        assert state == self.get_extra_state()


class CountsEvaluations(Net):
    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        return super().forward(x)


class AlwaysDrops(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.head(F.dropout(self.hidden(x), 0.5))


class PythonDraws(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x) * (random.random() if self.training else 1)


class NumpyDraws(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x) * (float(np.random.rand()) if self.training else 1)


class Constant(Net):
    """A table outside the state_dict that nothing changes, and what is made anew in each step."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.register_buffer("table", torch.ones(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        self.shown = self.hidden(x) * self.table
        return self.head(self.shown)


# --- memory formats -----------------------------------------------------------------------------------------


class View(nn.Module):
    """`x.view` after a convolution, as in most tutorials."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(shape[0], WIDTH, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(16 * WIDTH, classes)

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 16 * WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.flat(self.features(x)))


class ViewInTraining(View):
    def flat(self, x: torch.Tensor) -> torch.Tensor:
        return super().flat(x) if self.training else x.flatten(1)


class ViewOfTheGradient(View):
    """Its own backward pass has the .view."""

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            x.register_hook(lambda g: g.clone(memory_format=torch.preserve_format) + x.detach().view(-1).sum() * 0)
        return x.flatten(1)


class Flat(View):
    def flat(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class ShortOnce(Net):
    """Memory runs out the first time."""

    seen: set[str] = set()  # noqa: RUF012

    def __init__(self, shape: Shape, classes: int, how: str) -> None:
        super().__init__(shape, classes)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        if self.how not in self.seen:
            self.seen.add(self.how)
            raise SHORT[self.how]
        return super().forward(x)


SHORT: dict[str, Exception] = {
    "python": MemoryError("no room"),
    "card": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "processor": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
}


class Refuses(Net):
    """An error that has nothing to do with memory formats, and comes once."""

    seen: list[int] = []  # noqa: RUF012

    def forward(self, x: torch.Tensor) -> Any:
        if not self.seen:
            self.seen.append(1)
            raise OSError("no space left on device")
        return super().forward(x)


class ShortStages(Net):
    def stages(self) -> list[models.Stage]:
        def fails(x: torch.Tensor) -> torch.Tensor:
            raise MemoryError

        return [models.Stage(("body",), self.hidden), models.Stage(("head",), fails)]

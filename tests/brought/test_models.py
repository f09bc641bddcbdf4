"""Models as people bring them: each works as it would in plain PyTorch, or is refused in one line before a run begins.

Images are 3 x 8 x 8 here, so that channels-last tensors are other ones than contiguous ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from fused_ray import RunConfig, models, run
from fused_ray.cli.app import main
from fused_ray.core import state
from fused_ray.core.aggregate import ExactSum, scale_bits, with_fixed
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.rounds import Federation, LocalPool
from fused_ray.core.simulation import Outcome, simulate
from fused_ray.core.work import compute
from fused_ray.core.workspace import Workspace
from fused_ray.data.partitions import digest
from fused_ray.engine.client import ClientActor
from fused_ray.errors import ConfigError, NumericsError
from fused_ray.models.anatomy import anatomy, staged
from fused_ray.models.rehearsal import memory_format, rehearse, section_of
from fused_ray.types import ImageData, Scenario
from fused_ray.types import TestView as Rows

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


# --- tools --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _module() -> Iterator[None]:
    """The models as a module of their own, and PyTorch on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        module = types.ModuleType("brought")
        module.__dict__.update({name: value for name, value in globals().items() if callable(value)})
        patch.setitem(sys.modules, "brought", module)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images() -> ImageData:
    pixels = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (36, *SHAPE), np.uint8)
    labels = np.arange(36) % CLASSES
    return ImageData("noise", CLASSES, (0.5,) * 3, (0.3,) * 3, pixels, labels, pixels[:9], labels[:9])


@pytest.fixture(scope="module")
def npz(images: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own") / "noise.npz"
    arrays = {"train_images": images.train_images, "train_labels": images.train_labels}
    np.savez(place, **arrays, test_images=images.test_images, test_labels=images.test_labels)
    return place


FEW = ("federation.clients=3", "train.batch_size=5", "train.local_epochs=1", "pretrain.rounds=2", "unlearn.rounds=2",
       "retrain.rounds=1", "unlearn.layers=1", "unlearn.start=zero", "data.min_examples=1")  # fmt: skip


def configured(name: str, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*FEW, f"model.factory=brought:{name}", *fields])


def scenario(images: ImageData, whole: bool = False) -> Scenario:
    """Three clients, the last with one example in its last batch. Class 0 is forgotten, or the first client whole."""
    labels, held = images.train_labels, tuple(np.split(np.arange(36), [10, 20]))
    views = {"ra": Rows(np.array([1, 2]), labels[1:3]), "fa": Rows(np.array([0]), labels[:1])}
    kept = tuple(part[labels[part] != 0] for part in held)
    if whole:
        kept = (held[0][:0], *held[1:])
    return Scenario(held, kept, labels, views, digest(held))


def simulated(images: ImageData, name: str, *fields: str, whole: bool = False) -> tuple[Outcome, MemoryRecorder]:
    config, found, recorder = configured(name, *fields), scenario(images, whole), MemoryRecorder()
    pool = LocalPool(config, images, found)
    return simulate(config, images, found, pool, recorder), recorder


def started(name: str, purpose: str = "init/pretrain", *fields: str) -> dict[str, NDArray[Any]]:
    return state.arrays(models.initialise(configured(name, *fields).model, SHAPE, CLASSES, 0, purpose))


# --- refused ------------------------------------------------------------------------------------------------

TRAINS = "in training mode, 3 at a time"
REFUSED = {
    "InPlace": ["its backward pass fails: one of the variables needed", "use an operation that makes a new tensor"],
    "NoGradient": ["no gradient leads from the model's logits", "look for torch.no_grad"],
    "NoGradientInTraining": ["no gradient leads from the model's logits", "look for torch.no_grad"],
    "OnePixel": [TRAINS, "in norm (InstanceNorm2d): ValueError: Expected more than 1", "leave that normalisation out"],
    "OneValue": [TRAINS, "in norm (BatchNorm1d): ValueError: Expected more than 1", "leave that normalisation out"],
    "KeepsGraph": ["through the graph a second time", "needs .detach()"],
    "OfThree": ["in training mode, 2 at a time", "in body (Linear): RuntimeError: mat1 and mat2"],
    "lazy": ["1.weight, 1.bias of a lazy layer has no shape yet", "model(torch.zeros(2, *shape))"],
    "lazy_norm": ["0.running_mean, 0.running_var of a lazy layer"],
    "Alone": ["the model itself owns a weight", "make it a module of the model"],
    "Mapped": ["for 3 images in training mode, 3 at a time the model gives dict, not [3, 3] logits"],
    "HiddenFirst": ["the model gives [3, 8], not [3, 3] logits", "first in a tuple"],
    "Squeezed": ["for 1 images one at a time the model gives [3], not [1, 3] logits"],
    "MovingBuffer": ["training changes average, which the model keeps outside its state_dict", "register_buffer"],
    "MovingTensor": ["training changes inner.seen, which"],
    "Counter": ["training changes steps, which"],
    "Memories": ["training changes memories, which"],
    "Previous": ["training changes previous, which"],
    "Centred": ["training changes center, which"],
    "ExtraState": ["_extra_state in the state_dict is dict, which cannot be averaged"],
    "CountsEvaluations": ["evaluation changes calls of the model", "if self.training"],
    "AlwaysDrops": ["says something else each time", "F.dropout(x, p, self.training)"],
    "KindsMove": ["training changes cache, which"],
    "Expanded": ["several elements of scale share one place in memory (expand)", ".clone()"],
    "Windows": ["several elements of parts share one place"],
    "SparseBuffer": ["pairs is no plain dense tensor (torch.sparse_coo, cpu)"],
    "all_frozen": ["all parameters of the model are frozen", "leave at least the output layer free"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_in_one_line_before_a_folder_is_made(name: str, npz: Path, tmp_path: Path) -> None:
    """On the default backend, and on data whose shape nobody knows before they are looked at."""
    settings = [*FEW, "data.name=npz", f"data.root={npz}", f"model.factory=brought:{name}"]
    with pytest.raises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()) as printed:
        main(["run", *(part for s in [*settings, f"output.dir={tmp_path / 'run'}"] for part in ("--set", s))])
    lines = printed.getvalue().strip().splitlines()
    assert (caught.value.code, len(lines)) == (2, 1)
    assert lines[0].startswith(f"fused-ray: model.factory: brought:{name}: ")
    assert [said for said in REFUSED[name] if said not in lines[0]] == []
    assert list(tmp_path.iterdir()) == []


def test_the_rehearsal_gives_the_random_numbers_of_the_process_back() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for name in ("PythonDraws", "NumpyDraws", "AlwaysDrops"):
        with contextlib.suppress(ConfigError):
            memory_format(section_of(configured(name).model), SHAPE, CLASSES)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    ("name", "last"),
    [("woken", "3"), ("Constant", "head"), ("Shows", "head"), ("Kinds", "head"), ("Transposed", "head")],
)
def test_what_only_looks_like_a_fault_is_none(images: ImageData, name: str, last: str) -> None:
    """A lazy model that its function has run once; a table outside the state_dict, and what each step makes anew."""
    found, _ = simulated(images, name, f"unlearn.layers=[{last}]")  # a number may be a layer's name
    assert found.unlearned.adapter is not None
    assert found.unlearned.adapter.names == (last,)


@pytest.mark.parametrize("how", SHORT)
def test_a_lack_of_memory_changes_no_format(how: str) -> None:
    model = configured("ShortOnce", f"model.args={json.dumps({'how': how})}").model
    with pytest.raises(ConfigError, match=rf"the model fails on images of 3 x 8 x 8.*{type(SHORT[how]).__name__}: "):
        memory_format(section_of(model), SHAPE, CLASSES)
    assert memory_format(section_of(model), SHAPE, CLASSES) == torch.channels_last


def test_nor_does_what_has_nothing_to_do_with_it() -> None:
    model = configured("Refuses").model
    with pytest.raises(ConfigError, match="OSError: no space left"):
        memory_format(section_of(model), SHAPE, CLASSES)
    assert memory_format(section_of(model), SHAPE, CLASSES) == torch.channels_last


def test_a_lack_of_memory_changes_no_stages() -> None:
    with pytest.raises(MemoryError):
        staged(ShortStages(SHAPE, CLASSES), SHAPE)


def test_a_worker_is_told_the_format(images: ImageData) -> None:
    known = rehearse.cache_info()
    for form in (torch.channels_last, torch.contiguous_format):
        actor = ClientActor(configured("Flat"), images, scenario(images), pickle.loads(pickle.dumps(form)), 0)
        assert actor._space.images("train", np.arange(2)).is_contiguous(memory_format=form)
        assert actor._space.model.get_parameter("features.0.weight").is_contiguous(memory_format=form)
    assert rehearse.cache_info() == known


# --- accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Two", "Always", "Nested"])
def test_the_first_tensor_of_a_tuple_are_the_logits(images: ImageData, name: str) -> None:
    """The bits are those of a model that returns it alone: what else is returned is not trained."""
    found, _ = simulated(images, name)
    alone, recorder = simulated(images, "One")
    assert (found.base_hash, found.unlearned_hash) == (alone.base_hash, alone.unlearned_hash)
    assert found.restored_hash == found.base_hash
    assert np.array_equal(recorder.models["base"]["aux.weight"], started("One")["aux.weight"])


@pytest.mark.parametrize("name", ["PythonDraws", "NumpyDraws"])
def test_draws_in_training_are_each_clients_own(images: ImageData, name: str) -> None:
    """Whatever the process drew before, and whoever was computed before in it."""
    config, found = configured(name), scenario(images)
    work = FullTraining("pretrain", 1, 0, config.train, "held")
    space, start = Workspace(config, images, found), state.flatten(started(name))
    random.seed(1)
    np.random.seed(1)
    together = compute(space, work, start, [0, 1, 2], keep_updates=True).updates
    alone = compute(space, work, start, [2], keep_updates=True).updates
    other = compute(space, FullTraining("pretrain", 1, 1, config.train, "held"), start, [2], keep_updates=True).updates
    assert together[2].tobytes() == alone[2].tobytes() != other[2].tobytes()


@pytest.mark.parametrize("name", ["View", "ViewInTraining", "ViewOfTheGradient"])
def test_a_view_runs_in_the_usual_memory_format(images: ImageData, name: str) -> None:
    section = section_of(configured(name).model)
    assert memory_format(section, SHAPE, CLASSES) == torch.contiguous_format
    assert memory_format(section_of(configured("Flat").model), SHAPE, CLASSES) == torch.channels_last
    found, recorder = simulated(images, name, "unlearn.start=reset", "unlearn.layers=[head]")
    assert found.restored_hash == found.base_hash
    model = models.build(configured(name).model, SHAPE, CLASSES).eval()  # plain PyTorch takes what comes out
    model.load_state_dict({key: torch.tensor(value) for key, value in recorder.models["base"].items()})
    assert model(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)


def test_a_run_says_once_in_which_format_it_runs_and_what_is_left_out(npz: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, ...]] = []
    fields = ("data.name=npz", f"data.root={npz}", "engine.backend=local", "output.plots=false", "audit.enabled=false")
    config = configured("Everything", *fields, f"output.dir={tmp_path / 'run'}")
    result = run(config, listener=lambda progress: heard.append(tuple(progress.notes)))
    notes = [note for noted in dict.fromkeys(heard) for note in noted]
    for said in (
        "fails on channels-last tensors",
        "the weight of computed is computed",
        "neither ranked nor adapted: f",
    ):
        assert len({note for note in notes if said in note}) == 1
    assert result["reversible"]
    base = load_file(tmp_path / "run" / "base.safetensors")
    assert base["mask"].tolist() == [-np.inf, 1e9]
    assert base["norm.running_var"].max() > 1024


def test_a_model_with_everything_has_the_same_bits_on_ray(cluster: Any, npz: Path, tmp_path: Path) -> None:
    found = []
    for name, fields in (
        ("alone", ["engine.backend=local"]),
        ("packed", [f"engine.address={cluster.address}", "federation.clients_per_actor=2"]),
    ):
        common = ("data.name=npz", f"data.root={npz}", "output.plots=false", "audit.enabled=false")
        here = f"model.factory={__name__}:Everything"  # workers have this process's path
        config = configured("Everything", *common, *fields, here, f"output.dir={tmp_path / name}")
        found.append(run(config)["hash"])
    assert found[0] == found[1]


# --- frozen -------------------------------------------------------------------------------------------------

METHODS = ["fused", "finetune", "not", "exactfun", "puf", "eraseclient", "federaser"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_frozen_stays_so_bit_for_bit(images: ImageData, method: str) -> None:
    fields = (f"unlearn.method={method}", "forget.scenario=client", "forget.clients=[0]", "train.weight_decay=0.01")
    found, recorder = simulated(images, "Frozen", *fields, whole=True)
    start, again = started("Frozen"), started("Frozen", "init/retrain")
    for name in FROZEN:
        assert found.unlearned.state[name].tobytes() == start[name].tobytes()
        assert recorder.models["base"][name].tobytes() == start[name].tobytes()
        assert recorder.models["retrained"][name].tobytes() == again[name].tobytes()
    assert not np.array_equal(recorder.models["base"]["head.weight"], start["head.weight"])
    assert [item.layer for item in found.unlearned.ranking if item.layer not in ("middle", "head")] == []


def test_what_is_frozen_is_sent_once_and_never_again(images: ImageData) -> None:
    """Of 1,651 values 1,552 are frozen: 192 x 8 + 8 in the body and 8 bare ones."""
    _, recorder = simulated(images, "Frozen", "unlearn.layers=[head]", "unlearn.sparsity=0")
    first, second = (record for record in recorder.records if record.phase == "pretrain")
    header = first.bytes_up - 4 * 99
    assert 0 < header < 100
    assert first.bytes_up == second.bytes_up == first.bytes_down
    assert set(first.once) == {0, 1, 2}
    assert all(0 < count - 4 * 1552 < 100 for count in first.once.values())
    assert not second.once
    adapting = next(record for record in recorder.records if record.phase == "unlearn")
    assert all(count < 4 * 99 + 100 for count in adapting.once.values())  # M_r, less what they have


@pytest.mark.parametrize(("name", "layer"), [("Frozen", "body"), ("HalfFrozen", "body")])
def test_a_frozen_layer_is_refused_by_name_and_never_chosen(name: str, layer: str) -> None:
    from fused_ray.core.model_check import check_model

    assert layer not in anatomy(configured(name).model, SHAPE, CLASSES).ranked
    with pytest.raises(ConfigError, match=rf"unlearn\.layers: {layer} of brought:{name} is frozen \(requires_grad"):
        check_model(configured(name, f"unlearn.layers=[{layer}]"), SHAPE, CLASSES)
    with pytest.raises(ConfigError, match=rf"is more than the \d layers of .*; {layer} of brought:{name} is frozen"):
        check_model(configured(name, "unlearn.layers=3"), SHAPE, CLASSES)


def test_a_half_frozen_layer_learns_what_is_free(images: ImageData) -> None:
    _, recorder = simulated(images, "HalfFrozen")
    start, base = started("HalfFrozen"), recorder.models["base"]
    assert base["body.weight"].tobytes() == start["body.weight"].tobytes()
    assert not np.array_equal(base["body.bias"], start["body.bias"])


# --- buffers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_buffer_that_no_client_changed_comes_back_exactly(images: ImageData, method: str) -> None:
    fields = (f"unlearn.method={method}", "forget.scenario=client", "forget.clients=[0]")
    found, recorder = simulated(images, "Masks", *fields, whole=True)
    start = started("Masks")["mask"]
    for model in (*recorder.models.values(), found.unlearned.state):
        assert model["mask"].tobytes() == start.tobytes()
        assert model["partly"][0] == -np.inf
    # 36 examples in two rounds; each client sees all that it holds, and the mean is weighted by as many
    once = (10 * 10 + 10 * 10 + 16 * 15) / 36  # a batch of one runs in evaluation mode
    assert recorder.models["base"]["partly"][1] == pytest.approx(2 * once)


def test_a_value_that_cannot_be_averaged_is_named_with_its_client(images: ImageData) -> None:
    with pytest.raises(NumericsError, match=r"client 0, pretrain round 1: training changed a buffer from -inf to 1,"):
        simulated(images, "Unmasks")


def test_large_statistics_are_no_divergence(images: ImageData) -> None:
    """With a momentum of 1 a client's statistics are those of its last batch in training mode."""
    config, found = configured("Bytes", "train.batch_size=18"), scenario(images)
    federation = Federation(config, images, found, LocalPool(config, images, found), MemoryRecorder())
    start = state.flatten(started("Bytes"))
    work = FullTraining("pretrain", 1, 0, config.train, "held")
    total, _ = federation.gather(work, start, [0, 1, 2])
    mean = state.unflatten(federation.mean(work, start, total), started("Bytes"))
    x = 1000 * (images.train_images.astype(np.float64) / 255 - 0.5) / 0.3
    variances = [x[part].var((0, 2, 3), ddof=1) for part in found.held]
    expected = (10 * variances[0] + 10 * variances[1] + 16 * variances[2]) / 36
    assert expected.min() > 100_000
    np.testing.assert_allclose(mean["norm.running_var"], expected, rtol=1e-5)


def test_sums_beyond_the_bound_are_exact_in_any_order() -> None:
    """By hand: (1 * 65025.25 + 2 * -3e15 + 3 * 2048) / 6, and (1 * 0.5 + 2 * 1024 + 3 * -1024) / 6."""
    bits = scale_bits(6)
    clients = [([65025.25, 0.5], 1), ([-3e15, 1024.0], 2), ([2048.0, -1024.0], 3)]
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        whole = ExactSum(2, bits)
        for at in order:
            part = ExactSum(2, bits)
            part.add(np.array(clients[at][0], np.float32), clients[at][1], ((0, 2),))
            whole.merge(part.total, part.weight, part.high)
        found.append(whole.mean())
    expected = [(65025.25 + 2 * float(np.float32(-3e15)) + 3 * 2048) / 6, (0.5 + 2 * 1024 - 3 * 1024) / 6]
    assert found[0].tobytes() == found[1].tobytes() == np.array(expected, np.float32).tobytes()


def test_only_fixed_values_may_be_large_or_infinite() -> None:
    before = np.array([0.0, -np.inf, 1e9, np.nan, 7.0], np.float32)
    after = np.array([5.0, -np.inf, 2e9, np.nan, 7.0], np.float32)
    values, changed = with_fixed(after, before, ((1, 5),), 36, "client 1")
    assert values.tolist() == [5.0, 0.0, 2e9, 0.0, 7.0]
    assert changed.tolist() == [2]
    for wrong in (np.inf, np.nan, 1e30):
        after[2] = wrong
        with pytest.raises(NumericsError, match=r"client 1: training changed a buffer from 1e\+09 to "):
            with_fixed(after, before, ((1, 5),), 36, "client 1")
    after[2], after[0] = 1e9, 2000.0
    with pytest.raises(NumericsError, match="client 1: the update has a value of 2000, more than"):
        with_fixed(after, before, ((1, 5),), 36, "client 1")


def test_a_mask_of_minus_infinity_may_come_from_a_file(images: ImageData) -> None:
    from fused_ray.core.pretrained import fitted

    like = {"mask": np.array([0.0, -np.inf], np.float32)}
    assert fitted(like, like, "file", "model")["mask"].tolist() == [0.0, -np.inf]
    with pytest.raises(ValueError, match="mask in file has values that are not finite"):
        fitted({"mask": np.array([-np.inf, -np.inf], np.float32)}, like, "file", "model")


# --- computed weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DERIVED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_computed_weight_is_trained_and_refused_by_name(images: ImageData, how: str) -> None:
    from fused_ray.core.model_check import check_model

    args = json.dumps({"how": how})
    with pytest.raises(ConfigError, match=r"the weight of 1 of brought:derived is computed .*; name others of 3, 5"):
        check_model(configured("derived", f"model.args={args}", "unlearn.layers=[1]"), SHAPE, CLASSES)
    found, recorder = simulated(images, "derived", f"model.args={args}", "unlearn.layers=2", "unlearn.start=zero")
    assert found.restored_hash == found.base_hash
    assert {item.layer for item in found.unlearned.ranking} == {"3", "5"}
    start, base = started("derived", "init/pretrain", f"model.args={args}"), recorder.models["base"]
    moved = {name for name in start if name.startswith("1.") and not np.array_equal(start[name], base[name])}
    assert moved & {"1.parametrizations.weight.original1", "1.parametrizations.weight.original", "1.weight_v",
                    "1.weight_orig"}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "layers", "computed"),
    [
        ("Wrapper", ("body.inner", "head"), ()),
        ("Turned", ("body.inner", "head"), ()),
        ("Unwilling", ("body.inner", "head"), ()),
        ("Own", ("head",), ("body",)),
    ],
)
def test_a_wrapper_that_shows_a_layers_weight_is_not_computed(how: str, layers: Any, computed: Any) -> None:
    found = anatomy(configured("Wrapped", f"model.args={json.dumps({'how': how})}").model, SHAPE, CLASSES)
    assert (found.ranked, found.derived) == (layers, computed)


# --- torchvision --------------------------------------------------------------------------------------------

USES_TORCHVISION = """
from fused_ray import models
from fused_ray.config import ModelConfig
print(type(models.build(ModelConfig(factory="theirs:net"), (3, 32, 32), 4)).__module__)
"""
IMPORT = "from torchvision.models import resnet18\n"


@pytest.mark.parametrize(("above", "inside"), [(IMPORT, ""), pytest.param("", f"{IMPORT}    ", marks=pytest.mark.slow)])
def test_torchvision_models_in_a_factory_get_the_same_mend(tmp_path: Path, above: str, inside: str) -> None:
    """Whether the module imports it or the function does; in a process that has not imported it yet."""
    (tmp_path / "theirs.py").write_text(f"{above}def net(shape, classes):\n    {inside}return resnet18()\n")
    done = subprocess.run(
        [sys.executable, "-c", USES_TORCHVISION],
        capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torchvision.models.resnet"

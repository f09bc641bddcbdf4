"""Sparse adapters: which entries of which layers one changes, by how much, and how it comes off again.

An adapter holds a float32 delta per masked entry; a layer's entries are its weight's, then its bias's, in logical
order. The effective weight is fl(w + a). A random mask depends on (seed, layer, size, density) alone, so nobody
transmits indices (FUSED, arXiv 2502.20709, section 3.3). Taking it off means going back to the stored w:
fl(w + a) - a would not always be w.

`Adapter` is what any kind of adapter can do, `Attached` what one on a live model can; core.lora has the other kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fused_ray.config.parts.adapters import START
from fused_ray.config.parts.door import chosen
from fused_ray.core import starts
from fused_ray.core.layers import density_count, layer_parameters, layer_vector
from fused_ray.core.state import Arrays
from fused_ray.errors import ConfigError
from fused_ray.seeding import permutation
from fused_ray.types import FloatVector, IntVector


class Adapter(Protocol):
    """The shape of an adapter: what its values [V] mean. Hashable parts only, so it crosses the actor boundary."""

    @property
    def names(self) -> tuple[str, ...]:
        """The adapted layers."""
        ...

    @property
    def size(self) -> int:
        """V, the number of values."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many of the values belong to each layer, in the order of `names`."""
        ...

    @property
    def entries(self) -> int:
        """Entries of the adapted layers in all, biases included."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 over all that gives the values their meaning."""
        ...

    def saved(self) -> tuple[Any, Mapping[str, NDArray[Any]]]:
        """What gives the values their meaning, for its file: plain values, and arrays by name."""
        ...

    def attach(self, model: nn.Module) -> Attached:
        """Take hold of the adapted layers of a model that is at its base."""
        ...

    def apply(self, state: Mapping[str, NDArray[np.generic]], values: FloatVector) -> Arrays:
        """M_f = M_r + A_f: a copy of the state with the adapter merged in."""
        ...


class Attached(Protocol):
    """An adapter on a live model. What is trained is the vector theta [V]; `values(theta)` is what is sent."""

    parameters: list[nn.Parameter]
    """The model's tensors whose gradients are needed."""

    def start(self, values: torch.Tensor) -> torch.Tensor:
        """The theta [V] that belongs to values [V]."""
        ...

    def gradient(self, theta: torch.Tensor, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """The loss's gradient in theta [V] from its gradients in `parameters`."""
        ...

    def write(self, theta: torch.Tensor) -> None:
        """Set the model's effective weights."""
        ...

    def values(self, theta: torch.Tensor) -> torch.Tensor:
        """The values [V] that belong to theta [V]; weight decay pulls these towards zero."""
        ...

    def remove(self) -> None:
        """Give every touched entry its old bits again."""
        ...


@dataclass(frozen=True)
class Mask:
    """The entries of one layer that an adapter may change: ascending int64 positions among `entries`."""

    layer: str
    entries: int
    positions: IntVector


@dataclass(frozen=True)
class Masks:
    """A sparse adapter's shape. Its values are one vector: the masks' entries, layer after layer."""

    layers: tuple[Mask, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The adapted layers."""
        return tuple(mask.layer for mask in self.layers)

    @property
    def size(self) -> int:
        """V, the number of values."""
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many of the values belong to each layer."""
        return tuple(len(mask.positions) for mask in self.layers)

    @property
    def entries(self) -> int:
        """Entries of the adapted layers in all, biases included."""
        return sum(mask.entries for mask in self.layers)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over layer names, sizes and positions."""
        digest = hashlib.sha256()
        for mask in self.layers:
            digest.update(f"{mask.layer} {mask.entries} {len(mask.positions)}\n".encode())
            digest.update(mask.positions.astype("<i8").tobytes())
        return digest.hexdigest()

    def saved(self) -> tuple[list[dict[str, Any]], dict[str, IntVector]]:
        """Each layer's name and entries, and its positions."""
        about = [{"layer": mask.layer, "entries": mask.entries} for mask in self.layers]
        return about, {f"positions.{mask.layer}": mask.positions for mask in self.layers}

    def split(self, values: NDArray[np.float32]) -> Iterator[tuple[Mask, NDArray[np.float32]]]:
        """Each mask with its part of a vector of values [V]."""
        at = 0
        for mask in self.layers:
            yield mask, values[at : at + len(mask.positions)]
            at += len(mask.positions)

    def attach(self, model: nn.Module) -> AttachedMasks:
        """Take hold of the masked entries of a model."""
        return AttachedMasks(model, self)

    def apply(self, state: Mapping[str, NDArray[np.generic]], values: FloatVector) -> Arrays:
        """M_f = M_r + A_f: a copy of the state whose masked entries are fl(w + a)."""
        result: Arrays = {name: np.array(array) for name, array in state.items()}
        for mask, part in self.split(values):
            vector = layer_vector(state, mask.layer).copy()
            vector[mask.positions] += part
            at = 0
            for name in layer_parameters(state, mask.layer):
                size = result[name].size
                result[name] = vector[at : at + size].reshape(result[name].shape)
                at += size
        return result


def random_mask(seed: int, layer: str, entries: int, density: float, draw: int = 0) -> Mask:
    """A random mask keeping the share `density` of a layer's entries (nearest whole number, at least one).

    `draw` numbers the masks of one seed.
    """
    return random_count(seed, layer, entries, density_count(density, entries), draw)


def random_count(seed: int, layer: str, entries: int, count: int, draw: int = 0) -> Mask:
    """A random mask keeping `count` of a layer's entries; fewer are a part of more."""
    kept = permutation(entries, seed, f"mask/{layer}/{entries}/{draw}")[:count]
    return Mask(layer, entries, np.sort(kept))


def random_masks(
    seed: int, state: Mapping[str, NDArray[np.generic]], layers: Sequence[str], density: float, draw: int = 0
) -> Masks:
    """Random masks over several layers of a model's state."""
    return Masks(tuple(random_mask(seed, layer, layer_vector(state, layer).size, density, draw) for layer in layers))


def random_counts(
    seed: int, state: Mapping[str, NDArray[np.generic]], counts: Mapping[str, int], draw: int = 0
) -> Masks:
    """Random masks of so many entries of each layer."""
    sizes = {layer: layer_vector(state, layer).size for layer in counts}
    return Masks(tuple(random_count(seed, layer, sizes[layer], count, draw) for layer, count in counts.items()))


def random_budget(
    seed: int, state: Mapping[str, NDArray[np.generic]], layers: Sequence[str], budget: int, draw: int = 0
) -> Masks:
    """Random masks of `budget` entries over all of the layers together (all entries if there are fewer)."""
    entries = {layer: layer_vector(state, layer).size for layer in layers}
    where = "+".join(f"{layer}/{size}" for layer, size in entries.items())
    return masks_of(entries, permutation(sum(entries.values()), seed, f"mask/{where}/{draw}")[:budget])


def masks_of(entries: Mapping[str, int], kept: IntVector) -> Masks:
    """The masks that hold the kept positions of several layers' entries laid end to end; layers without any go."""
    masks, at = [], 0
    for layer, size in entries.items():
        inside = np.sort(kept[(kept >= at) & (kept < at + size)]) - at
        if len(inside):
            masks.append(Mask(layer, size, inside))
        at += size
    return Masks(tuple(masks))


def largest(
    scores: NDArray[np.floating[Any]],
    entries: Mapping[str, int],
    budget: int | None,
    density: float,
    counts: Mapping[str, int] | None = None,
) -> Masks:
    """The entries with the largest scores: `counts` of each layer, else `budget` of all, else the share `density`.

    `scores` are those of several layers' entries laid end to end. Of equal ones the first are taken.
    """
    if budget is not None and counts is None:
        return masks_of(entries, _first(scores, budget))
    parts, at = [], 0
    for layer, size in entries.items():
        count = counts[layer] if counts is not None else density_count(density, size)
        parts.append(at + _first(scores[at : at + size], count))
        at += size
    return masks_of(entries, np.concatenate(parts))


def _first(scores: NDArray[np.floating[Any]], count: int) -> IntVector:
    return np.argsort(-scores, kind="stable")[:count]


def start_values(
    masks: Masks,
    state: Mapping[str, NDArray[np.generic]],
    start: str,
    at_zero: str | None,
    args: Mapping[str, Any] = MappingProxyType({}),
) -> FloatVector:
    """Where an adapter starts [V], as the start of that name says, with its settings; one layer at zero in any case."""
    part, settings = chosen(START, start, args, "start_args")
    parts = []
    for mask in masks.layers:
        weights = layer_vector(state, mask.layer)[mask.positions]
        values = starts.zero(weights, None) if mask.layer == at_zero else part.function(weights, settings)
        if np.shape(values) != weights.shape or not np.isfinite(values).all():
            raise ConfigError(f"unlearn.start: {start} must give {weights.size} finite values for as many entries")
        parts.append(values)
    return np.concatenate(parts).astype(np.float32) + np.float32(0.0)  # adding zero turns -0.0 into 0.0


class AttachedMasks:
    """A sparse adapter on a live model: views of the masked entries, in the model's own memory format.

    `parameters` are the tensors that hold masked entries, `indices` their positions in the flat parameter, and
    `base` [V] the frozen weights w there. Theta is the effective weight fl(w + a) itself.
    """

    _theta: torch.Tensor | None
    _parts: tuple[torch.Tensor, ...]
    """The theta that was written last, and its layers' parts."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self.parameters: list[nn.Parameter] = []
        self.indices: list[torch.Tensor] = []
        named = dict(model.named_parameters())
        for mask in masks.layers:
            at = 0
            for name in layer_parameters(named, mask.layer):
                parameter = named[name]
                inside = mask.positions[(mask.positions >= at) & (mask.positions < at + parameter.numel())] - at
                at += parameter.numel()
                if len(inside):
                    self.parameters.append(parameter)
                    self.indices.append(_physical(inside, parameter).to(parameter.device))
            assert at == mask.entries, f"the mask of {mask.layer} is for {mask.entries} entries, the layer has {at}"
        self.sizes = [len(index) for index in self.indices]
        self.base = self.gather([p.detach() for p in self.parameters])
        self._hold()

    def start(self, values: torch.Tensor) -> torch.Tensor:
        self._hold()
        return self.base + values

    def gradient(self, theta: torch.Tensor, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.gather(gradients)

    def values(self, theta: torch.Tensor) -> torch.Tensor:
        return theta - self.base

    def remove(self) -> None:
        self.write(self.base)

    def gather(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The masked entries [V] of tensors shaped like `parameters` (the weights, or their gradients)."""
        rows = zip(tensors, self.parameters, self.indices, strict=True)
        parts = [flat(tensor, like).index_select(0, index) for tensor, like, index in rows]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def write(self, theta: torch.Tensor) -> None:
        if theta is not self._theta:
            self._theta, self._parts = theta, theta.split(self.sizes)
        for weights, index, part in zip(self._weights, self.indices, self._parts, strict=True):
            weights.index_copy_(0, index, part)

    def _hold(self) -> None:
        """Find the weights in memory once, not in every step of a training; of small layers a step is mostly calls."""
        self._weights = [flat(parameter.detach(), parameter) for parameter in self.parameters]
        self._theta, self._parts = None, ()


@contextmanager
def attached(model: nn.Module, adapter: Adapter, values: FloatVector) -> Iterator[tuple[Attached, torch.Tensor]]:
    """The model with the adapter on, and its theta [V]; afterwards every touched entry has its old bits again."""
    with worn(adapter.attach(model), torch.tensor(values, device=next(model.parameters()).device)) as live:
        yield live


@contextmanager
def worn(live: Attached, values: torch.Tensor) -> Iterator[tuple[Attached, torch.Tensor]]:
    """Put an adapter back onto its model, which is at the base; take it off again at the end."""
    theta = live.start(values)
    try:
        live.write(theta)  # inside: what broke off half-way comes off too
        yield live, theta
    finally:
        live.remove()


def flat(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The tensor's entries in the order in which `like` lies in memory (channels-last or not), a view if it can be."""
    if like.dim() == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)


def _physical(logical: IntVector, parameter: torch.Tensor) -> torch.Tensor:
    """Logical positions as positions in `flat(parameter, parameter)`, in the same order."""
    if parameter.dim() != 4 or parameter.is_contiguous():
        return torch.from_numpy(np.array(logical))
    out, channel, row, column = np.unravel_index(logical, tuple(parameter.shape))
    _, channels, height, width = parameter.shape
    return torch.from_numpy(((out * height + row) * width + column) * channels + channel)

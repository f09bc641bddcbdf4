"""What a process needs to compute clients: the data, a working model, the frozen base and its cached activations.

LocalPool has one; every Ray actor has one. Everything in it can be rebuilt from the data, the configuration and the
installed base, so a restarted actor repeats its work exactly.

The frozen prefix (the stages below the lowest adapted layer) is one canonical pass: evaluation mode, index order,
batches of BLOCK rows, the last one padded with zeros to a multiple of STEP. That is its definition, with or without the
cache. The test set is evaluated in the same blocks, whoever computes which.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fused_ray import models
from fused_ray.config import RunConfig
from fused_ray.core import state
from fused_ray.core.adapter import Adapter, Attached, worn
from fused_ray.core.augment import Draws, augmented
from fused_ray.models import Stage, anatomy
from fused_ray.models.rehearsal import memory_format, rehearse, section_of
from fused_ray.types import FloatVector, ImageData, IntVector, Payload, Scenario

BLOCK = 250
"""Rows of one batch of a frozen prefix or an evaluation, examples."""

STEP = 50
"""Rows of a last batch are a multiple of it: a few rows alone would have other bits, by kernels for small matrices."""


def test_blocks(data: ImageData) -> int:
    """How many blocks the test set is evaluated in."""
    return -(-len(data.test_labels) // BLOCK)


class Workspace:
    """One process's working model and caches. Not thread-safe; one client is computed at a time.

    `form` is the memory format that was found for the model where the run was checked; without it, it is found here.
    """

    def __init__(
        self,
        config: RunConfig,
        data: ImageData,
        scenario: Scenario,
        device: str = "cpu",
        form: torch.memory_format | None = None,
    ) -> None:
        self.config, self.data, self.scenario = config, data, scenario
        self.device = torch.device(device)
        shape = data.shape
        model = models.build(config.model, shape, data.classes)
        # channels-last convolutions are the faster ones on CPU and GPU; the format is part of what fixes the bits
        section = section_of(config.model)
        self._format = memory_format(section, shape, data.classes) if form is None else form
        if self.device.type != "cpu":  # where the model may fail for reasons of its own
            rehearse(section, shape, data.classes, device, self._format)
        self.model: nn.Module = model.to(self.device, memory_format=self._format)  # type: ignore[call-overload]
        self.stages: list[Stage] = anatomy.stages(self.model, shape, self._format)
        self.fixed = state.fixed(self.model)
        channels = (1, -1, *(1 for _ in shape[1:]))
        self._mean = torch.tensor(data.mean, device=self.device).reshape(channels)
        self._std = torch.tensor(data.std, device=self.device).reshape(channels)
        self._base: Payload | None = None
        self._holds_base = False
        self._live: tuple[Adapter, Attached] | None = None
        self._cache: dict[tuple[str, bytes, int], torch.Tensor] = {}
        self._cached_bytes = 0
        self._of_base: dict[Hashable, IntVector] = {}

    # -- the working model

    def load(self, payload: Payload) -> None:
        """Make the working model a payload's state."""
        state.write(self.model, payload)
        self._holds_base = False

    def install(self, base: Payload) -> None:
        """Take M_r as the frozen base of what follows."""
        self._base = base
        self._holds_base = False
        self._live = None
        self._cache.clear()
        self._cached_bytes = 0
        self._of_base.clear()

    def use_base(self) -> None:
        """Make the working model the frozen base, in evaluation mode. An adapter that came off has left it so."""
        assert self._base is not None, "no base is installed"
        if not self._holds_base:
            state.write(self.model, self._base)
            self._holds_base = True
        self.model.eval()

    @contextmanager
    def attached(self, adapter: Adapter, values: FloatVector) -> Iterator[tuple[Attached, torch.Tensor]]:
        """The base with an adapter on, and its theta [V]; the base again afterwards.

        Taking hold of millions of entries takes as long as a training step, so the last adapter keeps its hold.
        """
        self.use_base()
        known = self._live is not None and (self._live[0] is adapter or self._live[0].digest == adapter.digest)
        if self._live is None or not known:
            self._live = (adapter, adapter.attach(self.model))
        with worn(self._live[1], torch.tensor(values, device=self.device)) as live:
            yield live

    def of_base(self, key: Hashable, make: Callable[[], IntVector]) -> IntVector:
        """Examples that are chosen by what the base makes of them, once; the model is left at its base."""
        self.use_base()
        if key not in self._of_base:
            self._of_base[key] = make()
        return self._of_base[key]

    def base_hashes(self) -> list[str]:
        """SHA-256 of all that stands for M_r here, buffers included; what is used without a check must prove itself.

        The stored base, the live model as it lies if it is taken for the base, and what removing the last adapter,
        which keeps its hold and so values of its own, makes of the base.
        """
        assert self._base is not None, "no base is installed"
        live = state.arrays(self.model)
        hashes = [state.state_hash(state.unflatten(self._base, live))]
        if self._holds_base:
            hashes.append(state.state_hash(live))
        if self._live is not None:
            self.use_base()
            self._live[1].remove()
            hashes.append(state.state_hash(state.arrays(self.model)))
        return hashes

    # -- inputs

    def images(self, source: str, indices: IntVector, draws: Draws | None = None) -> torch.Tensor:
        """Normalised inputs float32 [len(indices), *shape] of "train" or "test".

        With draws, images as random views by `data.augment`.
        """
        pixels = (self.data.train_images if source == "train" else self.data.test_images)[indices]
        if draws is not None:
            pixels = augmented(pixels, self.config.data.augment, draws)
        return self.normalised(pixels)

    def normalised(self, pixels: NDArray[Any]) -> torch.Tensor:
        """Inputs as the model takes them: float32, less the data's mean and over its deviation, fixed numbers.

        Images are divided by 255 first.
        """
        batch = torch.from_numpy(pixels).to(self.device, torch.float32, copy=True)
        if pixels.dtype == np.uint8:
            batch.div_(255.0)
        batch = batch.sub_(self._mean).div_(self._std)
        return batch.contiguous(memory_format=self._format)

    def labels(self, indices: IntVector) -> torch.Tensor:
        """The labels int64 [len(indices)] that clients train on."""
        return torch.from_numpy(self.scenario.train_labels[indices]).to(self.device)

    def cut(self, layers: Iterable[str]) -> int:
        """The number of stages in the frozen prefix below the lowest of these layers."""
        adapted = set(layers)
        return next(i for i, stage in enumerate(self.stages) if adapted & set(stage.layers))

    def suffix(self, cut: int, x: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes] from the activations above `cut` stages; from images, by the model's own forward."""
        if cut == 0:
            logits: torch.Tensor = models.logits_of(self.model(x))
            return logits
        for stage in self.stages[cut:]:
            x = stage.forward(x)
        logits = models.logits_of(x)
        return logits

    @torch.no_grad()
    def activations(self, source: str, indices: IntVector, cut: int) -> torch.Tensor:
        """The frozen prefix's output for examples of "train" or "test", cached if there is room. The model is at its
        base.
        """
        assert self._holds_base, "the model is not at its base"
        key = (source, indices.tobytes(), cut)  # 8 bytes an example, where its activations take hundreds
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        parts = []
        for start in range(0, len(indices), BLOCK):
            part = indices[start : start + BLOCK]
            x = self.padded(self.images(source, part))
            for stage in self.stages[:cut]:
                x = stage.forward(x)
            parts.append(x[: len(part)])
        result = torch.cat(parts)
        size, limit = _size(result), self.config.engine.prefix_cache_mb * 1e6
        if self._cached_bytes + size > limit:  # an earlier run's prefix makes room for this run's
            self._cache = {entry: x for entry, x in self._cache.items() if entry[2] == cut}
            self._cached_bytes = sum(map(_size, self._cache.values()))
        if self._cached_bytes + size <= limit:
            self._cache[key] = result
            self._cached_bytes += size
        return result

    # -- evaluation

    def predict_model(self, payload: Payload, blocks: Iterable[int]) -> list[IntVector]:
        """Predicted classes of a whole model on blocks of the test set."""
        self.load(payload)
        self.model.eval()
        with torch.inference_mode():
            return [
                self.suffix(0, self.padded(self.images("test", rows))).argmax(1)[: len(rows)].cpu().numpy()
                for rows in self._block_rows(blocks)
            ]

    def predict_adapter(self, adapter: Adapter, values: FloatVector, blocks: Sequence[int]) -> list[IntVector]:
        """Predicted classes of M_r + A_f on blocks of the test set."""
        cut = self.cut(adapter.names)
        result = []
        with self.attached(adapter, values), torch.no_grad():
            for rows in self._block_rows(blocks):
                x = self.activations("test", rows, cut)
                result.append(self.suffix(cut, self.padded(x)).argmax(1)[: len(rows)].cpu().numpy())
        return result

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """The batch filled up with zero rows to a multiple of STEP."""
        rows = -(-len(x) // STEP) * STEP
        if len(x) == rows:
            return x
        filled = torch.zeros((rows, *x.shape[1:]), dtype=x.dtype, device=x.device)
        if x.dim() == 4:
            filled = filled.contiguous(memory_format=self._format)
        filled[: len(x)] = x
        return filled

    def _block_rows(self, blocks: Iterable[int]) -> Iterator[IntVector]:
        total = len(self.data.test_labels)
        for block in blocks:
            yield np.arange(block * BLOCK, min((block + 1) * BLOCK, total))


def _size(x: torch.Tensor) -> int:
    """Bytes of a tensor's elements."""
    return x.numel() * x.element_size()

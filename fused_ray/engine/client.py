"""ClientActor: a thin Ray shell around core.workspace and core.work. It holds one client, or several packed ones.

The class stays plain and is bound to Ray under another name, so that it is pickled by reference and its module is
imported in the worker before anything is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
import torch

from fused_ray.config import RunConfig
from fused_ray.core import numerics
from fused_ray.core.standard import standard
from fused_ray.core.work import Evaluation, Work, compute
from fused_ray.core.workspace import Workspace
from fused_ray.engine.parcels import unpacked
from fused_ray.errors import PlacementError
from fused_ray.storage.environment import machine
from fused_ray.types import Identity, ImageData, IntVector, PartialSum, Payload, Scenario

_GPU_RESERVE = 0.9
"""Share of its slice of a card that an actor may allocate; the rest is for CUDA's own context."""


class ClientActor:
    """Computes its clients one at a time on one CPU thread, or on its share of a GPU.

    What it computes is a pure function of the arguments, so a new actor can repeat what a dead one did.
    """

    def __init__(
        self, config: RunConfig, data: ImageData, scenario: Scenario, form: torch.memory_format, gpu_share: float
    ) -> None:
        self._device, self._gpus = "cuda" if gpu_share > 0 else "cpu", gpu_share
        if gpu_share > 0 and not torch.cuda.is_available():
            raise PlacementError(
                f"an actor has a GPU that PyTorch {torch.__version__} cannot use; install a CUDA build of it on every "
                "node, or set federation.actor_gpus=0"
            )
        if gpu_share > 0:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # sums in one order; the rest is in standard()
        if 0 < gpu_share < 1:
            torch.cuda.set_per_process_memory_fraction(gpu_share * _GPU_RESERVE)
        self._kept: tuple[int, PartialSum] | None = None
        """A round's number, and the sum over the clients that were computed in it and not handed over."""
        self.assign(config, data, scenario, form)

    @standard()
    def assign(self, config: RunConfig, data: ImageData, scenario: Scenario, form: torch.memory_format) -> None:
        config.check_parts()  # what this node cannot import is told before any work is sent
        self._space = Workspace(config, data, scenario, self._device, form)

    @standard()
    def identity(self) -> Identity:
        here = ray.get_runtime_context()
        cpus = here.get_assigned_resources().get("CPU", 0.0)
        identity = numerics.identity(here.get_node_id(), self._device)
        return replace(identity, cpus=cpus, gpus=self._gpus, machine=machine())

    @standard()
    def install(self, base: Payload) -> None:
        self._space.install(base)

    @standard()
    def train(
        self,
        task: tuple[Work, Payload],
        once: Mapping[str, Any] | None,
        each: Mapping[str, Any],
        clients: Sequence[int],
        keep_updates: bool,
        round: int,
        last: bool,
    ) -> PartialSum | None:
        """Add clients to this round's sum, and hand it over if they are the last.

        The sum leaves the actor once, so it dies with it: then all of its calls of this round are made again, on a
        new actor or on others, and none of them is in any other sum.
        """
        work, payload = unpacked(task[0], once, each), task[1]
        kept = self._kept[1] if self._kept is not None and self._kept[0] == round else None
        total = compute(self._space, work, payload, clients, keep_updates, onto=kept)
        self._kept = None if last else (round, total)
        return total if last else None

    @standard()
    def evaluate(
        self, task: tuple[Evaluation, Payload], once: Mapping[str, Any] | None, blocks: Sequence[int]
    ) -> list[IntVector]:
        evaluation, payload = unpacked(task[0], once, {}), task[1]
        return evaluation.predict(self._space, payload, blocks)

    @standard()
    def base_hashes(self) -> list[str]:
        return self._space.base_hashes()


RemoteClient = ray.remote(ClientActor)

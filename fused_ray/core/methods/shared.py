"""What several methods share: the trained part of a payload, and training of the past once more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from fused_ray import models
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.rounds import Federation
from fused_ray.core.work import Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import IntVector, Payload


@dataclass(frozen=True)
class Replay(FullTraining):
    """A client's training in a round of pre-training once more: the same model and batches, hence the same bits.

    It stands for what a deployment would have stored at the time, so no message is counted.
    """

    original: int
    """The round of pre-training."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        return FullTraining("pretrain", self.original, self.seed, self.train, self.on).update(space, payload, client)

    def upload_bytes(self, payload: Payload) -> int:
        return 0

    def download_bytes(self, payload: Payload) -> int:
        return 0


def spans(model: nn.Module) -> list[slice]:
    """Where each parameter tensor lies in a payload's values [P]; what no span covers are buffers."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found, at = [], 0
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            if name in parameters:
                found.append(slice(at, at + tensor.numel()))
            at += tensor.numel()
    return found


def parameters(model: nn.Module) -> IntVector:
    """The positions of all parameters in a payload's values, ascending."""
    return np.concatenate([np.arange(span.start, span.stop) for span in spans(model)])


def blank_model(federation: Federation) -> nn.Module:
    """The configured model, for its names and shapes alone."""
    channels, height, width = federation.data.train_images.shape[1:]
    return models.build(federation.config.model, (channels, height, width), federation.data.classes)

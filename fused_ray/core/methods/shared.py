"""What several methods share: training of the past once more, and a model for its names alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fused_ray import models
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.rounds import Federation
from fused_ray.core.work import Update
from fused_ray.core.workspace import Workspace
from fused_ray.types import Payload


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


def blank_model(federation: Federation) -> nn.Module:
    """The configured model, for its names and shapes alone."""
    return models.build(federation.config.model, federation.data.shape, federation.data.classes)

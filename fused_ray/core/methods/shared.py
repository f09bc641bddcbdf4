"""What several methods share: training of the past once more, and a model for its names alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import nn

from fused_ray import models
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.rounds import Federation, Round
from fused_ray.core.state import Arrays
from fused_ray.core.work import Update
from fused_ray.core.workspace import Workspace
from fused_ray.errors import ClientFailedError, ConfigError
from fused_ray.types import Payload, Scenario


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


def staying(scenario: Scenario, took_part: Sequence[int], method: str, round: int) -> Sequence[int]:
    """Those clients of a round of pre-training that keep data. Raises ConfigError if none does."""
    if not took_part:
        raise ConfigError(
            f"unlearn.method: {method} goes back to round {round} of pre-training, which was abandoned, for too few "
            "were in; raise deployment.deadline_s or over_selection, or lower deployment.min_share"
        )
    clients = [client for client in took_part if len(scenario.retained[client])]
    if not clients:
        raise nobody_stays(method, round)
    return clients


def nobody_stays(method: str, round: int) -> ConfigError:
    """Why a method cannot go back to a round of pre-training."""
    return ConfigError(
        f"unlearn.method: {method} goes back to round {round} of pre-training without the forgotten data, and nobody "
        "else took part in it; raise pretrain.participation"
    )


def all_there(needed: Sequence[int], there: Collection[int], phase: str, round: int) -> None:
    """Raises ClientFailedError if one failed that nobody can stand in for, where others are left out."""
    missing = [client for client in needed if client not in there]
    if missing:
        raise ClientFailedError(
            f"{phase} round {round}: client {missing[0]} failed, and nobody can stand in for it; go on with --resume, "
            "or take federation.on_failure=wait"
        )


def with_all(needed: Sequence[int], phase: str) -> Callable[[Round], tuple[Payload, Arrays]]:
    """The mean, as what the server makes of a round in which all of these are.

    It raises ClientFailedError where one of them is not: what it must forget would stay.
    """

    def server(round: Round) -> tuple[Payload, Arrays]:
        all_there(needed, round.examples, phase, round.number)
        return round.mean, {}

    return server


def blank_model(federation: Federation) -> nn.Module:
    """The configured model, for its names and shapes alone."""
    return models.build(federation.config.model, federation.data.shape, federation.data.classes)

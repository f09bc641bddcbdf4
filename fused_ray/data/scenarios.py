"""What must be forgotten: one function a scenario, from the data set to who holds, keeps and forgets what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fused_ray.config import RunConfig
from fused_ray.data.partitions import digest, partition
from fused_ray.errors import DataError
from fused_ray.seeding import permutation
from fused_ray.types import ImageData, IntVector, Scenario, TestView


def build(config: RunConfig, data: ImageData) -> Scenario:
    """The configured scenario. Raises DataError where nothing would be forgotten, or nothing kept."""
    scenario = _SCENARIOS[config.forget.scenario](config, data)
    kept = sum(len(part) for part in scenario.retained)
    if kept == 0:
        raise DataError("nothing would be kept: every example is to be forgotten; forget fewer classes")
    if kept == sum(len(part) for part in scenario.held):
        raise DataError("there is nothing to forget: no client holds such examples; check the forget section")
    for name, view in scenario.views.items():
        if not len(view.indices):
            raise DataError(f"the test set has no examples to measure {name} on; raise data.limit")
    return scenario


def _forget_classes(config: RunConfig, data: ImageData) -> Scenario:
    """Whole classes, everywhere."""
    held = partition(config.data, config.federation.clients, data.train_labels, config.seed)
    gone = np.isin(data.train_labels, config.forget_classes)
    return Scenario(
        held=held,
        retained=tuple(part[~gone[part]] for part in held),
        train_labels=data.train_labels,
        views={
            "ra": _view(data, ~np.isin(data.test_labels, config.forget_classes)),
            "fa": _view(data, np.isin(data.test_labels, config.forget_classes)),
        },
        partition_sha256=digest(held),
    )


def _forget_exclusive(config: RunConfig, data: ImageData) -> Scenario:
    """All that the owner knows: it alone holds classes[0] and most of classes[1], and nothing else."""
    own, shared = config.forget_classes
    labels = data.train_labels
    overlap = np.flatnonzero(labels == shared)
    overlap = overlap[permutation(len(overlap), config.seed, "exclusive")]
    owners = np.sort(
        np.concatenate([np.flatnonzero(labels == own), overlap[: int(config.forget.overlap * len(overlap))]])
    )
    others = np.setdiff1d(np.arange(len(labels)), owners)
    parts = partition(config.data, config.federation.clients - 1, labels[others], config.seed)
    held: list[IntVector] = [others[part] for part in parts]
    held.insert(config.forget.owner, owners)
    retained = list(held)
    retained[config.forget.owner] = owners[:0]
    return Scenario(
        held=tuple(held),
        retained=tuple(retained),
        train_labels=labels,
        views={
            "ra": _view(data, ~np.isin(data.test_labels, (own, shared))),
            "fa": _view(data, data.test_labels == own),
            "ca": _view(data, data.test_labels == shared),
        },
        partition_sha256=digest(held),
    )


def _view(data: ImageData, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> TestView:
    indices = np.flatnonzero(chosen)
    return TestView(indices, data.test_labels[indices])


_SCENARIOS: dict[str, Callable[[RunConfig, ImageData], Scenario]] = {
    "class": _forget_classes,
    "exclusive": _forget_exclusive,
}

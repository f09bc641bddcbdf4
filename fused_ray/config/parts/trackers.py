"""Trackers: programs of others that show a run's figures. Only their names are here; runs.trackers talks to them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import BeforeValidator

from fused_ray.config.fields import name_listed
from fused_ray.errors import ConfigError

Tracker = Literal["tensorboard", "mlflow", "wandb"]
Trackers = Annotated[tuple[Tracker, ...], BeforeValidator(name_listed)]
_PACKAGES: dict[Tracker, str] = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_installed(trackers: Iterable[Tracker]) -> None:
    """Raises ConfigError where the package of one is missing; none is imported."""
    for name in trackers:
        spec = find_spec(_PACKAGES[name])
        if spec is None or spec.origin is None:  # a folder of that name, which wandb leaves behind, is no package
            raise ConfigError(f"output.trackers: {name} is not installed: pip install 'fused-ray[{name}]'")

"""Data sets, partitions and scenarios: what is known of each without importing it, and the settings of its own.

Together they make a task: which examples there are, who holds them, and what of them must be forgotten. One that
another package brings is one of these records there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from fused_ray.config import registry
from fused_ray.config.parts import Door

Kind = Literal["class", "client", "sample", "exclusive"]


@dataclass(frozen=True)
class DataSet:
    """A data set of another package; its settings stand in data.args."""

    load: str | Callable[..., Any]
    """A function of (seed, **settings) that returns Loaded, or where it is: package.module:function. Constants that it
    normalises by must be fixed ones: those of the training examples know what is to be forgotten."""
    images: bool = True
    """Whether inputs are images: uint8 [n, channels, height, width]. Else they are float32 [n, ...], taken as they are:
    without data.augment, a trigger, or the registered models."""
    section: type[BaseModel] | None = None
    """The settings of its own, a subclass of `fused_ray.config.Section`."""


@dataclass(frozen=True)
class Partitioning:
    """A way to share training examples out among clients; its settings stand in data.partition_args."""

    split: str | Callable[..., Any]
    """A function of (labels [n], clients, seed, columns, **settings), or where it is: package.module:function. It
    returns, per client, the indices [k] of the examples that it holds; all of them together name each example once.
    `columns` are what the data set tells of each example besides, by name, [n] each."""
    section: type[BaseModel] | None = None
    """The settings of its own, a subclass of `fused_ray.config.Section`."""


@dataclass(frozen=True)
class Request:
    """A scenario: what must be forgotten; its settings stand in forget.args."""

    forget: str | Callable[..., Any]
    """A function of (Settings, ImageData, Partition) that returns Forgotten, or where it is: package.module:function.
    A scenario finds its own settings in `settings.scenario_options`."""
    like: Kind
    """What goes, in kind: whole classes (class), all of some clients (client), single examples (sample), or all that
    one client alone knew (exclusive). Methods say by these names what they can do."""
    what: str = ""
    """What goes, in the words of a title: "forgetting ..."."""
    section: type[BaseModel] | None = None
    """The settings of its own, a subclass of `fused_ray.config.Section`."""


SCENARIOS: dict[str, Request] = {
    "class": Request("fused_ray.data.scenarios:forget_classes", "class"),
    "client": Request("fused_ray.data.scenarios:forget_clients", "client"),
    "sample": Request("fused_ray.data.scenarios:forget_samples", "sample"),
    "exclusive": Request("fused_ray.data.scenarios:forget_exclusive", "exclusive"),
}
PARTITIONS = ("iid", "dirichlet", "pathological", "file")
DATASET: Door[DataSet | None] = Door(
    "data set", "fused_ray.datasets", dict.fromkeys(registry.DATASETS), DataSet, "a fused_ray.api.DataSet"
)
"""This package's own are None: data/datasets.py reads them, and `registry` says what is known of them."""
PARTITIONING: Door[Partitioning | None] = Door(
    "partition", "fused_ray.partitions", dict.fromkeys(PARTITIONS), Partitioning, "a fused_ray.api.Partitioning"
)
"""This package's own are None: data/partitions.py makes them, by the settings of the section `data`."""
SCENARIO = Door("scenario", "fused_ray.scenarios", SCENARIOS, Request, "a fused_ray.api.Request")
MODEL = Door(
    "model", "fused_ray.models", registry.MODELS, registry.ModelInfo, "a registered model", "set model.factory"
)
"""Of an installed package's models only the place is asked for: to import one takes PyTorch."""

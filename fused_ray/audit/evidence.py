"""What further metrics of an audit work with, and what they come to. A metric that fails spoils nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from fused_ray.audit.outputs import Logits, logits
from fused_ray.audit.yardstick import Seen, Yardstick
from fused_ray.config.parts.metrics import Answer, Measured, Metric
from fused_ray.core.adapter import Adapter
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.standard import kept
from fused_ray.core.state import Arrays, flatten
from fused_ray.core.workspace import Workspace
from fused_ray.errors import Interrupted, in_one_line
from fused_ray.seeding import generator, untouched
from fused_ray.types import FloatVector, IntVector

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model, and what it says."""

    weights: Arrays
    """Its parameters and buffers by name; not to be written to, as all arrays here."""
    outputs: Mapping[str, Logits]
    """Logits on the images of each test view: `ra` on what stays, `fa` on what is forgotten, ... [n, C]"""


@dataclass(frozen=True)
class Means:
    """What belongs to one unlearning beside its models."""

    adapter: tuple[Adapter, FloatVector] | None = None
    """A_f and its values [V]; None where a method changed the whole model."""
    federation: Federation | None = None
    """What trains further models; None: all clients one after the other in this process, and nothing is kept."""


NO_MEANS = Means()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the audit knows of an unlearning."""

    space: Workspace
    """A working model, the configuration, all data, and who holds and forgets what; a metric may do with it as it
    likes."""
    before: Known
    """M_r."""
    after: Known
    """M_f."""
    retrained: Known | None
    """None where retraining was left out."""
    others: Sequence[Known] = ()
    """More retrained models, of other seeds: what one of them is told as if it had forgotten is the control."""
    labels: Mapping[str, IntVector]
    """What counts as right on each view [n]."""
    rng: np.random.Generator
    """Derived from the run's seed and the metric's name: the same for every method of a scenario."""
    means: Means = NO_MEANS
    memory: dict[str, Any] = field(default_factory=dict)
    """Of `remembered`."""

    @property
    def adapter(self) -> tuple[Adapter, FloatVector] | None:
        """A_f and its values [V]; None where a method changed the whole model."""
        return self.means.adapter

    @cached_property
    def federation(self) -> Federation:
        """Trains further models by rounds: on the run's own workers, and kept from round to round, where it can be.

        A phase's name is its key: one that was made before is taken as it is.
        """
        if self.means.federation is not None:
            return self.means.federation
        about = self.space.config, self.space.data, self.space.scenario
        return Federation(*about, LocalPool(*about), MemoryRecorder())

    def known(self, weights: Arrays) -> Known:
        """What a model says on every test view."""
        said = logits(self.space, flatten(weights), "test", np.arange(len(self.space.data.test_labels)))
        views = self.space.scenario.views.items()
        return Known(weights=weights, outputs={name: said[view.indices] for name, view in views})

    def accuracy(self, model: Known) -> dict[str, float]:
        """Of each view."""
        return {view: float(np.mean(said.argmax(1) == self.labels[view])) for view, said in model.outputs.items()}

    def remembered(self, what: str, compute: Callable[[], T]) -> T:
        """What depends on no unlearned model: computed once for all methods of a scenario, in one process."""
        if what not in self.memory:
            self.memory[what] = compute()
        found: T = self.memory[what]
        return found


def measured(
    metrics: Sequence[Metric], yardstick: Yardstick, after: Arrays, seen: Seen, means: Means = NO_MEANS
) -> dict[str, Any]:
    """The figures of all metrics, for a report; those that failed are named, with the reason, and left out.

    `seen` is what the model `after` says about the test images.
    """
    figures: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    failed: list[str] = []
    for metric in metrics:
        try:
            with kept(), untouched():
                returned = metric.function(_evidence(metric, yardstick, after, seen, means))
            numbers = _figures(metric, returned)
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code does
            failed.append(f"metric {metric.name}: {in_one_line(error)}; it is left out")
            continue
        figures += [
            {"name": n, "value": v, "better": metric.better, "meaning": metric.legend} for n, v in numbers.items()
        ]
        if isinstance(returned, Answer):
            answers.append({"name": metric.name, "passes": returned.passes, "said": returned.said})
            details[metric.name] = returned.details
    return {
        "audit_metrics": figures,
        "audit_metrics_failed": failed,
        "audit_answers": answers,
        "audit_details": details,
    }


def _evidence(metric: Metric, yardstick: Yardstick, after: Arrays, seen: Seen, means: Means) -> Evidence:
    given, views = yardstick.space, yardstick.space.scenario.views

    def known(weights: Arrays, seen: Seen) -> Known:
        outputs = {view: seen.outputs[asked.indices] for view, asked in views.items()}
        return Known(weights={name: _guarded(array) for name, array in weights.items()}, outputs=outputs)

    retrained = yardstick.retrained, yardstick.seen_retrained
    return Evidence(
        space=Workspace(given.config, given.data, given.scenario),  # the yardstick's own serves other methods too
        before=known(yardstick.before, yardstick.seen_before),
        after=known(after, seen),
        retrained=None if retrained[0] is None or retrained[1] is None else known(retrained[0], retrained[1]),
        others=[known(model, seen) for model, seen in zip(yardstick.others, yardstick.seen_others, strict=True)],
        labels={view: asked.labels.copy() for view, asked in views.items()},
        rng=generator(given.config.seed, f"metric {metric.name}"),
        means=means,
        memory=yardstick.memory.setdefault(metric.name, {}),
    )


def _guarded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _figures(metric: Metric, returned: Measured) -> dict[str, float]:
    """One figure, or several by name. Raises ValueError where they are no finite numbers."""
    if isinstance(returned, Answer):
        passes = {} if returned.passes is None else {"passes": float(returned.passes)}
        returned = {**passes, **returned.figures}
    named = (
        {f"{metric.name}_{key}": value for key, value in returned.items()}
        if isinstance(returned, Mapping)
        else {metric.name: returned}
    )
    figures = {name: float(value) for name, value in named.items()}
    for name, value in figures.items():
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise ValueError(f"it names a figure {name!r}; use small letters, digits and _")
        if not np.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return figures

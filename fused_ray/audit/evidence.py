"""What further metrics of an audit work with, and what they come to. A metric that fails spoils nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fused_ray.audit.outputs import Logits
from fused_ray.audit.yardstick import Seen, Yardstick
from fused_ray.config.parts.metrics import Metric
from fused_ray.core.standard import kept
from fused_ray.core.state import Arrays
from fused_ray.core.workspace import Workspace
from fused_ray.errors import Interrupted, in_one_line
from fused_ray.seeding import generator, untouched
from fused_ray.types import IntVector


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model, and what it says."""

    weights: Arrays
    """Its parameters and buffers by name; not to be written to, as all arrays here."""
    outputs: Mapping[str, Logits]
    """Logits on the images of each test view: `ra` on what stays, `fa` on what is forgotten, ... [n, C]"""


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
    labels: Mapping[str, IntVector]
    """What counts as right on each view [n]."""
    rng: np.random.Generator
    """Derived from the run's seed and the metric's name: the same for every method of a scenario."""


def measured(metrics: Sequence[Metric], yardstick: Yardstick, after: Arrays, seen: Seen) -> dict[str, Any]:
    """The figures of all metrics, for a report; those that failed are named, with the reason, and left out.

    `seen` is what the model `after` says about the test images.
    """
    figures: list[dict[str, Any]] = []
    failed: list[str] = []
    for metric in metrics:
        try:
            with kept(), untouched():
                numbers = _figures(metric, metric.function(_evidence(metric, yardstick, after, seen)))
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code does
            failed.append(f"metric {metric.name}: {in_one_line(error)}; it is left out")
            continue
        figures += [
            {"name": n, "value": v, "better": metric.better, "meaning": metric.legend} for n, v in numbers.items()
        ]
    return {"audit_metrics": figures, "audit_metrics_failed": failed}


def _evidence(metric: Metric, yardstick: Yardstick, after: Arrays, seen: Seen) -> Evidence:
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
        labels={view: asked.labels.copy() for view, asked in views.items()},
        rng=generator(given.config.seed, f"metric {metric.name}"),
    )


def _guarded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _figures(metric: Metric, returned: float | Mapping[str, float]) -> dict[str, float]:
    """One figure, or several by name. Raises ValueError where they are no finite numbers."""
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

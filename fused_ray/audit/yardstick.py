"""What an unlearning is measured against: M_r, retrained models, the control, and an attacker with shadow models.

None of it depends on the method, so methods that unlearned from one model share a yardstick. Its figures are computed
when they are first asked for, and kept.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fused_ray.audit.accuracy import Accuracy, accuracies
from fused_ray.audit.control import control, output_bias
from fused_ray.audit.distance import Distance, distance
from fused_ray.audit.gradients import Gradients, Opposition, gradients, opposition
from fused_ray.audit.information import Index, Information, index, information
from fused_ray.audit.membership import Adversary, Membership, prepare
from fused_ray.audit.outputs import Logits, logits
from fused_ray.audit.probes import Recovery, head_recovery, output_layer
from fused_ray.audit.relearning import REPEATS, STEPS, Relearning, relearn
from fused_ray.audit.shadow import Shadow
from fused_ray.core.adapter import Masks
from fused_ray.core.state import Arrays, flatten
from fused_ray.core.workspace import Workspace
from fused_ray.errors import DataError


@dataclass(frozen=True)
class Seen:
    """What a model says about all test images [m, C], and its accuracy in every view."""

    outputs: Logits
    accuracy: dict[str, Accuracy]


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """The models that every method of a scenario is compared with."""

    space: Workspace
    before: Arrays
    """M_r."""
    retrained: Arrays | None = None
    """A model that never saw D_u: the standard."""
    others: Sequence[Arrays] = ()
    """More of them, from other seeds: how far retrained models differ by themselves."""
    shadows: Sequence[Shadow] = ()
    probes: bool = False
    """Look inside by linear probes and gradients, too."""
    steps: int = STEPS
    """Of relearning."""
    repeats: int = REPEATS
    memory: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    """What further metrics found out about these models, by metric."""

    @cached_property
    def seen_before(self) -> Seen:
        return self.see(self.before)

    @cached_property
    def seen_retrained(self) -> Seen | None:
        return None if self.retrained is None else self.see(self.retrained)

    @cached_property
    def seen_control(self) -> Seen:
        outputs = control(self.space, self.seen_before.outputs, output_bias(self.before, output_layer(self.space)))
        return Seen(outputs, accuracies(self.space.scenario, outputs.argmax(1)))

    @cached_property
    def seen_others(self) -> list[Seen]:
        return [self.see(model) for model in self.others]

    @cached_property
    def floor(self) -> dict[str, Distance] | None:
        """The distances of another retrained model to the retrained one."""
        return self.distances(self.seen_others[0]) if self.others else None

    @cached_property
    def fa_floor(self) -> float:
        """How far FA of retrained models differs by itself: a standard deviation."""
        if self.seen_retrained is None:
            return 0.0
        of_retrained = [seen.accuracy["fa"].weighted for seen in (self.seen_retrained, *self.seen_others)]
        p, examples = of_retrained[0], len(self.space.scenario.views["fa"].indices)
        return _spread(of_retrained, (p * (1 - p) / examples) ** 0.5)

    @cached_property
    def auc_floor(self) -> float:
        """The same for the membership attack's AUC; that of guessing is Hanley and McNeil's (1982)."""
        if self.membership_retrained is None:
            return 0.0
        n = self.membership_retrained.examples
        attacks = [self.membership_retrained, *filter(None, map(self.attack, self.others))]
        return _spread([each.strongest.auc for each in attacks], ((2 * n + 1) / 12) ** 0.5 / n)

    @cached_property
    def adversary(self) -> Adversary | None:
        """None where no test image is like the forgotten ones."""
        try:
            return prepare(self.space, self.shadows)
        except DataError:
            return None

    @cached_property
    def membership_retrained(self) -> Membership | None:
        return None if self.retrained is None else self.attack(self.retrained)

    @cached_property
    def relearning_retrained(self) -> Relearning | None:
        return None if self.retrained is None else self.relearn(self.retrained)

    @cached_property
    def recovery_retrained(self) -> Recovery | None:
        return None if self.retrained is None else self.recover(self.retrained)

    @cached_property
    def recovery_before(self) -> Recovery:
        return self.recover(self.before)

    @cached_property
    def information_before(self) -> Information | None:
        return information(self.space, flatten(self.before)) if self.probes else None

    @cached_property
    def information_retrained(self) -> list[Information]:
        models = () if self.retrained is None else (self.retrained, *self.others)
        measured = (information(self.space, flatten(model)) for model in models)
        return [each for each in measured if each is not None]

    @cached_property
    def gradients(self) -> Gradients:
        return gradients(self.space, flatten(self.before))

    @cached_property
    def opposition_everywhere(self) -> Opposition:
        return self.opposition(None)

    def see(self, model: Arrays) -> Seen:
        """A model on all test images."""
        outputs = logits(self.space, flatten(model), "test", np.arange(len(self.space.data.test_labels)))
        return Seen(outputs, accuracies(self.space.scenario, outputs.argmax(1)))

    def attack(self, model: Arrays) -> Membership | None:
        """What an attacker learns from a model about D_u's membership; None where there is nobody to compare with."""
        return None if self.adversary is None else self.adversary.attack(self.space, flatten(model))

    def relearn(self, model: Arrays, shuffled: bool = False) -> Relearning:
        """How a model learns D_u again."""
        fa_before = self.seen_before.accuracy["fa"].weighted
        return relearn(self.space, flatten(model), fa_before, self.steps, self.repeats, shuffled)

    def recover(self, model: Arrays) -> Recovery:
        """FA of a new output layer on a model's features."""
        return head_recovery(self.space, flatten(model))

    def index(self, model: Arrays) -> tuple[Index, Information] | None:
        """What is left inside a model; None where it was not asked for, does not apply, or nothing is retrained."""
        if self.information_before is None or not self.information_retrained:
            return None
        after = information(self.space, flatten(model))
        assert after is not None
        return index(self.information_before, self.information_retrained, after), after

    def changed_head_alone(self, model: Arrays) -> bool:
        """Whether a model differs from M_r in the output layer and nowhere else."""
        return changed_head_alone(self.before, model, output_layer(self.space))

    def opposition(self, masks: Masks | None) -> Opposition:
        """Gradient opposition at M_r, on masked entries or on all parameters."""
        return opposition(self.space, flatten(self.before), self.gradients, masks)

    def distances(self, model: Seen) -> dict[str, Distance] | None:
        """To the retrained model, on what was forgotten, on what stays, and on the real test set."""
        if self.seen_retrained is None:
            return None
        views = self.space.scenario.views
        rows = {
            "forget": views["fa"].indices,
            "retain": views["ra"].indices,
            "test": np.arange(self.space.scenario.real(len(model.outputs))),
        }
        reference = self.seen_retrained.outputs
        return {name: distance(model.outputs[part], reference[part]) for name, part in rows.items()}


def changed_head_alone(before: Arrays, after: Arrays, layer: str) -> bool:
    """Whether two models differ in the output layer, or what belongs to it, and nowhere else."""
    changed = {name for name, array in after.items() if not np.array_equal(array, before[name])}
    return bool(changed) and all(name.startswith(f"{layer}.") for name in changed)


def _spread(values: Sequence[float], chance: float) -> float:
    """The standard deviation of three figures or more; of fewer, `chance`."""
    return statistics.stdev(values) if len(values) > 2 else chance

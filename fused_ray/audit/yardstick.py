"""What an unlearning is measured against: M_r, retrained models, the control, and an attacker with shadow models.

None of it depends on the method, so methods that unlearned from one model share a yardstick. Its figures are computed
when they are first asked for, and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fused_ray.audit.accuracy import Accuracy, accuracies
from fused_ray.audit.control import control, output_bias
from fused_ray.audit.distance import Distance, distance
from fused_ray.audit.gradients import Gradients, Opposition, gradients, opposition
from fused_ray.audit.membership import Adversary, Membership, prepare
from fused_ray.audit.outputs import Logits, logits
from fused_ray.audit.relearning import REPEATS, STEPS, Relearning, relearn
from fused_ray.audit.shadow import Shadow
from fused_ray.core.adapter import Masks
from fused_ray.core.state import Arrays, flatten
from fused_ray.core.workspace import Workspace


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
    layers: Sequence[str]
    """The model's layers that own a weight, from the input to the output."""
    retrained: Arrays | None = None
    """A model that never saw D_u."""
    retrained_again: Arrays | None = None
    """Another one, from another seed: the floor of the distances."""
    shadows: Sequence[Shadow] = ()
    steps: int = STEPS
    """Of relearning."""
    repeats: int = REPEATS

    @cached_property
    def seen_before(self) -> Seen:
        return self.see(self.before)

    @cached_property
    def seen_retrained(self) -> Seen | None:
        return None if self.retrained is None else self.see(self.retrained)

    @cached_property
    def seen_control(self) -> Seen:
        outputs = control(self.space, self.seen_before.outputs, output_bias(self.before, self.layers))
        return Seen(outputs, accuracies(self.space.scenario, outputs.argmax(1)))

    @cached_property
    def floor(self) -> dict[str, Distance] | None:
        """The distances of one retrained model to the other."""
        return None if self.retrained_again is None else self.distances(self.see(self.retrained_again))

    @cached_property
    def adversary(self) -> Adversary:
        return prepare(self.space, self.shadows)

    @cached_property
    def membership_retrained(self) -> Membership | None:
        return None if self.retrained is None else self.attack(self.retrained)

    @cached_property
    def relearning_retrained(self) -> Relearning | None:
        return None if self.retrained is None else self.relearn(self.retrained)

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

    def attack(self, model: Arrays) -> Membership:
        """What an attacker learns from a model about D_u's membership."""
        return self.adversary.attack(self.space, flatten(model))

    def relearn(self, model: Arrays, shuffled: bool = False) -> Relearning:
        """How a model learns D_u again."""
        fa_before = self.seen_before.accuracy["fa"].weighted
        return relearn(self.space, flatten(model), fa_before, self.steps, self.repeats, shuffled)

    def opposition(self, masks: Masks | None) -> Opposition:
        """Gradient opposition at M_r, on masked entries or on all parameters."""
        return opposition(self.space, flatten(self.before), self.gradients, masks)

    def distances(self, model: Seen) -> dict[str, Distance] | None:
        """To the retrained model, on what was forgotten, on what stays, and on the real test set."""
        if self.seen_retrained is None:
            return None
        views = self.space.scenario.views
        # the other two scenarios keep the whole test set, and measure FA on images of their own behind it
        whole = self.space.config.forget.scenario in ("class", "exclusive")
        rows = {
            "forget": views["fa"].indices,
            "retain": views["ra"].indices,
            "test": np.arange(len(model.outputs)) if whole else views["ra"].indices,
        }
        reference = self.seen_retrained.outputs
        return {name: distance(model.outputs[part], reference[part]) for name, part in rows.items()}

"""Unlearning methods: what is known of each without importing it, and the settings of its own.

A new one is a file in `core/methods`, an entry here, and its test. One that another package brings is a `Method` there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from fused_ray.config.fields import Count, Rate, Real, Section, Share
from fused_ray.config.parts.door import Door

ALL = ("class", "client", "sample", "exclusive")
WHOLE_CLIENTS = ("client", "exclusive")


@dataclass(frozen=True)
class Method:
    """An unlearning method: where it is, what it can forget, and what it will do.

    `Settings` is a run's configuration with its defaults filled in (`fused_ray.RunConfig`).
    """

    entry: str | Callable[..., Any]
    """A function of (Federation, M_r) that returns Unlearned, or where it is: package.module:function."""
    scenarios: tuple[str, ...] = ALL
    """Names of the scenarios that it can do."""
    needs_history: bool = False
    """Whether it reads the global models of pre-training, round by round."""
    rounds: str | None = "unlearn.rounds"
    """The field that says how many rounds it has, so that fewer of them can be run; None: no field does."""
    first: int = 0
    """How many rounds come before those."""
    phases: Callable[[Any], Mapping[str, int]] = field(default=lambda settings: {"unlearn": settings.unlearn.rounds})
    """The rounds of its phases by their names, in their order, from Settings; for estimates of time."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """A guess of what a round of a phase takes, against one of pre-training; 1 where nothing is said."""
    shown: Callable[[Any, str, int, int], int] = field(
        default=lambda settings, phase, round, examples: settings.train.shown(examples)
    )
    """Examples that a client with so many is shown in a round of a phase, repeats counted, at the most."""
    mean_alone: bool = False
    """Whether its formulas hold for the plain mean of clients' models alone; other servers are refused then."""
    every_update: bool = False
    """Whether its server looks at single updates, which must fit `engine.aggregate_memory_mb`: whole models, or..."""
    message: Callable[[int, int], int] | None = None
    """...of so many values each, from inputs (without the bias) and outputs of the last layer."""
    changes: str = "the whole model"
    """What it changes of M_r, for whom it is no adapter's that comes off."""
    undone: str = ""
    """How it is taken back all the same, as a sentence."""
    little: bool = False
    """Whether it uses `unlearn.retain` of the data that stay; one that does not takes all of them alone."""
    section: type[BaseModel] | None = None
    """The settings of its own, a subclass of `fused_ray.config.Section`; a run says them in unlearn.args."""
    settings_in: str | None = None
    """Of this package's own: the section of a run's configuration that has its settings instead."""
    reason: str = ""
    """Why it cannot do the other scenarios, as a clause; for the line that refuses them."""


class FedEraserConfig(Section):
    """Method `federaser`: stored updates, calibrated by a little training."""

    interval: Count = 2
    """Every how many rounds of pre-training the clients' updates were stored."""
    ratio: Annotated[Real, Field(gt=0, le=1)] = 0.5
    """Local epochs of a calibration against those of training, rounded up."""


class EraseClientConfig(Section):
    """Method `eraseclient`: the target clients climb their own loss, then the others recover."""

    lr: Rate = 0.01
    """Learning rate of the ascent."""
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    """Momentum of the ascent."""
    clip: Rate = 5.0
    """Largest norm of a gradient."""
    batch_size: Count = 128
    """Examples a step of the ascent."""
    epochs: Count = 5
    """Most passes over the target's data."""
    stop_accuracy: Annotated[Real, Field(ge=0, le=1)] = 0.12
    """The ascent ends below this accuracy on a tenth of the target's data that it does not train on."""


class ExactFunConfig(Section):
    """Method `exactfun`: quantised training, replayed without the forgotten data."""

    step: Annotated[Real, Field(gt=0, le=1)] = 0.05
    """Grid of the quantised model, as a share of the initial model's mean absolute weight."""
    rounds: Count | None = None
    """Most rounds that are replayed or retrained; unset: as many as pretrain.rounds."""


class PufConfig(Section):
    """Method `puf`: one round of negated updates, then recovery."""

    variant: Literal["regular", "special"] = "regular"
    """regular: everybody takes part in the first round; special: the target clients alone."""
    eta: Rate | None = None
    """Factor of the target clients' negated update; unset: 20 (regular), 2 (special)."""


class FedQuitConfig(Section):
    """Method `fedquit`: the target clients imitate a teacher that does not know their labels, then the others recover.

    The defaults are the paper's for CIFAR-10 at Dirichlet 0.3 with ResNet-18.
    """

    lr: Rate = 1e-4
    """Learning rate of the student's Adam."""
    epochs: Count = 1
    """Passes over the target's data."""
    batch_size: Count = 32
    """Examples a step of the student."""
    teacher: Literal["lowest", "max-entropy", "flat"] = "lowest"
    """The teacher's logit of the true class: the lowest (lowest; flat: the others alike), or that of most entropy."""


class FedMemPruneConfig(Section):
    """Method `fedmemprune`: values that hardly move when the others train are drawn anew, then the others recover."""

    share: Share = 0.4
    """Share p of the values that are drawn anew; the paper's for CIFAR-10 and EMNIST at Dirichlet 0.5."""
    vectors: Literal["uniform", "zero"] = "uniform"
    """What becomes of values in vectors, such as biases: uniform from -0.1 to 0.1, or zero."""


class HessianResetConfig(Section):
    """Method `hessian-reset`: values that the targets' curvature singles out are set to zero and trained again.

    The paper's optimiser; it looks at shares of 5 to 50%.
    """

    share: Share = 0.1
    """Share of each layer's values that is reset, at the most."""
    diagonal: Literal["sampled", "exact"] = "sampled"
    """The curvature of an example: of one class drawn by the model's probabilities, or of all."""
    lr: Rate = 0.01
    """Learning rate of what was reset."""
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    """Its momentum."""
    batch_size: Count = 32
    """Examples a step; a round is one pass."""


class RidgeConfig(Section):
    """Method `ridge`: an output layer in closed form on the features of M_r, from which data are taken away exactly."""

    penalty: Annotated[Real, Field(ge=0, le=1e9)] = 1.0
    """Lambda, what is added to the diagonal of the sum of products over all examples."""


class FedUpConfig(Section):
    """Method `fedup`: a bottleneck before the output layer, which the server trains on centroids of clients' features.

    The paper's settings. The model must have the place for it (models.bottleneck).
    """

    share: Share | None = None
    """Centroids of a client's examples of a class, as a share, rounded up; unset: 0.8, of class 0.1, of sample 0.5."""
    lr: Rate = 0.005
    """Learning rate of the bottleneck."""
    batch_size: Count = 10
    """Centroids a step."""
    epochs: Count = 50
    """Passes over all centroids."""


class FedSgtConfig(Section):
    """Method `fedsgt`: data in groups, a module for each group, trained one on the other in several orders.

    None of the paper's sizes was found: these are ours.
    """

    groups: Annotated[int, Field(strict=True, ge=2, le=1000)] = 5
    """Groups of the data."""
    sequences: Count = 5
    """Orders of the groups, each with modules of its own, at most as many as groups."""
    spread: Count = 1
    """Into how many groups a client's data fall, at the most."""
    share: Share = 0.2
    """Share of each layer's values that a module sets."""
    rounds: Count = 3
    """Rounds in which the clients of a group train its module."""
    lr: Rate = 0.1
    """Learning rate of a module."""

    @model_validator(mode="after")
    def _different(self) -> FedSgtConfig:
        if self.sequences > self.groups:
            raise ValueError(f"sequences: {self.groups} groups have no more different first ones; lower it")
        return self


class FedOsdConfig(Section):
    """Method `fedosd`: away from the targets' data at right angles to what the others learn, then recovery.

    The paper's 100 rounds at 4e-4 and 1e-6 as five rounds that go as far.
    """

    rounds: Count = 5
    """Rounds of the first part, in which the targets take part."""
    lr: Rate = 0.008
    """The server's rate there."""
    recovery_lr: Rate = 2e-5
    """The server's rate in recovery."""


def _fused(settings: Any) -> Mapping[str, int]:
    unlearn = settings.unlearn
    ranks = isinstance(unlearn.layers, int) and unlearn.selection_part[0].ranks
    asked = settings.mask_part[0].phases(settings) if settings.masked else {}
    return {"rank": int(ranks), "saliency": 0, **asked, "unlearn": unlearn.rounds}


def _fedsgt(settings: Any) -> Mapping[str, int]:
    own = settings.fedsgt
    return {f"sequence-{number}": own.groups * own.rounds for number in range(1, own.sequences + 1)}


def _federaser(settings: Any) -> Mapping[str, int]:
    stored = len(range(1, settings.pretrain.rounds + 1, settings.federaser.interval))
    return {"replay": stored, "unlearn": stored - 1}


def _shown_by_federaser(settings: Any, phase: str, round: int, examples: int) -> int:
    train = settings.train.in_part(settings.federaser.ratio) if phase == "unlearn" else settings.train
    shown: int = train.shown(examples)
    return shown


METHODS: dict[str, Method] = {
    "fused": Method(
        "fused_ray.core.methods.fused:unlearn",
        little=True,
        phases=_fused,
        cost={"saliency": 0.5, "unlearn": 0.3},
        shown=lambda settings, phase, round, examples: (
            examples if phase == "saliency" else settings.train.shown(examples)
        ),
    ),
    "retrain": Method(
        "fused_ray.core.methods.fedavg:unlearn_by_retraining",
        rounds="retrain.rounds",
        phases=lambda settings: {} if settings.retrains else {"unlearn": settings.retrain_rounds},
        little=True,
    ),
    "finetune": Method("fused_ray.core.methods.fedavg:unlearn_by_finetuning", little=True),
    "federaser": Method(
        "fused_ray.core.methods.federaser:unlearn",
        *(WHOLE_CLIENTS, True),
        little=True,
        rounds=None,
        phases=_federaser,
        shown=_shown_by_federaser,
        settings_in="federaser",
        mean_alone=True,
    ),
    "eraseclient": Method(
        "fused_ray.core.methods.eraseclient:unlearn",
        *(WHOLE_CLIENTS, True),
        little=True,
        first=1,
        settings_in="eraseclient",
        phases=lambda settings: {"replay": 1, "unlearn": 1 + settings.unlearn.rounds},
        shown=lambda settings, phase, round, examples: (
            settings.eraseclient.epochs * examples
            if (phase, round) == ("unlearn", 1)
            else settings.train.shown(examples)
        ),
        mean_alone=True,
    ),
    "exactfun": Method(
        "fused_ray.core.methods.exactfun:unlearn",
        rounds="exactfun.rounds",
        settings_in="exactfun",
        phases=lambda settings: {"replay": settings.exactfun_rounds, "unlearn": settings.exactfun_rounds},
        mean_alone=True,
    ),
    "not": Method("fused_ray.core.methods.negation:unlearn", little=True),
    "puf": Method(
        "fused_ray.core.methods.puf:unlearn",
        WHOLE_CLIENTS,
        little=True,
        first=1,
        settings_in="puf",
        phases=lambda settings: {"unlearn": 1 + settings.unlearn.rounds},
        shown=lambda settings, phase, round, examples: (
            examples if (phase, round) == ("unlearn", 1) else settings.train.shown(examples)
        ),
    ),
    "fedquit": Method(
        "fused_ray.core.methods.fedquit:unlearn",
        ("client", "sample", "exclusive"),
        little=True,
        reason="only the device of a target relabels, and of a class every device may hold some",
        first=1,
        settings_in="fedquit",
        phases=lambda settings: {"unlearn": 1 + settings.unlearn.rounds},
        shown=lambda settings, phase, round, examples: (
            settings.fedquit.epochs * examples if (phase, round) == ("unlearn", 1) else settings.train.shown(examples)
        ),
    ),
    "fedmemprune": Method(
        "fused_ray.core.methods.fedmemprune:unlearn",
        little=True,
        first=1,
        settings_in="fedmemprune",
        phases=lambda settings: {"unlearn": 1 + settings.unlearn.rounds},
        every_update=True,
    ),
    "hessian-reset": Method(
        "fused_ray.core.methods.hessian:unlearn",
        little=True,
        settings_in="hessian_reset",
        changes="the values that it reset",
        phases=lambda settings: {"diagonal": 2, "unlearn": settings.unlearn.rounds},
        shown=lambda settings, phase, round, examples: examples,
        every_update=True,
    ),
    "ridge": Method(
        "fused_ray.core.methods.ridge:unlearn",
        rounds=None,
        settings_in="ridge",
        every_update=True,
        message=lambda features, classes: 3 * ((features + 1) * (features + 2) // 2 + (features + 1) * classes),
        changes="the output layer",
        undone="Adding the sums that were subtracted gives the head of all data again",
        phases=lambda settings: {"head": 1, "unlearn": int(settings.kind not in WHOLE_CLIENTS)},
        cost={"head": 0.4, "unlearn": 0.4},
        shown=lambda settings, phase, round, examples: examples,
    ),
    "fedup": Method(
        "fused_ray.core.methods.fedup:unlearn",
        little=True,
        rounds=None,
        settings_in="fedup",
        phases=lambda settings: {"centroids": 1},
        shown=lambda settings, phase, round, examples: examples,
        changes="the bottleneck before the output layer, which it opened",
        undone="Closing it gives M_r back, bit for bit",
    ),
    "fedsgt": Method(
        "fused_ray.core.methods.fedsgt:unlearn",
        ("client", "sample", "exclusive"),
        reason="a class lies in every group, so that no module would be left",
        rounds=None,
        settings_in="fedsgt",
        phases=_fedsgt,
        changes="the model that its modules make, which is its own, by switching some off",
        undone="Switching them on again gives that model back",
    ),
    "fedosd": Method(
        "fused_ray.core.methods.fedosd:unlearn",
        WHOLE_CLIENTS,
        little=True,
        reason="in it a client either forgets or remembers",
        rounds=None,
        settings_in="fedosd",
        phases=lambda settings: {"unlearn": settings.fedosd.rounds + settings.unlearn.rounds},
        shown=lambda settings, phase, round, examples: examples,
        every_update=True,
    ),
}


def changed(name: str) -> str:
    """What a method changes of M_r that is no adapter's; of another package's nothing is known."""
    return METHODS[name].changes if name in METHODS else "the whole model"


def undone(name: str) -> str:
    """How a method that has no adapter is taken back, as a sentence; empty where it cannot be."""
    return METHODS[name].undone if name in METHODS else ""


METHOD = Door("method", "fused_ray.methods", METHODS, Method, "a fused_ray.api.Method")
METHOD_SECTIONS = ("unlearn", *(method.settings_in for method in METHODS.values() if method.settings_in))
"""Sections that shape no pre-trained or retrained model."""

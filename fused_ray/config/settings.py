"""All sections of a run together, and what their unset fields come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Any

from pydantic import Field

from fused_ray.config.deployment import DeploymentConfig
from fused_ray.config.execution import AuditConfig, EngineConfig, OutputConfig
from fused_ray.config.fields import Section
from fused_ray.config.parts.adapters import ADAPTER, MASK_RULE, SELECTION, START, MaskRule
from fused_ray.config.parts.aggregates import AGGREGATE
from fused_ray.config.parts.client_optimisers import CLIENT_OPTIMISER
from fused_ray.config.parts.datasets import DATASET
from fused_ray.config.parts.door import Door, chosen, options
from fused_ray.config.parts.methods import (
    METHOD,
    EraseClientConfig,
    ExactFunConfig,
    FedEraserConfig,
    FedMemPruneConfig,
    FedOsdConfig,
    FedQuitConfig,
    FedSgtConfig,
    FedUpConfig,
    HessianResetConfig,
    Method,
    PufConfig,
    RidgeConfig,
)
from fused_ray.config.parts.partitions import PARTITIONING
from fused_ray.config.parts.scenarios import SCENARIO, Kind, Request
from fused_ray.config.parts.schedules import SCHEDULE
from fused_ray.config.parts.server_optimisers import SERVER_OPTIMISER
from fused_ray.config.sections import (
    INPUTS,
    DataConfig,
    FederationConfig,
    ForgetConfig,
    ModelConfig,
    PretrainConfig,
    RetrainConfig,
    UnlearnConfig,
)
from fused_ray.config.training import TrainConfig
from fused_ray.errors import ConfigError

PARTS: Mapping[str, Door[Any]] = {
    "unlearn.method": METHOD,
    "unlearn.adapter": ADAPTER,
    "unlearn.selection": SELECTION,
    "unlearn.mask": MASK_RULE,
    "unlearn.start": START,
    "data.name": DATASET,
    "data.partition": PARTITIONING,
    "forget.scenario": SCENARIO,
    "train.optimiser": CLIENT_OPTIMISER,
    "train.schedule": SCHEDULE,
    "federation.aggregate": AGGREGATE,
    "federation.server": SERVER_OPTIMISER,
}
"""The fields that name parts which workers use, beside the model's."""


_SETTINGS = {
    "unlearn.method": "unlearn.args",
    "unlearn.adapter": "unlearn.adapter_args",
    "unlearn.selection": "unlearn.selection_args",
    "unlearn.mask": "unlearn.mask_args",
    "unlearn.start": "unlearn.start_args",
    "forget.scenario": "forget.args",
    "data.name": "data.args",
    "data.partition": "data.partition_args",
}
"""Of parts whose settings mean nothing to another: where they stand."""


def exchanging(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of dotted keys of nested values, behind the removal of the settings of a part that they exchange."""
    removed: dict[str, Any] = {
        args: {}
        for key, args in _SETTINGS.items()
        if key in changes and changes[key] != (values.get(key.partition(".")[0]) or {}).get(key.partition(".")[2])
    }
    return {**removed, **changes}


class Settings(Section):
    """Everything that a run depends on, and the defaults that depend on other fields, filled in."""

    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Every random number is derived from it."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    federation: FederationConfig = FederationConfig()
    train: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
    forget: ForgetConfig = ForgetConfig()
    unlearn: UnlearnConfig = UnlearnConfig()
    federaser: FedEraserConfig = FedEraserConfig()
    eraseclient: EraseClientConfig = EraseClientConfig()
    exactfun: ExactFunConfig = ExactFunConfig()
    puf: PufConfig = PufConfig()
    fedquit: FedQuitConfig = FedQuitConfig()
    fedmemprune: FedMemPruneConfig = FedMemPruneConfig()
    hessian_reset: HessianResetConfig = HessianResetConfig()
    ridge: RidgeConfig = RidgeConfig()
    fedosd: FedOsdConfig = FedOsdConfig()
    fedup: FedUpConfig = FedUpConfig()
    fedsgt: FedSgtConfig = FedSgtConfig()
    retrain: RetrainConfig = RetrainConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    audit: AuditConfig = AuditConfig()
    engine: EngineConfig = EngineConfig()
    output: OutputConfig = OutputConfig()

    @property
    def forget_classes(self) -> tuple[int, ...]:
        """`forget.classes` with the scenario's default filled in."""
        if self.forget.classes is not None:
            return self.forget.classes
        return {"class": (0,), "exclusive": (1, 0)}.get(self.forget.scenario, ())

    @property
    def forget_share(self) -> float:
        """`forget.share` with its default filled in: poison in fewer clients is not learned on every seed."""
        usual = 0.6 if self.forget.scenario == "client" else 0.4
        return usual if self.forget.share is None else self.forget.share

    @property
    def forget_count(self) -> int:
        """How many clients are drawn where none are named: the nearest whole number to their share, at least 1."""
        return max(1, math.floor(self.forget_share * self.federation.clients + 0.5))

    @property
    def retrain_rounds(self) -> int:
        """`retrain.rounds` with its default filled in."""
        return self.pretrain.rounds if self.retrain.rounds is None else self.retrain.rounds

    def participation(self, phase: str) -> float:
        """The `participation` of a phase's section, with its default filled in.

        What an audit trains is retrained; every phase that is no training of a whole model belongs to unlearning.
        """
        retrains = phase.startswith(("retrain", "shadow"))
        section = self.pretrain if phase == "pretrain" else self.retrain if retrains else self.unlearn
        share = self.federation.participation if section.participation is None else section.participation
        return 1.0 if share >= self.federation.clients else share  # everybody, however it is said

    def taking_part(self, phase: str) -> tuple[float, str]:
        """What decides, beside the seed, who takes part in the rounds of a phase: how many, and how they are drawn."""
        share = self.participation(phase)
        return (1.0, "") if share == 1 else (share, self.federation.sampling)

    @property
    def adapter_lr(self) -> float:
        """`unlearn.lr` with its default filled in: few values bear larger steps than many."""
        if self.unlearn.lr is not None:
            return self.unlearn.lr
        many = not self.masked or self.unlearn.selection_part[0].shares
        # another optimiser's rate says nothing of the adapter's SGD
        rate = self.train.lr if self.train.optimiser == "sgd" else TrainConfig().lr
        return rate * (1.0 if many else 2.5)

    @property
    def masked(self) -> bool:
        """Whether the adapter changes single entries that a mask names."""
        return self.unlearn.adapter_part[0].masked

    @property
    def adapter_mask(self) -> str | None:
        """`unlearn.mask` with its default filled in; an adapter without single entries has none."""
        return self.unlearn.mask or "saliency" if self.masked else None

    @property
    def mask_part(self) -> tuple[MaskRule, Any]:
        """The mask rule, and its settings as its own section."""
        assert self.adapter_mask is not None
        return chosen(MASK_RULE, self.adapter_mask, self.unlearn.mask_args, "mask_args")

    @property
    def adapter_start(self) -> str:
        """`unlearn.start` with its default filled in; an adapter without single entries starts at zero.

        So does one against flipped labels, which the remaining data contradict: to train on these is enough.
        """
        contradicted = self.forget.scenario == "client" and self.forget.poison
        return self.unlearn.start or ("zero" if not self.masked or contradicted else "negate")

    @property
    def adapter_sparsity(self) -> float:
        """`unlearn.sparsity` with its default filled in: what starts at zero needs more values to forget by."""
        if self.unlearn.sparsity is not None:
            return self.unlearn.sparsity
        return 0.5 if self.adapter_start == "zero" else 0.9

    @property
    def adapter_density(self) -> float:
        """Share of an adapted layer's entries that the adapter may change."""
        return 1.0 - self.adapter_sparsity

    @property
    def keeps_all(self) -> bool:
        """Whether the adapter changes every entry of its layers alike, so that no mask rule has anything to decide."""
        return self.all_heal or (self.unlearn.budget is None and self.adapter_sparsity == 0)

    @property
    def all_heal(self) -> bool:
        """Whether every entry of the adapted layers takes part and starts at zero, so that none is chosen."""
        return self.masked and self.unlearn.heal == 1 and not START.find(self.adapter_start).moves

    @property
    def gradient_rounds(self) -> int:
        """Rounds in which clients send gradients for a saliency mask: what must be forgotten's, and what stays's."""
        return 1 if self.unlearn.saliency == "forget" else 2

    @property
    def puf_eta(self) -> float:
        """`puf.eta` with its default filled in, the method's paper's."""
        return self.puf.eta or {"regular": 20.0, "special": 2.0}[self.puf.variant]

    @property
    def fedup_share(self) -> float:
        """`fedup.share` with its default filled in, the paper's for each scenario."""
        return self.fedup.share or {"class": 0.1, "sample": 0.5}.get(self.kind, 0.8)

    @property
    def exactfun_rounds(self) -> int:
        """`exactfun.rounds` with its default filled in."""
        return min(self.exactfun.rounds or self.pretrain.rounds, self.pretrain.rounds)

    @property
    def keeps_history(self) -> bool:
        """Whether pre-training's global models are kept."""
        return self.pretrain.history or self.method.needs_history

    @property
    def method(self) -> Method:
        """What is known of `unlearn.method`."""
        return METHOD.find(self.unlearn.method)

    @property
    def retrains(self) -> bool:
        """Whether the method's model is the one that it is measured against."""
        return self.unlearn.method == "retrain" and self.unlearn.retain == 1

    @property
    def scenario(self) -> Request:
        """What is known of `forget.scenario`."""
        return SCENARIO.find(self.forget.scenario)

    @property
    def kind(self) -> Kind:
        """What kind of scenario it is: its name, or that of the one that it is like."""
        return self.scenario.like

    @property
    def outside(self) -> dict[str, str]:
        """The parts from elsewhere that workers use: by field, what it says."""
        named = {key: attrgetter(key)(self) for key in PARTS}
        found = {key: name for key, name in named.items() if name is not None and name not in PARTS[key].built_in}
        if self.model.registered is None:
            found[f"model.{'factory' if self.model.factory else 'name'}"] = self.model.label
        return found

    @property
    def modules(self) -> dict[str, str]:
        """The modules of these parts, by field. Raises ValueError of one that is not there."""
        at = {}
        for key, name in self.outside.items():
            entry = name if ":" in name else PARTS[key].place(name) if key in PARTS else self.model.entry
            at[key] = entry.partition(":")[0]
        return at

    def check_parts(self) -> None:
        """Raises ConfigError where a part from elsewhere cannot be used in this process."""
        for key, name in self.outside.items():
            try:
                PARTS[key].find(name) if key in PARTS else self.model.entry  # of a model, the place is asked for
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from None

    @property
    def scenario_options(self) -> Any:
        """`forget.args` as the section that the scenario brings; None where it brings none."""
        return self.forget.settings

    def check_parts_of_driver(self) -> None:
        """The same of what the driver alone uses. Raises ConfigError."""
        self.output.listeners, self.audit.further  # noqa: B018 - found, or not

    @property
    def method_options(self) -> Any:
        """`unlearn.args` as the section that the method brings; None where it brings none."""
        return options(self.method.section, self.unlearn.args, self.unlearn.method)

    @property
    def inputs(self) -> dict[str, str]:
        """The files and folders that are read, by field."""
        data, others = (self.data.root, self.data.partition_file), (self.pretrain.from_, self.deployment.trace)
        given = (*data, self.model.weights, *others)
        return {key: where for key, where in zip(INPUTS, given, strict=True) if where is not None}

"""The sections of a run's configuration, each field with its one line of documentation.

`fused-ray init` and the reference documentation reuse these lines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fused_ray.config.fields import (
    Auto,
    Clients,
    Constants,
    Count,
    Decay,
    Integers,
    Layers,
    Participation,
    PerChannel,
    PositivePerChannel,
    Rate,
    Real,
    ResourceShare,
    Rounds,
    Section,
    Share,
    Where,
)
from fused_ray.config.labels import Selector
from fused_ray.config.older_names import section_renamed
from fused_ray.config.parts.adapters import ADAPTER, MASK_RULE, SELECTION, START, AdapterKind, Selection
from fused_ray.config.parts.aggregates import AGGREGATE, Aggregate
from fused_ray.config.parts.datasets import DATASET, DATASETS, NO_MOMENTS, OWN_MOMENTS, DataSet, DatasetInfo
from fused_ray.config.parts.door import Door, chosen, found_by, options
from fused_ray.config.parts.methods import METHOD
from fused_ray.config.parts.models import MODEL, MODELS, ModelInfo
from fused_ray.config.parts.partitions import PARTITIONING, Partitioning
from fused_ray.config.parts.scenarios import SCENARIO
from fused_ray.config.parts.server_optimisers import SERVER_OPTIMISER, ServerOptimiser

INPUTS = ("data.root", "data.partition_file", "model.weights", "pretrain.from", "deployment.trace")
"""Fields that name files or folders to read."""


class DataConfig(Section):
    """Which examples there are and which client holds them."""

    name: Annotated[str, found_by(DATASET)] = "fashion-mnist-mini"
    """fashion-mnist-mini (embedded), fashion-mnist, mnist, cifar10, cifar100; yours: parquet, npz, or a part's name."""
    args: dict[str, Any] = Field(default={})
    """Settings of a data set of another package, by name, as its section says."""
    root: Where | None = None
    """Where it is: a folder (parquet: or URI; npz: the file); unset: the usual places are searched."""
    image_column: str | None = None
    """parquet: the column with the images; unset: image, img, or the only one of that kind."""
    label_column: str | None = None
    """parquet: the column with the labels; unset: label, labels, fine_label, or the only one of that kind."""
    mean: PerChannel | None = None
    """Taken off each pixel / 255: one number or one per channel; unset: the known set's published mean, else 0.5."""
    std: PositivePerChannel | None = None
    """What that is divided by: one number or one per channel; unset: the known set's published one, else 0.5."""
    partition: Annotated[str, found_by(PARTITIONING)] = "dirichlet"
    """Who holds what: iid, dirichlet (label skew), pathological (few classes each), file (or column); a part's name."""
    partition_args: dict[str, Any] = Field(default={})
    """Settings of a partition of another package, by name, as its section says."""
    partition_file: Where | None = None
    """file: a .parquet, .csv (columns client, example) or .npy file (clients in order) over the whole training set."""
    client_column: str | None = None
    """file: the column with the clients, in partition_file (unset: client) or, without one, in the Parquet data."""
    alpha: Annotated[Real, Field(gt=0, le=1e6)] = 1.0
    """Dirichlet concentration; the smaller, the more the clients' label mixes differ."""
    classes_per_client: Count = 2
    """Classes that each client holds in a pathological partition."""
    min_examples: Count = 10
    """Fewest training examples that a client may hold."""
    limit: Count | None = None
    """Use only this many training and at most as many test examples, class-balanced, drawn from the seed."""
    augment: Literal["none", "crop", "flip", "crop-flip"] = "none"
    """Random crops (4 pixels of padding) and left-right flips where a whole model is trained; adapters see none."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # `args` is a mapping

    @model_validator(mode="after")
    def _options(self) -> DataConfig:
        _ = self.settings, self.partition_settings
        return self

    @property
    def settings(self) -> Any:
        """`args` as the section that the data set brings; None where it brings none."""
        return options(self.part.section if self.part else None, self.args, self.name)

    @property
    def partition_settings(self) -> Any:
        """`partition_args` as the section that the partition brings; None where it brings none."""
        part = self.partitioning
        return options(part.section if part else None, self.partition_args, self.partition, "partition_args")

    @property
    def part(self) -> DataSet | None:
        """The data set that another package brings, if it is one's."""
        return DATASET.find(self.name)

    @property
    def partitioning(self) -> Partitioning | None:
        """The partition that another package brings, if it is one's."""
        return PARTITIONING.find(self.partition)

    @property
    def known(self) -> DatasetInfo | None:
        """What is known of the data set without loading it, if anything."""
        return DATASETS.get(self.name)

    @property
    def images(self) -> bool:
        """Whether inputs are images."""
        return self.part is None or self.part.images

    @property
    def constants(self) -> Constants:
        """`mean` and `std` with their defaults filled in."""
        usual = OWN_MOMENTS if self.images else NO_MOMENTS
        mean, std = usual if self.known is None else (self.known.mean, self.known.std)
        return self.mean or mean, self.std or std


class ModelConfig(Section):
    """The network that is trained."""

    name: str = "lenet"
    """lenet, resnet18, resnet18-imagenet, simplevit, vit-small, or a part's name; not read where `factory` is set."""
    factory: str | None = None
    """A model of your own, package.module:function, called with (shape of an input, number of classes, **args)."""
    args: dict[str, Any] = Field(default={})
    """Keyword arguments of the model's factory, such as patch, width, depth and heads of simplevit."""
    weights: Where | None = None
    """A safetensors file with the weights that training starts from, instead of random ones."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # `args` is a mapping

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MODELS:
            MODEL.place(name)
        return name

    @field_validator("factory")
    @classmethod
    def _importable(cls, factory: str | None) -> str | None:
        module, _, name = (factory or "a:b").partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError("write it as package.module:function")
        return factory

    @property
    def entry(self) -> str:
        """Where the model is built, package.module:function."""
        return self.factory or (self.registered.factory if self.registered else MODEL.place(self.name))

    @property
    def label(self) -> str:
        """What the model is called in messages and tables."""
        return self.factory or self.name

    @property
    def where(self) -> str:
        """The field that says which model it is, and what it says, for messages."""
        return f"model.factory: {self.factory}" if self.factory else f"model.name: {self.name}"

    @property
    def registered(self) -> ModelInfo | None:
        """What this package says of its own model; None for one of the user's own."""
        return None if self.factory else MODELS.get(self.name)

    @property
    def known(self) -> ModelInfo | None:
        """What is known without building it; None for a model of the user's own, or with other dimensions."""
        return None if self.args else self.registered


class FederationConfig(Section):
    """The clients, how they are placed, and what the server makes of what they send."""

    clients: Count = 20
    """Number of clients."""
    clients_per_actor: Count | Auto = "auto"
    """Clients that share one Ray actor; auto: one each where every client has a core or GPU slot, else packed."""
    actor_cpus: Annotated[ResourceShare, Field(gt=0)] | Auto = "auto"
    """CPU cores that an actor reserves while it computes one client at a time; auto: 1, or an even share."""
    actor_gpus: ResourceShare | Auto = "auto"
    """GPUs (or the fraction of one) that an actor reserves; auto: spread the actors over the GPUs there are."""
    actor_labels: Selector = Field(default={})
    """Labels of the nodes that get actors, in Ray's words: {zone: a}; also !a, in(a, b), !in(a, b)."""
    participation: Participation = 1.0
    """Who takes part in a round: up to 1, a share of those that could, drawn anew each time; from 2 on, how many."""
    sampling: Literal["uniform", "weighted"] = "uniform"
    """How they are drawn, without repeats: uniform, or weighted by their examples (which weigh in the mean as well)."""
    on_failure: Literal["fail", "skip", "wait"] = "fail"
    """Of a client that kills its actor too often or is late (engine): end the run, leave it out of the round, wait."""
    aggregate: Annotated[str, found_by(AGGREGATE)] = "mean"
    """Of clients' models or adapters: mean (by examples), median, trimmed; or your own, package.module:object."""
    aggregate_args: dict[str, Any] = Field(default={})
    """Settings of the aggregate, such as share of trimmed: the clients left out at each end of a value."""
    server: Annotated[str, found_by(SERVER_OPTIMISER)] = "mean"
    """Of whole models: mean (take the aggregate), fedavgm, fedadam; or your own, package.module:object."""
    server_args: dict[str, Any] = Field(default={})
    """Settings of the server's optimiser, such as lr and momentum of fedavgm; lr, beta1, beta2 and tau of fedadam."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # settings of parts are mappings

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, values: Any, info: ValidationInfo) -> Any:
        return section_renamed("federation", values, warn=info.context is None)

    @model_validator(mode="after")
    def _options(self) -> FederationConfig:
        self.aggregate_part, self.server_part  # noqa: B018  either raises where its settings are wrong
        return self

    @property
    def aggregate_part(self) -> tuple[Aggregate, Any]:
        """The aggregate, and its settings as its own section."""
        return chosen(AGGREGATE, self.aggregate, self.aggregate_args, "aggregate_args")

    @property
    def server_part(self) -> tuple[ServerOptimiser, Any]:
        """The server's optimiser, and its settings as its own section."""
        return chosen(SERVER_OPTIMISER, self.server, self.server_args, "server_args")


class PretrainConfig(Section):
    """Where the model that has something to forget comes from."""

    rounds: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 20
    """FedAvg rounds on all data."""
    participation: Participation | None = None
    """Who takes part in its rounds; unset: federation.participation."""
    history: bool = False
    """Keep the global model of every round, for methods that need it (federaser, eraseclient: kept anyway)."""
    from_: Where | None = Field(default=None, alias="from")
    """An earlier run's folder, or a safetensors file, whose model is taken instead of pre-training."""


class ForgetConfig(Section):
    """What must be forgotten."""

    scenario: Annotated[str, found_by(SCENARIO)] = "class"
    """What goes: whole classes (class), all of some clients, single examples, all one client alone knew; or a part."""
    args: dict[str, Any] = Field(default={})
    """Settings of a scenario of another package, by name, as its section says."""
    classes: Integers | None = None
    """class: the classes to forget ([0]); exclusive: [the owner's alone, the one it mostly holds] ([1, 0])."""
    clients: Clients | None = None
    """client: who is forgotten; sample: who is attacked; by number, or by name where a file or column names clients."""
    share: Share | None = None
    """The share of all clients that is drawn from the seed where none are named; unset: 0.6 (client), 0.4 (sample)."""
    poison: bool = True
    """client: their labels are flipped, y to y + 1; sample: the examples carry a trigger; false: data as it is."""
    examples: Integers = ()
    """sample: examples to forget, counted through those that data.limit keeps; empty: drawn among the attacked's."""
    examples_share: Share = 0.5
    """sample: the share of an attacked client's examples that is drawn where none are named."""
    target: Annotated[int, Field(strict=True, ge=0)] = 0
    """sample: the label that the trigger stands for."""
    trigger: Count = 4
    """sample: side of the white square in the lower right corner, pixels."""
    owner: Annotated[int, Field(strict=True, ge=0)] = 0
    """exclusive: the client that alone holds classes[0]."""
    overlap: Annotated[Real, Field(gt=0, lt=1)] = 0.9
    """exclusive: the owner's share of classes[1]; the rest stays with the others."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # `args` is a mapping

    @model_validator(mode="after")
    def _options(self) -> ForgetConfig:
        _ = self.settings
        return self

    @property
    def settings(self) -> Any:
        """`args` as the section that the scenario brings; None where it brings none."""
        return options(SCENARIO.find(self.scenario).section, self.args, self.scenario)


class UnlearnConfig(Section):
    """The unlearning method, its rounds, and the adapter of `fused`."""

    method: str = "fused"
    """fused, or a rival, as README.md lists them; or your own, package.module:object."""
    args: dict[str, Any] = Field(default={})
    """Settings of a method of your own, by name, as its section says."""
    rounds: Rounds = 5
    """Unlearning rounds: of the adapter, of fine-tuning, or of recovery after a method's first step."""
    participation: Participation | None = None
    """Who takes part in the rounds of unlearning, all its phases; unset: federation.participation."""
    retain: Share = 1.0
    """Share of the data that stay which a client uses when unlearning, drawn from the seed, at least one example."""
    retain_by: Literal["random", "herding"] = "random"
    """Which these are: random; herding: whose mean in the model's features is near that of all, class by class."""
    layers: Count | Layers = 2
    """K, the number of layers to adapt, or the layers' names (ranking is then skipped)."""
    selection: Annotated[str, found_by(SELECTION)] = "critical"
    """Which K layers: critical (most sensitive), random, last; budget: all share `budget` by sensitivity; or yours."""
    selection_args: dict[str, Any] = Field(default={})
    """Settings of a selection of another package, by name, as its section says."""
    ranking: Literal["mean", "sum", "relative"] = "mean"
    """Sensitivity of a layer: change per parameter (mean), in all (sum), or against its own size (relative)."""
    input_layer: bool = False
    """Let the input layer be chosen too; else it comes last."""
    adapter: Annotated[str, found_by(ADAPTER)] = "sparse"
    """sparse: single entries of the layers; lora: a low-rank product beside each layer's weight; or a kind of yours."""
    adapter_args: dict[str, Any] = Field(default={})
    """Settings of a kind of adapter of another package, by name, as its section says."""
    sparsity: Annotated[Real, Field(ge=0.0, lt=1.0)] | None = None
    """Share of each layer's entries that a sparse adapter leaves alone; unset: 0.9, or 0.5 where it starts at zero."""
    budget: Count | None = None
    """Number of entries that a mask chooses, over all layers together, instead of `sparsity`; `heal` adds to them."""
    mask: Annotated[str, found_by(MASK_RULE)] | None = None
    """Which entries: random, saliency (whose removal hurts what must be forgotten most), or yours; unset: saliency."""
    mask_args: dict[str, Any] = Field(default={})
    """Settings of a mask rule of another package, by name, as its section says."""
    saliency: Literal["forget", "difference", "margin"] = "difference"
    """Gradient behind a saliency mask: forget, g_u of what goes; difference, g_u - g_r; margin, that of log-odds."""
    heal: Annotated[Real, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the layers' other entries that a sparse adapter takes in too, at zero, to make up for the damage."""
    draw: Annotated[int, Field(strict=True, ge=0)] = 0
    """Which of the seed's random masks or layers is taken; masks of one density differ in what they forget."""
    start: Annotated[str, found_by(START)] | None = None
    """Start: zero, reset (masked weights read 0), negate (they change sign); unset: negate; for flipped labels zero."""
    start_input: bool = False
    """A part of the input layer starts as other layers do; else, and where all of it takes part, it starts at zero."""
    start_args: dict[str, Any] = Field(default={})
    """Settings of a start of another package, by name, as its section says."""
    rank: Count = 16
    """Rank of a lora adapter's product."""
    alpha: Rate = 32.0
    """A lora adapter's product is scaled by alpha / rank."""
    lr: Rate | None = None
    """Learning rate of the adapter; unset: 2.5 times train.lr (of sgd, else 0.02); once for lora, selection=budget."""
    weight_decay: Decay = 0.0
    """L2 penalty on the adapter's values; it pulls the weights back towards the model that remembers."""
    wire: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """Format in which clients send what they changed of the adapter; int8: a scale per layer, and error feedback."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # `args` is a mapping

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        METHOD.find(name)
        return name

    @model_validator(mode="after")
    def _options(self) -> UnlearnConfig:
        options(METHOD.find(self.method).section, self.args, self.method)
        self.adapter_part, self.selection_part  # noqa: B018  either raises where its settings are wrong
        kind, _ = self.adapter_part
        if self.adapter not in ADAPTER.built_in and kind.load is None:
            raise ValueError(
                f"adapter: {self.adapter} names nothing in `load` that reads its adapter from a file again"
            )
        _optional(MASK_RULE, self.mask, self.mask_args, "mask")
        _optional(START, self.start, self.start_args, "start")
        return self

    @property
    def adapter_part(self) -> tuple[AdapterKind, Any]:
        """The kind of adapter, and its settings as its own section."""
        return chosen(ADAPTER, self.adapter, self.adapter_args, "adapter_args")

    @property
    def selection_part(self) -> tuple[Selection, Any]:
        """The selection of layers, and its settings as its own section."""
        return chosen(SELECTION, self.selection, self.selection_args, "selection_args")


def _optional(door: Door[Any], name: str | None, args: dict[str, Any], key: str) -> None:
    """Raises ValueError where the settings of a part are wrong, or there are some without a part."""
    if name is not None:
        chosen(door, name, args, f"{key}_args")
    elif args:
        raise ValueError(f"{key}_args: unlearn.{key} is unset; name the part that these settings are of")


class RetrainConfig(Section):
    """The gold standard: a fresh model that never saw the forgotten data."""

    rounds: Rounds | None = None
    """FedAvg rounds on the retained data; unset: as many as pretrain.rounds; 0: leave the comparison out."""
    participation: Participation | None = None
    """Who takes part in its rounds; unset: federation.participation."""

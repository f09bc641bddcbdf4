"""The one configuration object: frozen, validated at birth, from YAML and dotted overrides.

Each field has one docstring line, which `fused-ray init` and the reference documentation reuse. Neither torch nor
Ray is imported here, so that a wrong configuration is answered at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from fused_ray import registry
from fused_ray.errors import ConfigError

Auto = Literal["auto"]
Count = Annotated[int, Field(strict=True, ge=1)]
Rounds = Annotated[int, Field(strict=True, ge=0, le=100_000)]


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, not true or false")
    return value


def _number_listed(value: Any) -> Any:
    """One number where a list of them may stand."""
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


def _name_listed(value: Any) -> Any:
    """One name where a list of them may stand."""
    return (value,) if isinstance(value, str) else value


Integers = Annotated[tuple[StrictInt, ...], BeforeValidator(_number_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(_name_listed)]
Real = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]


def _grantable(value: float) -> float:
    if 0 < value < 1e-4:
        raise ValueError("Ray grants resources in steps of 0.0001; use 0 or at least that much")
    return value


ResourceShare = Annotated[Real, Field(ge=0, le=4096), AfterValidator(_grantable)]
Rate = Annotated[Real, Field(gt=0.0, le=1e3)]
Decay = Annotated[Real, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


class DataConfig(_Section):
    """Which examples there are and which client holds them."""

    name: str = "fashion-mnist-mini"
    """Data set: fashion-mnist-mini (embedded, 10,000 + 2,000 images) or fashion-mnist (60,000 + 10,000)."""
    root: str | None = None
    """Folder that holds the data set; unset: the usual places are searched."""
    partition: Literal["iid", "dirichlet", "pathological"] = "dirichlet"
    """How training examples are spread over clients: iid, dirichlet (label skew), pathological (few classes each)."""
    alpha: Annotated[Real, Field(gt=0, le=1e6)] = 1.0
    """Dirichlet concentration; the smaller, the more the clients' label mixes differ."""
    classes_per_client: Count = 2
    """Classes that each client holds in a pathological partition."""
    min_examples: Count = 10
    """Fewest training examples that a client may hold."""
    limit: Count | None = None
    """Use only this many training and at most as many test examples, class-balanced, drawn from the seed."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in registry.DATASETS:
            raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(registry.DATASETS)}")
        return name


class ModelConfig(_Section):
    """The network that is trained."""

    name: str = "lenet"
    """Model: lenet."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in registry.MODELS:
            raise ValueError(f"unknown model {name!r}; choose one of {', '.join(registry.MODELS)}")
        return name


class FederationConfig(_Section):
    """The clients and how they are placed."""

    clients: Count = 50
    """Number of clients."""
    clients_per_actor: Count | Auto = "auto"
    """Clients that share one Ray actor; auto: one each where every client has a core or GPU slot, else packed."""
    cpus_per_client: Annotated[ResourceShare, Field(gt=0)] | Auto = "auto"
    """CPU cores that an actor reserves while it computes one client at a time; auto: 1, or an even share."""
    gpus_per_client: ResourceShare | Auto = "auto"
    """GPUs (or the fraction of one) that an actor reserves; auto: spread the actors over the GPUs there are."""


class TrainConfig(_Section):
    """Local training, in pre-training, ranking and retraining; SGD with a fresh optimiser each round."""

    lr: Rate = 0.02
    """Learning rate."""
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Decay = 5e-4
    """L2 penalty."""
    batch_size: Count = 64
    """Examples a step."""
    local_epochs: Count = 1
    """Passes over a client's data a round, in unlearning too."""


class PretrainConfig(_Section):
    """Where the model that has something to forget comes from."""

    rounds: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 20
    """FedAvg rounds on all data."""
    from_: str | None = Field(default=None, alias="from")
    """An earlier run's folder, or a safetensors file, whose model is taken instead of pre-training."""


class ForgetConfig(_Section):
    """What must be forgotten."""

    scenario: Literal["class", "exclusive"] = "class"
    """class: whole classes everywhere; exclusive: all that one client alone knows."""
    classes: Integers | None = None
    """class: the classes to forget ([0]); exclusive: [the owner's alone, the one it mostly holds] ([1, 0])."""
    clients: Integers = ()
    """Clients to forget, in scenarios that forget clients."""
    owner: Annotated[int, Field(strict=True, ge=0)] = 0
    """exclusive: the client that alone holds classes[0]."""
    overlap: Annotated[Real, Field(gt=0, lt=1)] = 0.9
    """exclusive: the owner's share of classes[1]; the rest stays with the others."""


class UnlearnConfig(_Section):
    """The unlearning method and its adapter."""

    method: Literal["fused"] = "fused"
    """Unlearning method."""
    layers: Count | Names = 2
    """K, the number of most sensitive layers to adapt, or the layers' names (ranking is then skipped)."""
    selection: Literal["critical"] = "critical"
    """How K layers are chosen: critical (by sensitivity)."""
    ranking: Literal["mean", "sum", "relative"] = "mean"
    """Sensitivity of a layer: change per parameter (mean), in all (sum), or against its own size (relative)."""
    input_layer: bool = False
    """Let the ranking choose the input layer too; else it comes last."""
    sparsity: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.5
    """Share of each adapted layer's entries that the adapter leaves alone; 0 adapts them all."""
    draw: Annotated[int, Field(strict=True, ge=0)] = 0
    """Which of the seed's random masks is taken; masks of one density differ in what they forget."""
    start: Literal["zero", "reset", "negate"] = "zero"
    """Where the adapter starts: zero, reset (masked weights read 0) or negate (they change sign)."""
    lr: Rate | None = None
    """Learning rate of the adapter's values; unset: 10 times train.lr."""
    weight_decay: Decay = 0.0
    """L2 penalty on the adapter's values; it pulls the weights back towards the model that remembers."""
    rounds: Rounds = 5
    """Unlearning rounds."""

    @property
    def density(self) -> float:
        """Share of an adapted layer's entries that the adapter may change."""
        return 1.0 - self.sparsity


class RetrainConfig(_Section):
    """The gold standard: a fresh model that never saw the forgotten data."""

    rounds: Rounds | None = None
    """FedAvg rounds on the retained data; unset: as many as pretrain.rounds; 0: leave the comparison out."""


class EngineConfig(_Section):
    """Where and how the run is executed; nothing here changes a result."""

    backend: Literal["ray", "local"] = "ray"
    """ray: every client in a Ray actor; local: a plain loop in this process."""
    address: str | None = None
    """Ray cluster to join; unset: RAY_ADDRESS or the surrounding Ray job, else a private Ray of the run's own."""
    numerics: Literal["report", "strict"] = "report"
    """When actors' floating point differs: report it, or refuse to run (strict)."""
    max_attempts: Count = 3
    """How often a client's work may kill its actor before the run ends with that client's name."""
    start_timeout: Annotated[Real, Field(gt=0)] = 180.0
    """Seconds that all actors together may take to start."""
    client_timeout: Annotated[Real, Field(gt=0)] = 3600.0
    """Seconds without any client finishing after which the run ends and names who is missing."""
    prefix_cache_mb: Annotated[Real, Field(ge=0)] = 2048.0
    """Memory per actor, in MB of 1e6 bytes, for cached activations of frozen layers; what exceeds it is recomputed."""


class OutputConfig(_Section):
    """Where the results go."""

    dir: str = "runs/run"
    """Run directory; an existing one is refused unless told otherwise."""
    plots: bool = True
    """Draw plots into the run directory."""


class RunConfig(_Section):
    """Everything that a run depends on."""

    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Every random number is derived from it."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    federation: FederationConfig = FederationConfig()
    train: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
    forget: ForgetConfig = ForgetConfig()
    unlearn: UnlearnConfig = UnlearnConfig()
    retrain: RetrainConfig = RetrainConfig()
    engine: EngineConfig = EngineConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        _check_forget(self)
        _check_layers(self)
        data = registry.DATASETS[self.data.name]
        if self.data.classes_per_client > data.classes:
            raise ValueError(
                f"data.classes_per_client: {self.data.classes_per_client} is more than the {data.classes} classes "
                f"of {self.data.name}"
            )
        if self.data.limit is not None and self.data.limit < data.classes:
            raise ValueError(f"data.limit: must be at least {data.classes}, one example a class")
        examples = min(self.data.limit or data.train_examples, data.train_examples)
        if self.federation.clients * self.data.min_examples > examples:
            raise ValueError(
                f"federation.clients: {self.federation.clients} clients of at least {self.data.min_examples} "
                f"examples (data.min_examples) need more than the {examples} training examples of {self.data.name}"
            )
        return self

    @property
    def forget_classes(self) -> tuple[int, ...]:
        """`forget.classes` with the scenario's default filled in."""
        if self.forget.classes is not None:
            return self.forget.classes
        return (0,) if self.forget.scenario == "class" else (1, 0)

    @property
    def retrain_rounds(self) -> int:
        """`retrain.rounds` with its default filled in."""
        return self.pretrain.rounds if self.retrain.rounds is None else self.retrain.rounds

    @property
    def adapter_lr(self) -> float:
        """`unlearn.lr` with its default filled in: few values above frozen layers bear, and need, larger steps."""
        return 10 * self.train.lr if self.unlearn.lr is None else self.unlearn.lr

    def pretrain_key(self) -> str:
        """SHA-256 over every field that pre-training reads: equal keys give the same M_r, bit for bit."""
        read = self.model_dump(mode="json", include={"seed", "data", "model", "train", "pretrain"}, by_alias=True)
        read["clients"] = self.federation.clients
        if self.forget.scenario == "exclusive":  # the only scenario here that shapes what clients hold
            read["forget"] = [self.forget_classes, self.forget.owner, self.forget.overlap]
        read["data"].pop("root")
        read["pretrain"].pop("from")
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The whole configuration as YAML, which `from_yaml` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> RunConfig:
        """Validate nested values plus `dotted.key=value` overrides.

        Raises ConfigError in one line that names every wrong key and, if given, the source of the values.
        """
        merged = _plain(values, source or "the config")
        if not isinstance(merged, dict):
            raise ConfigError(f"{source or 'the config'} must be a mapping of sections such as data and unlearn")
        for override in overrides:
            _apply_override(merged, override)
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            place = f"{source}: " if source else ""
            # a field of two types fails as both: say once what either would have been
            wrong: dict[tuple[str, str], list[str]] = {}
            for item in error.errors():
                where, message, given = _explain(cls, item)
                wrong.setdefault((where, given), []).append(message)
            said = (f"{w + ': ' if w else ''}{', or '.join(messages)}{given}" for (w, given), messages in wrong.items())
            raise ConfigError(place + "; ".join(said)) from None

    @classmethod
    def from_yaml(cls, path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
        """Read a YAML file (None: all defaults) and apply overrides. Raises ConfigError."""
        return cls.from_dict(read_yaml(path) if path is not None else {}, overrides, str(path or ""))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when there is none or it is not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the config file {path}: {reason}") from None
    try:
        values = _plain(yaml.safe_load(text), str(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a plain YAML mapping: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of sections such as `data:` and `unlearn:`")
    return values


def _plain(values: Any, where: str) -> Any:
    """A copy in plain JSON types; paths become text. Raises ConfigError where something is neither."""
    try:
        return json.loads(json.dumps(values, default=os.fspath))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: only plain values can be configured: {error}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: write it as section.key=value, for example unlearn.layers=2")
    try:
        value = _plain(yaml.safe_load(text), key)
    except (yaml.YAMLError, ValueError, RecursionError, ConfigError):
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value") from None
    for part in parts[:-1]:
        child = values.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {part} is a value, not a section")
        values = child
    values[parts[-1]] = value


def _explain(root: type[BaseModel], item: Any) -> tuple[str, str, str]:
    """One pydantic error as key, what is wrong and how to mend it, and the value that was given."""
    names: list[str] = []
    model: type[BaseModel] | None = root
    for part in item["loc"]:
        fields = {} if model is None else {f.alias or n: f for n, f in model.model_fields.items()}
        if model is not None and part not in fields and item["type"] == "extra_forbidden":
            where = ".".join([*names, str(part)])
            return where, f"unknown key; {'.'.join(names) or 'the config'} has {', '.join(fields)}", ""
        if model is None and names:  # below a field: a union's branch or a tuple's position, of no use to a reader
            break
        names.append(str(part))
        annotation = fields[part].annotation if part in fields else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    shown = "" if isinstance(given, BaseModel | dict) else f" (given: {given!r})"
    return ".".join(names), message[:1].lower() + message[1:] if names else message, shown


def _check_forget(config: RunConfig) -> None:
    classes, forget = config.forget_classes, config.forget
    known = registry.DATASETS[config.data.name].classes
    for c in classes:
        if not 0 <= c < known:
            raise ValueError(f"forget.classes: there is no class {c}; {config.data.name} has 0 to {known - 1}")
    if len(set(classes)) != len(classes):
        raise ValueError(f"forget.classes: {list(classes)} names a class twice")
    for client in forget.clients:
        if not 0 <= client < config.federation.clients:
            raise ValueError(
                f"forget.clients: there is no client {client}; clients are 0 to {config.federation.clients - 1}"
            )
    if forget.clients:
        raise ValueError(f"forget.clients: the scenario {forget.scenario!r} forgets no whole clients; leave it empty")
    if forget.scenario == "class":
        if not classes:
            raise ValueError("forget.classes: name at least one class to forget")
        if len(classes) == known:
            raise ValueError("forget.classes: forgetting every class leaves nothing to remember; name fewer")
    else:
        if len(classes) != 2:
            raise ValueError("forget.classes: exclusive takes two, the owner's alone and the overlapping one ([1, 0])")
        if forget.owner >= config.federation.clients:
            raise ValueError(
                f"forget.owner: there is no client {forget.owner}; clients are 0 to {config.federation.clients - 1}"
            )
        if config.federation.clients < 2:
            raise ValueError("federation.clients: exclusive needs at least 2, the owner and one that remembers")


def _check_layers(config: RunConfig) -> None:
    unlearn, layers = config.unlearn, registry.MODELS[config.model.name].layers
    if isinstance(unlearn.layers, int):
        if unlearn.layers > len(layers):
            raise ValueError(
                f"unlearn.layers: {unlearn.layers} is more than the {len(layers)} layers of "
                f"{config.model.name} ({', '.join(layers)})"
            )
        chosen = unlearn.layers - (unlearn.layers == len(layers))
    else:
        for name in unlearn.layers:
            if name not in layers:
                raise ValueError(
                    f"unlearn.layers: {config.model.name} has no layer {name!r}; it has {', '.join(layers)}"
                )
        if not unlearn.layers or len(set(unlearn.layers)) != len(unlearn.layers):
            raise ValueError("unlearn.layers: name one or more layers, each once")
        chosen = len([name for name in unlearn.layers if name != layers[0]])
    if unlearn.start == "reset" and unlearn.sparsity == 0 and chosen > 1:
        raise ValueError(
            f"unlearn.start: reset at sparsity 0 would set {chosen} whole layers to zero, and then no "
            "gradient reaches them; use one layer, or a sparsity of 0.5 or more"
        )


def describe() -> list[tuple[str, str, str, str]]:
    """(dotted key, type, default as JSON, docstring line) of every field, for `init` and the reference docs."""
    rows: list[tuple[str, str, str, str]] = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            key, kind = prefix + (field.alias or name), field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                walk(kind, key + ".")
            else:
                rows.append((key, _type_text(kind), json.dumps(field.default), field.description or ""))

    walk(RunConfig, "")
    return rows


def _type_text(kind: Any) -> str:
    choices = [repr(a) if isinstance(a, str) else _type_text(a) for a in get_args(kind) if a is not Ellipsis]
    if getattr(kind, "__metadata__", None):
        return _type_text(get_args(kind)[0])
    if getattr(kind, "__origin__", None) is tuple:
        return f"list of {_type_text(get_args(kind)[0])}"
    if choices:
        return " | ".join(dict.fromkeys(choices)).replace("'", "")
    return {type(None): "null"}.get(kind, getattr(kind, "__name__", str(kind)))


def density_count(density: float, entries: int) -> int:
    """How many of a layer's entries a mask of this density keeps: the nearest whole number, at least 1."""
    return max(1, math.floor(density * entries + 0.5))

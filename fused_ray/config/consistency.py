"""What must hold between the fields of a configuration. Each function raises ValueError: key, what, how to mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fused_ray.config.abilities import check_method
from fused_ray.config.parts.adapters import START
from fused_ray.config.parts.datasets import DatasetInfo
from fused_ray.config.settings import Settings
from fused_ray.config.suggest import did_you_mean


def check(config: Settings) -> None:
    """All that can be told without the data. Raises ValueError at the first that does not hold."""
    _own_data(config)
    check_method(config)
    _training(config)
    _what_is_forgotten(config)
    _layers(config)
    _adapter(config)
    if config.deployment.decides and config.federation.on_failure == "skip":
        raise ValueError(
            "federation.on_failure: with deployment.participation=available, who counts follows from the clock alone; "
            "use fail or wait"
        )
    if not config.data.images:
        _no_images(config)
    if config.data.known is not None:
        check_data(config, config.data.known)


def check_data(config: Settings, data: DatasetInfo) -> None:
    """What must hold between a configuration and its data. Raises ValueError at the first that does not."""
    _constants(config, data)
    _amounts(config, data)
    _known_classes(config, data)
    if config.forget.scenario == "sample":
        _known_examples(config, data)
    known = config.model.known
    if known is None or not config.data.images:
        return
    height, width = data.shape[1:]
    if min(height, width) < known.min_side:
        raise ValueError(
            f"model.name: {config.model.name} takes images of at least {known.min_side} x {known.min_side} pixels, not "
            f"{height} x {width}"
        )


def _own_data(config: Settings) -> None:
    data = config.data
    if data.part is not None and data.root is not None:
        raise ValueError(f"data.root: {data.name} is told where it is by settings of its own (data.args), if by any")
    if data.part is None and data.known is None and data.root is None:
        what = "the .npz file" if data.name == "npz" else "the folder or URI of the Parquet files"
        raise ValueError(f"data.root: {data.name} is your own data; say where {what} is")
    for key, column in (("image", data.image_column), ("label", data.label_column)):
        if column is not None and data.name != "parquet":
            raise ValueError(f"data.{key}_column: only data.name=parquet has columns; leave it unset")
    for key, said in (("partition_file", data.partition_file), ("client_column", data.client_column)):
        if said is not None and data.partition != "file":
            raise ValueError(f"data.{key}: says who holds what only where data.partition=file; set that too")
    from_data = data.client_column is not None and data.name == "parquet"
    if data.partition == "file" and data.partition_file is None and not from_data:
        raise ValueError(
            "data.partition_file: data.partition=file takes a file's path or, for data.name=parquet, the data's own "
            "data.client_column"
        )
    if data.partition == "file" and config.forget.scenario == "exclusive":
        raise ValueError("data.partition: the scenario exclusive says itself who holds what; choose another partition")


def _no_images(config: Settings) -> None:
    name = config.data.name
    if config.model.registered is not None:
        raise ValueError(
            f"model.name: {config.model.name} takes images, and the inputs of {name} are none; set model.factory"
        )
    if config.data.augment != "none":
        raise ValueError(f"data.augment: the inputs of {name} are no images; leave it unset")
    if config.forget.scenario == "sample" and config.forget.poison:
        raise ValueError(f"forget.poison: the inputs of {name} are no images to carry a trigger; set it to false")


def _constants(config: Settings, data: DatasetInfo) -> None:
    channels, what = data.shape[0], "images" if config.data.images else "inputs"
    for key, given in (("mean", config.data.mean), ("std", config.data.std)):
        if given is not None and len(given) not in (1, channels):
            raise ValueError(
                f"data.{key}: there are {len(given)} numbers, and the {what} of {config.data.name} have {channels} "
                f"channel{'s' * (channels > 1)}; give one number, or one per channel"
            )


def _amounts(config: Settings, data: DatasetInfo) -> None:
    if config.data.partition == "pathological" and config.data.classes_per_client > data.classes:
        raise ValueError(
            f"data.classes_per_client: {config.data.classes_per_client} is more than the {data.classes} classes "
            f"of {config.data.name}"
        )
    if config.data.limit is not None and config.data.limit < data.classes:
        raise ValueError(f"data.limit: must be at least {data.classes}, one example a class")
    examples = _train_examples(config, data)
    drawn = config.data.partition != "file"  # a file says itself how many clients there are, and what they hold
    if drawn and config.federation.clients * config.data.min_examples > examples:
        raise ValueError(
            f"federation.clients: {config.federation.clients} clients of at least {config.data.min_examples} "
            f"examples (data.min_examples) need more than the {examples} training examples of {config.data.name}"
            + (f" that data.limit={config.data.limit} leaves" if config.data.limit is not None else "")
        )


def _train_examples(config: Settings, data: DatasetInfo) -> int:
    return min(config.data.limit or data.train_examples, data.train_examples)


def _training(config: Settings) -> None:
    train, federation = config.train, config.federation
    if train.local_steps is not None and train.local_epochs != 1:
        raise ValueError("train.local_epochs: train.local_steps says how long a round is; leave one of the two unset")
    if train.warmup >= config.pretrain.rounds:
        raise ValueError(
            f"train.warmup: {train.warmup} rounds of warm-up leave none of the {config.pretrain.rounds} of "
            "pretrain.rounds at the full learning rate; lower it"
        )
    for key, given in (("aggregate", federation.aggregate), ("server", federation.server)):
        if config.method.mean_alone and given != "mean":
            raise ValueError(
                f"federation.{key}: the method {config.unlearn.method} reckons with the plain mean of clients' models; "
                f"leave it at mean, not {given}"
            )
    if config.method.mean_alone and federation.on_failure == "skip":
        raise ValueError(
            f"federation.on_failure: the method {config.unlearn.method} goes back over rounds, and who failed then may "
            "not fail again; take fail or wait, not skip"
        )


def _what_is_forgotten(config: Settings) -> None:
    if len(set(config.forget_classes)) != len(config.forget_classes):
        raise ValueError(f"forget.classes: {list(config.forget_classes)} names a class twice")
    of_ours = {"class": _class, "client": _client, "sample": _sample, "exclusive": _exclusive}
    of_ours.get(config.forget.scenario, _own_scenario)(config)


def _known_classes(config: Settings, data: DatasetInfo) -> None:
    classes, known = config.forget_classes, data.classes
    if known < 2:
        key = "data.root" if config.data.part is None else "data.name"
        raise ValueError(f"{key}: all labels are of one class, so that there is nothing to tell apart")
    for c in (*classes, *([config.forget.target] if config.forget.scenario == "sample" else [])):
        if not 0 <= c < known:
            key = "forget.classes" if c in classes else "forget.target"
            raise ValueError(f"{key}: there is no class {c}; {config.data.name} has 0 to {known - 1}")
    if config.forget.scenario == "class" and len(classes) == known:
        raise ValueError("forget.classes: forgetting every class leaves nothing to remember; name fewer")


def _class(config: Settings) -> None:
    _no_clients(config)
    if not config.forget_classes:
        raise ValueError("forget.classes: name at least one class to forget")


def _client(config: Settings) -> None:
    _no_classes(config)
    clients, there_are = _clients(config), config.federation.clients
    if there_are < 2:
        raise ValueError("federation.clients: forgetting a client needs at least 2, it and one that remembers")
    if clients == there_are:
        key = "forget.share" if config.forget.clients is None else "forget.clients"
        raise ValueError(f"{key}: forgetting every client leaves nothing to remember; forget fewer")


def _sample(config: Settings) -> None:
    _no_classes(config)
    clients, forget = _clients(config), config.forget
    if forget.examples:
        _examples(config)
    elif clients == config.federation.clients and forget.examples_share == 1:
        raise ValueError(
            "forget.examples_share: all examples of every client leave nothing to remember; lower it, or attack fewer "
            "clients (forget.clients, forget.share)"
        )


def _examples(config: Settings) -> None:
    forget = config.forget
    if len(set(forget.examples)) != len(forget.examples) or min(forget.examples) < 0:
        raise ValueError("forget.examples: name each example once, by its position in the training set, from 0")
    if forget.clients is not None or forget.share is not None:
        raise ValueError(
            "forget.examples: the examples say which clients are concerned; leave forget.clients and forget.share unset"
        )


def _known_examples(config: Settings, data: DatasetInfo) -> None:
    forget, there_are = config.forget, _train_examples(config, data)
    if config.data.images and forget.trigger > min(data.shape[1:]):
        height, width = data.shape[1:]
        raise ValueError(f"forget.trigger: {forget.trigger} pixels do not fit into images of {height} x {width}")
    last = max(forget.examples, default=-1)
    if last >= there_are:
        raise ValueError(f"forget.examples: there is no example {last}; examples are 0 to {there_are - 1}")
    if len(forget.examples) == there_are:
        raise ValueError("forget.examples: forgetting every example leaves nothing to remember; name fewer")


def _exclusive(config: Settings) -> None:
    _no_clients(config)
    forget, clients = config.forget, config.federation.clients
    if len(config.forget_classes) != 2:
        raise ValueError("forget.classes: exclusive takes two, the owner's alone and the overlapping one ([1, 0])")
    if forget.owner >= clients:
        raise ValueError(f"forget.owner: there is no client {forget.owner}; clients are 0 to {clients - 1}")
    if clients < 2:
        raise ValueError("federation.clients: exclusive needs at least 2, the owner and one that remembers")


def _own_scenario(config: Settings) -> None:
    """One of another package has settings of its own."""
    forget = config.forget
    for key, given in (("classes", forget.classes), ("clients", forget.clients), ("share", forget.share)):
        if given is not None:
            raise ValueError(f"forget.{key}: {forget.scenario} reads its own forget.args instead; leave it unset")


def _no_clients(config: Settings) -> None:
    for key, given in (("clients", config.forget.clients), ("share", config.forget.share)):
        if given:
            scenario = config.forget.scenario
            raise ValueError(f"forget.{key}: the scenario {scenario!r} forgets no whole clients; leave it unset")


def _no_classes(config: Settings) -> None:
    if config.forget.classes is not None:
        raise ValueError(f"forget.classes: the scenario {config.forget.scenario!r} forgets no classes; leave it unset")


def _clients(config: Settings) -> int:
    """How many clients are named or drawn."""
    named, there_are = config.forget.clients, config.federation.clients
    if named is None:
        return config.forget_count
    if not named:
        raise ValueError("forget.clients: name at least one client, or leave it unset")
    # a file may name clients otherwise than by their numbers: the scenario looks when it has been read
    for client in named if config.data.partition != "file" else ():
        if not isinstance(client, int) or not 0 <= client < there_are:
            raise ValueError(f"forget.clients: there is no client {client}; clients are 0 to {there_are - 1}")
    if len(set(map(str, named))) != len(named):
        raise ValueError(f"forget.clients: {list(named)} names a client twice")
    if config.forget.share is not None:
        raise ValueError("forget.share: clients are named already; leave one of the two unset")
    return len(named)


def _layers(config: Settings) -> None:
    info = config.model.known
    if info is not None:
        check_layers(config, info.layers, info.ranked, gated=info.gated)


def check_layers(
    config: Settings,
    layers: Sequence[str],
    ranked: Sequence[str],
    barred: Mapping[str, str] = MappingProxyType({}),
    gated: Sequence[str] = (),
) -> None:
    """What `unlearn` says against a model's layers from the input to the output, and those that may be ranked.

    `barred` says why layers cannot be adapted, `gated` are those that no gradient reaches once they are zero. Raises
    ValueError. A registered model's are known at once, those of a model of the user's own when it is built.
    """
    if isinstance(config.unlearn.layers, int):
        chosen = _number_of_layers(config, config.unlearn.layers, layers, ranked, barred)
    else:
        chosen = _named_layers(config, config.unlearn.layers, layers, ranked, barred)
    if resets_whole_layers(config):
        _reset(config, chosen, layers, ranked, gated)


def _number_of_layers(
    config: Settings, wanted: int, layers: Sequence[str], ranked: Sequence[str], barred: Mapping[str, str]
) -> int:
    """How many layers besides the input layer may be chosen."""
    if wanted > len(ranked) and not config.unlearn.selection_part[0].shares:
        raise ValueError(
            f"unlearn.layers: {wanted} is more than the {len(ranked)} layers of "
            f"{config.model.label} ({', '.join(ranked)})"
            + (f"; {next(iter(barred.values()))}" if barred else "")
            + (f", and {len(barred) - 1} more cannot be adapted either" if len(barred) > 1 else "")
        )
    return wanted - (wanted == len(ranked) and layers[0] in ranked)


def _named_layers(
    config: Settings, wanted: Sequence[str], layers: Sequence[str], ranked: Sequence[str], barred: Mapping[str, str]
) -> int:
    """How many of them are not the input layer."""
    for name in wanted:
        if name in barred:
            raise ValueError(f"unlearn.layers: {barred[name]}; name others of {', '.join(ranked) or 'none'}")
        if name not in layers:
            near = did_you_mean(name, layers) or ";"
            raise ValueError(
                f"unlearn.layers: {config.model.label} has no layer {name!r}{near} it has {', '.join(layers)}"
            )
    if not wanted or len(set(wanted)) != len(wanted):
        raise ValueError("unlearn.layers: name one or more layers, each once")
    chosen = len([name for name in wanted if name != layers[0]])
    moves = config.unlearn.start is not None and START.find(config.unlearn.start).moves
    partly = config.unlearn.start_input and not config.keeps_all
    if moves and not chosen and not partly:
        raise ValueError(
            f"unlearn.start: an adapter of the input layer {layers[0]} starts at zero, for nothing would reach the "
            "other layers; set unlearn.start=zero or name other layers"
        )
    return chosen


def _reset(config: Settings, chosen: int, layers: Sequence[str], ranked: Sequence[str], gated: Sequence[str]) -> None:
    """Whether training can bring whole layers back that start at zero."""
    if chosen > 1:
        raise ValueError(
            f"unlearn.start: reset at sparsity 0 would set {chosen} whole layers to zero, and then no "
            "gradient reaches them; use one layer, or a sparsity of 0.5 or more"
        )
    stuck = [name for name in resettable(config, layers, ranked) if name in gated]
    learns = [name for name in ranked if name != layers[0] and name not in gated]
    if stuck and not (isinstance(config.unlearn.layers, int) and learns):  # of a number, those that learn are chosen
        raise ValueError(
            f"unlearn.start: reset at sparsity 0 would set all of {' or '.join(stuck)} to zero, and no gradient passes "
            f"the ReLU behind it; {f'adapt {learns[-1]} instead, or ' if learns else ''}use a sparsity of 0.5 or more"
        )


def resets_whole_layers(config: Settings) -> bool:
    """Whether the adapter starts by setting all that it adapts to zero, layer by layer."""
    unlearn = config.unlearn
    whole = config.masked and unlearn.sparsity == 0 and unlearn.budget is None
    return whole and unlearn.start is not None and START.find(unlearn.start).zeroes


def resettable(config: Settings, layers: Sequence[str], ranked: Sequence[str]) -> list[str]:
    """The layers that a reset may concern: those that are named, or may be chosen, but never the input layer."""
    wanted = config.unlearn.layers
    names = ranked if isinstance(wanted, int) else [name for name in layers if name in wanted]
    return [name for name in names if name != layers[0]]


def _adapter(config: Settings) -> None:
    unlearn = config.unlearn
    if not config.masked:
        name = unlearn.adapter
        if unlearn.start not in (None, "zero"):
            raise ValueError(f"unlearn.start: a {name} adapter has no entries to {unlearn.start}; it starts at zero")
        if unlearn.mask not in (None, "random") or unlearn.budget or unlearn.heal or unlearn.start_input:
            raise ValueError(
                f"unlearn.adapter: {name} has no mask; unlearn.mask, budget, heal and start_input are for sparse ones"
            )
    if unlearn.selection_part[0].shares:
        if unlearn.budget is None:
            raise ValueError("unlearn.budget: with unlearn.selection=budget, say how many values all layers share")
        if not isinstance(unlearn.layers, int):
            raise ValueError("unlearn.layers: with unlearn.selection=budget all layers take part; leave it unset")

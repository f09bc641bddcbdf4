"""What must be forgotten: one function a scenario, from the data set and who holds what to who forgets what.

A scenario may poison training data (flipped labels, images with a trigger) and may measure on images that the test
set does not have (triggered ones, a client's own). `extended` gives the data set with both: poisoned training images
in place, further test images behind the real ones, where the scenario's views point.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fused_ray.config import RunConfig, consistency
from fused_ray.config.parts.datasets import DatasetInfo
from fused_ray.config.parts.door import function
from fused_ray.config.parts.scenarios import SCENARIOS
from fused_ray.data.forgotten import checked
from fused_ray.data.partitions import Partition, digest, from_file, partition
from fused_ray.data.reading import some
from fused_ray.errors import ConfigError, DataError, FusedRayError
from fused_ray.seeding import permutation
from fused_ray.types import Forgotten, ImageData, IntVector, Parts, Scenario, TestView

OWN_EXAMPLES = 2000
"""Forgetting unpoisoned examples is measured on at most this many of them."""


def build(config: RunConfig, data: ImageData) -> Scenario:
    """The configured scenario.

    Raises DataError where nothing would be forgotten, or nothing kept; ConfigError where the configuration does not fit
    data that it could not know.
    """
    if config.data.known is None:
        sizes = len(data.train_labels), len(data.test_labels)
        about = DatasetInfo(data.classes, *sizes, data.shape, data.class_names, data.mean, data.std)
        try:
            consistency.check_data(config, about)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    who = _partition(config, data)
    forgotten = _forgotten(config, data, who)
    kept = len(Parts.of(forgotten.retained).indices)
    if kept == 0:
        raise DataError("nothing would be kept: every example is to be forgotten; forget less")
    if kept == len(who.parts.indices):
        of = " or ".join(_called(c, data) for c in config.forget_classes)
        what = f"an example of class {of}" if config.forget.scenario == "class" else "such examples"
        raise DataError(f"there is nothing to forget: no client holds {what}; check the forget section")
    scenario = _measured(config, data, who, forgotten)
    notes = (*who.notes, *_poison(config, scenario), *_unmeasured(config, data))
    for name, view in scenario.views.items():
        if not len(view.indices):
            raise DataError(f"the test set has no examples to measure {name} on{_more(config)}")
    return replace(scenario, client_names=who.names, notes=notes)


def _forgotten(config: RunConfig, data: ImageData, who: Partition) -> Forgotten:
    """What the scenario says. Raises DataError where one of another package says what does not hold together."""
    part, name = config.scenario, config.forget.scenario
    if name in SCENARIOS:
        forgotten: Forgotten = function(part.forget)(config, data, who)
        return forgotten
    try:
        returned = function(part.forget)(config, data, who)
    except FusedRayError:
        raise
    except Exception as error:  # whatever the function does
        raise DataError(f"forget.scenario: {name} fails: {type(error).__name__}: {error}") from error
    try:
        return checked(returned, part.like, data, who.parts)
    except ValueError as error:
        raise DataError(f"forget.scenario: {name} {error}") from None


def _measured(config: RunConfig, data: ImageData, who: Partition, forgotten: Forgotten) -> Scenario:
    """The whole scenario: RA on the test set where nothing else is said, FA on the forgotten examples themselves."""
    labels = data.train_labels if forgotten.train_labels is None else forgotten.train_labels
    changed = np.flatnonzero(labels != data.train_labels) if forgotten.poisoned is None else forgotten.poisoned
    retained = Parts.of(forgotten.retained)
    views, shown, tests = dict(forgotten.views), np.zeros(0, np.int64), len(data.test_labels)
    if "ra" not in views:
        views = {"ra": TestView(np.arange(tests), data.test_labels), **views}
    if "fa" not in views:
        gone = who.parts.without(retained).indices
        shown = np.sort(gone[permutation(len(gone), config.seed, "forget/own")[:OWN_EXAMPLES]])
        views["fa"] = TestView(tests + np.arange(len(shown)), labels[shown])
    return Scenario(
        held=who.parts,
        retained=retained,
        train_labels=labels,
        views=views,
        partition_sha256=digest(who.parts),
        poisoned=changed,
        trigger=forgotten.trigger,
        classes=forgotten.classes,
        shown=shown,
    )


def extended(config: RunConfig, data: ImageData, scenario: Scenario) -> ImageData:
    """The data that clients train on and that the scenario's views index: `data` itself if that is all there is."""
    own = scenario.shown
    if len(own):
        return replace(
            data,
            test_images=np.concatenate([data.test_images, data.train_images[own]]),
            test_labels=np.concatenate([data.test_labels, data.train_labels[own]]),
        )
    if not scenario.trigger:
        return data
    train = data.train_images.copy()
    train[scenario.poisoned] = stamped(train[scenario.poisoned], scenario.trigger)
    return replace(
        data,
        train_images=train,
        test_images=np.concatenate([data.test_images, stamped(data.test_images, scenario.trigger)]),
        test_labels=np.concatenate([data.test_labels, data.test_labels]),
    )


def _poison(config: RunConfig, scenario: Scenario) -> tuple[str, ...]:
    """What is to be said of training data that are made other ones than they were."""
    if not len(scenario.poisoned):
        return ()
    if config.forget.scenario not in SCENARIOS:
        return (f"{len(scenario.poisoned)} training examples have other labels, as {config.forget.scenario} says",)
    target = config.forget.target
    how = f"carry a trigger and the label {target}" if scenario.trigger else "have their labels flipped, y to y + 1"
    return (f"{len(scenario.poisoned)} training examples {how}: forget.poison=false takes the data as they are",)


def _unmeasured(config: RunConfig, data: ImageData) -> tuple[str, ...]:
    """What is to be said of forgotten classes without test examples. Raises DataError where FA, or CA, needs one."""
    classes = config.forget_classes
    absent = [c for c in classes if not (data.test_labels == c).any()]
    if not absent:
        return ()
    said = f"the test set has no example of class {' and '.join(_called(c, data) for c in absent)}"
    if config.forget.scenario == "exclusive" or len(absent) == len(classes):
        raise DataError(f"forget.classes: {said}, so that forgetting it cannot be measured{_more(config)}")
    return (f"{said}: FA is the accuracy on the other forgotten classes",)


def _called(label: int, data: ImageData) -> str:
    names = data.class_names or tuple(map(str, range(data.classes)))
    return str(label) if names[label] == str(label) else f"{label} ({names[label]})"


def _more(config: RunConfig) -> str:
    return "" if config.data.limit is None else "; raise data.limit"


def forget_classes(config: RunConfig, data: ImageData, who: Partition) -> Forgotten:
    """Whole classes, everywhere."""
    gone = np.isin(data.train_labels, config.forget_classes)
    tested = np.isin(data.test_labels, config.forget_classes)
    return Forgotten(
        retained=who.parts.where(~gone[who.parts.indices]),
        views={"ra": _view(data, ~tested), "fa": _view(data, tested)},
        classes=config.forget_classes,
    )


def forget_clients(config: RunConfig, data: ImageData, who: Partition) -> Forgotten:
    """All that some clients hold: with flipped labels, y to y + 1, or as it is.

    Flipped, FA is the accuracy on the whole test set against flipped labels; else that on the clients' own examples.
    """
    clients = _concerned(config, who.names)
    concerned = np.isin(who.parts.owners, clients)
    retained = who.parts.where(~concerned)
    if not config.forget.poison:
        return Forgotten(retained)
    gone = np.sort(who.parts.indices[concerned])
    labels = data.train_labels.copy()
    labels[gone] = (labels[gone] + 1) % data.classes
    everything = np.arange(len(data.test_labels))
    flipped = (data.test_labels + 1) % data.classes
    views = {"ra": TestView(everything, data.test_labels), "fa": TestView(everything, flipped)}
    return Forgotten(retained, views, labels, poisoned=gone)


def forget_samples(config: RunConfig, data: ImageData, who: Partition) -> Forgotten:
    """Single examples: named ones, or a share of those of the attacked clients.

    Poisoned, they carry a trigger and the target's label, and FA is the attack's success: the share of triggered test
    images of other classes that are taken for the target. Else FA is the accuracy on the examples themselves.
    """
    forget = config.forget
    if forget.examples:
        gone = np.sort(np.array(forget.examples, np.int64))
        if gone[-1] >= len(data.train_labels):
            raise DataError(f"forget.examples: there is no example {gone[-1]}; there are {len(data.train_labels)}")
    else:
        concerned = _concerned(config, who.names)
        gone = np.sort(np.concatenate([_drawn_examples(config, who.parts[client], client) for client in concerned]))
    lost = np.zeros(len(data.train_labels), bool)
    lost[gone] = True
    retained = who.parts.where(~lost[who.parts.indices])
    if not forget.poison:
        return Forgotten(retained)
    labels, everything = data.train_labels.copy(), np.arange(len(data.test_labels))
    labels[gone] = forget.target
    attacked = everything[data.test_labels != forget.target]
    views = {
        "ra": TestView(everything, data.test_labels),
        "fa": TestView(len(everything) + attacked, np.full(len(attacked), forget.target)),
    }
    return Forgotten(retained, views, labels, poisoned=gone, trigger=forget.trigger)


def forget_exclusive(config: RunConfig, data: ImageData, who: Partition) -> Forgotten:
    """All that the owner knows: it alone holds classes[0] and most of classes[1], and nothing else."""
    own, shared = config.forget_classes
    return Forgotten(
        retained=who.parts.where(who.parts.owners != config.forget.owner),
        views={
            "ra": _view(data, ~np.isin(data.test_labels, (own, shared))),
            "fa": _view(data, data.test_labels == own),
            "ca": _view(data, data.test_labels == shared),
        },
        classes=(own,),
    )


def _partition(config: RunConfig, data: ImageData) -> Partition:
    """Who holds what; in the scenario exclusive the owner has what it alone knows, and the others share the rest."""
    if config.data.partition == "file":
        return from_file(config.data, config.federation.clients, data)
    if config.forget.scenario != "exclusive":
        return partition(config.data, config.federation.clients, data.train_labels, config.seed, data.columns)
    own, shared = config.forget_classes
    labels = data.train_labels
    overlap = np.flatnonzero(labels == shared)
    overlap = overlap[permutation(len(overlap), config.seed, "exclusive")]
    owners = np.sort(
        np.concatenate([np.flatnonzero(labels == own), overlap[: int(config.forget.overlap * len(overlap))]])
    )
    others = np.setdiff1d(np.arange(len(labels)), owners)
    columns = {name: column[others] for name, column in data.columns.items()}
    rest = partition(config.data, config.federation.clients - 1, labels[others], config.seed, columns)
    owner = np.full(len(labels), config.forget.owner)
    others_owner = rest.parts.owners
    owner[others[rest.parts.indices]] = others_owner + (others_owner >= config.forget.owner)
    return replace(rest, parts=Parts.owned(owner, config.federation.clients))


def _concerned(config: RunConfig, names: tuple[str, ...]) -> tuple[int, ...]:
    """The clients that are forgotten or attacked, ascending: named, or drawn from the seed.

    Where clients have names those are meant, even by a number. Raises ConfigError where there is no such client.
    """
    if config.forget.clients is not None:
        known = {name: client for client, name in enumerate(names or map(str, range(config.federation.clients)))}
        for name in config.forget.clients:
            if str(name) not in known:
                raise ConfigError(f"forget.clients: there is no client {name}; clients are {some(tuple(known))}")
        return tuple(sorted(known[str(name)] for name in config.forget.clients))
    drawn = permutation(config.federation.clients, config.seed, "forget/clients")[: config.forget_count]
    return tuple(sorted(int(client) for client in drawn))


def _drawn_examples(config: RunConfig, held: IntVector, client: int) -> IntVector:
    order = permutation(len(held), config.seed, "forget/examples", client=client)
    return held[order[: int(config.forget.examples_share * len(held))]]


def stamped(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images with a white square in the lower right corner, a pixel from the edges where there is room."""
    result = images.copy()
    _, _, height, width = images.shape
    edge = 1 if side < min(height, width) else 0
    result[:, :, height - edge - side : height - edge, width - edge - side : width - edge] = 255
    return result


def _view(data: ImageData, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> TestView:
    indices = np.flatnonzero(chosen)
    return TestView(indices, data.test_labels[indices])

"""What a scenario of another package says must be forgotten, held to what a scenario of its kind is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fused_ray.config.parts.scenarios import Kind
from fused_ray.types import Forgotten, ImageData, Parts, TestView


def checked(forgotten: Any, like: Kind, data: ImageData, held: Parts) -> Forgotten:
    """The same with indices in order and, of whole classes, which they are. Raises ValueError: what does not hold."""
    if not isinstance(forgotten, Forgotten):
        raise ValueError(f"returns {type(forgotten).__name__}, not fused_ray.api.Forgotten")
    if len(forgotten.retained) != len(held):
        raise ValueError(f"says what {len(forgotten.retained)} clients keep, not {len(held)}")
    retained = _ordered(Parts.of(forgotten.retained))
    foreign, sizes = retained.without(held).sizes, (held.sizes, retained.sizes)
    if foreign.any():
        raise ValueError(f"lets client {foreign.argmax()} keep examples that it does not hold")
    some = (sizes[1] > 0) & (sizes[1] < sizes[0])
    if like in ("client", "exclusive") and some.any():
        client = int(some.argmax())
        raise ValueError(
            f"is like {like}, but client {client} keeps {sizes[1][client]} of its {sizes[0][client]} examples"
        )
    labels = forgotten.train_labels
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != data.train_labels.shape or labels.dtype.kind not in "iu":
            raise ValueError(
                f"has {labels.dtype} {list(labels.shape)} train_labels, not int64 {len(data.train_labels)}"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < data.classes:
            raise ValueError(f"has train_labels from {labels.min()} to {labels.max()}, not 0 to {data.classes - 1}")
        labels = labels.astype(np.int64)
    if labels is not None and "fa" not in forgotten.views:
        raise ValueError("changes labels, so it must say the test view fa: what counts as not forgotten")
    if forgotten.trigger or forgotten.poisoned is not None:
        raise ValueError("changes inputs; a scenario of another package may change train_labels alone")
    classes = tuple(sorted(map(int, forgotten.classes))) or _classes(like, data, held, retained)
    return replace(forgotten, retained=retained, train_labels=labels, classes=classes, views=_views(forgotten, data))


def _ordered(parts: Parts) -> Parts:
    """Each client's indices ascending, and none twice."""
    order = np.lexsort((parts.indices, parts.owners))
    indices, owners = parts.indices[order], parts.owners
    again = np.zeros(len(indices), bool)
    again[1:] = (np.diff(indices) == 0) & (np.diff(owners) == 0)
    return Parts(indices, parts.offsets).where(~again)


def _classes(like: Kind, data: ImageData, held: Parts, retained: Parts) -> tuple[int, ...]:
    """The classes that go, where it is classes that do."""
    if like != "class":
        return ()
    kept = retained.indices
    gone = np.setdiff1d(held.indices, kept)
    classes = np.unique(data.train_labels[gone])
    stay = classes[np.isin(classes, data.train_labels[kept])]
    if len(stay):
        raise ValueError(f"is like class, but examples of class {stay[0]} stay")
    return tuple(classes.tolist())


def _views(forgotten: Forgotten, data: ImageData) -> dict[str, TestView]:
    views, tests = {}, len(data.test_labels)
    for name, view in forgotten.views.items():
        indices, labels = np.asarray(view.indices), np.asarray(view.labels)
        if name not in ("ra", "fa", "ca"):
            raise ValueError(f"has a test view {name}; there are ra, fa and ca")
        whole = all(array.ndim == 1 and array.dtype.kind in "iu" for array in (indices, labels))
        if not whole or len(indices) != len(labels):
            raise ValueError(f"has a test view {name} whose indices and labels are not whole numbers, as many of each")
        if len(indices) and not 0 <= indices.min() <= indices.max() < tests:
            raise ValueError(f"has a test view {name} of other examples than the {tests} of the test set")
        views[name] = TestView(indices.astype(np.int64), labels.astype(np.int64))
    return views

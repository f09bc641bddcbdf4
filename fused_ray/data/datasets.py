"""Data sets in memory: found, read, checked against what is known of them, and cut to `data.limit`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pyarrow.fs import LocalFileSystem

from fused_ray.config import DataConfig
from fused_ray.config.parts.datasets import DatasetInfo
from fused_ray.data import arrays, brought, parquet, splits, torchvision_sets
from fused_ray.data.location import is_file
from fused_ray.data.parquet_file import ParquetFile
from fused_ray.data.reading import some
from fused_ray.data.source import Pixels, Source
from fused_ray.errors import DataError
from fused_ray.seeding import permutation
from fused_ray.types import ImageData, IntVector

EMBEDDED = Path(__file__).parent / "embedded"


def load(config: DataConfig, seed: int) -> ImageData:
    """The configured data set, cut to `data.limit` if that is set. Raises DataError."""
    source = _read(config) if config.part is None else brought.read(config, config.part, seed)
    info, class_names = config.known, source.class_names
    if info is not None:
        _check_known(config.name, source, info)
        class_names = info.class_names
    for part, split in (("training", source.train), ("test", source.test)):
        if not len(split.labels):
            raise DataError(f"{config.root or config.name}: the {part} set is empty")
    kept, test_kept = (
        None if config.limit is None else _balanced(split.labels, config.limit, len(class_names), seed, purpose)
        for split, purpose in ((source.train, "limit-train"), (source.test, "limit-test"))
    )
    images, notes = source.train.images(kept)
    test_images, test_notes = source.test.images(test_kept)
    labels = _chosen(source.train.labels, kept)
    images, test_images, mixed = _of_one_kind(images, test_images) if config.images else (images, test_images, ())
    if test_images.shape[1:] != images.shape[1:]:
        what, of = ("images", " (channels, height, width)") if config.images else ("inputs", "")
        raise DataError(
            f"{config.root or config.name}: training {what} are {list(images.shape[1:])}{of}, "
            f"test {what} {list(test_images.shape[1:])}"
        )
    channels = images.shape[1] if config.images else 1  # what is no image has no channels to repeat a number for
    mean, std = (given * channels if len(given) == 1 else given for given in config.constants)
    return ImageData(
        name=config.name,
        classes=len(class_names),
        mean=mean,
        std=std,
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=_chosen(source.test.labels, test_kept),
        class_names=class_names,
        train_rows=np.arange(len(source.train.labels)) if kept is None else kept,
        train_total=len(source.train.labels),
        notes=(*source.notes, *notes, *test_notes, *mixed, *_without_examples(labels, class_names)),
        columns={name: column if kept is None else column[kept] for name, column in source.columns.items()},
    )


def look(config: DataConfig) -> tuple[tuple[int, ...], int] | None:
    """The shape of the user's own images and the number of classes, from the labels and one image of each split.

    None where that does not tell: grey ones in Parquet become colour if others are, and what another package brings
    would be loaded whole. Raises DataError.
    """
    if config.part is not None:
        return None
    source = _read(config)
    splits = (source.train, source.test)
    if not all(len(split.labels) for split in splits):
        return None  # there is none
    shapes = [split.images(np.arange(1)).pixels.shape[1:] for split in splits]
    channels = max(shape[0] for shape in shapes)
    return None if config.name == "parquet" and channels == 1 else ((channels, *shapes[0][1:]), len(source.class_names))


def find(config: DataConfig) -> Path | str | None:
    """The folder, file or URI that holds the data set, without reading it; None if it would have to be downloaded, or
    comes from another package.

    Raises DataError if `data.root` does not hold it, or if there is no `data.partition_file`.
    """
    if config.partition_file is not None and not is_file(config.partition_file, "data.partition_file"):
        raise DataError(f"data.partition_file: there is no file {config.partition_file}")
    if config.part is not None:
        return None
    if config.name == "fashion-mnist-mini":
        folder = EMBEDDED if config.root is None else Path(config.root).expanduser()
        for split in ("train", "test"):
            if not os.path.isfile(folder / f"fashion-mnist-mini-{split}.parquet"):
                raise DataError(f"data.root: {folder} has no fashion-mnist-mini-{split}.parquet; leave data.root unset")
        return folder
    if config.name == "parquet":
        splits.find(_root(config))
        return _root(config)
    if config.name == "npz":
        return arrays.find(Path(_root(config)).expanduser())
    return torchvision_sets.find(config.name, config.root)


def _read(config: DataConfig) -> Source:
    where = find(config)
    if config.name == "parquet":
        return parquet.read(_root(config), config.image_column, config.label_column)
    if config.name == "npz":
        return arrays.read(Path(str(where)))
    if config.name == "fashion-mnist-mini":
        names = [str(Path(str(where)) / f"fashion-mnist-mini-{split}.parquet") for split in ("train", "test")]
        train, test = (ParquetFile(LocalFileSystem(), name, name) for name in names)
        return parquet.read_files([train], [test])
    return torchvision_sets.read(config.name, None if where is None else Path(where))


def _root(config: DataConfig) -> str:
    assert config.root is not None, f"{config.name} without data.root is no valid configuration"
    return config.root


def _check_known(name: str, source: Source, info: DatasetInfo) -> None:
    for part, split, expected in (
        ("train", source.train, info.train_examples),
        ("test", source.test, info.test_examples),
    ):
        labels = split.labels
        if len(labels) != expected:
            raise DataError(f"{name} {part}: there are {len(labels)} images, not {expected}; get the files anew")
        shape = split.images(np.arange(1)).pixels.shape[1:]
        if shape != info.shape:
            raise DataError(f"{name} {part}: images are {shape}, not {info.shape}")
        if len(labels) and not 0 <= labels.min() <= labels.max() < info.classes:
            raise DataError(
                f"{name} {part}: labels go from {labels.min()} to {labels.max()}, not 0 to {info.classes - 1}"
            )


def _of_one_kind(train: Pixels, test: Pixels) -> tuple[Pixels, Pixels, tuple[str, ...]]:
    """Both splits in colour if one of them is, and what is to be said of that."""
    if {train.shape[1], test.shape[1]} != {1, 3}:
        return train, test, ()
    grey, colour = ("training", "test") if train.shape[1] == 1 else ("test", "training")
    note = f"the {grey} images are grey and were made colour, as the {colour} images are"
    train, test = (np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images for images in (train, test))
    return train, test, (note,)


def _without_examples(labels: IntVector, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """What is to be said of classes that nobody can learn."""
    counts = np.bincount(labels, minlength=len(class_names))
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    return (f"{len(absent)} of {len(class_names)} classes have no training example: {some(absent)}",) if absent else ()


def _balanced(labels: IntVector, limit: int, classes: int, seed: int, purpose: str) -> IntVector:
    """Ascending rows of at most `limit` examples, as evenly over the classes as there are examples."""
    order = permutation(len(labels), seed, purpose)
    # rank within its class, in random order: taking the lowest ranks first is even over classes
    rank = np.empty(len(labels), np.int64)
    for label in range(classes):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:limit])


def _chosen(labels: IntVector, rows: IntVector | None) -> IntVector:
    return labels if rows is None else labels[rows]

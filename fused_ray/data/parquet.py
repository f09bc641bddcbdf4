"""Image data in Parquet: its columns, its classes and its pictures.

A row is an image, {bytes, path} or bytes alone with PNG or JPEG, and a label. Labels are read at once; only the images
that are asked for are decoded. `splits` says which files are read, `pictures` what an image becomes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from fused_ray.data import pictures, splits
from fused_ray.data.columns import Column, column
from fused_ray.data.parquet_file import ParquetFile
from fused_ray.data.reading import reading
from fused_ray.data.source import Images, Pixels, Source, Split, numbered
from fused_ray.errors import DataError
from fused_ray.types import IntVector

_IMAGES, _LABELS = ("image", "img"), ("label", "labels", "fine_label")
_BYTES = {"binary", "large_binary", "binary_view"}
_AT_ONCE = 128
"""Images that a thread decodes in a row."""


@dataclass(frozen=True)
class _Part:
    """A file of a split with the columns that matter in it."""

    file: ParquetFile
    image: str
    label: str
    labels: Column
    class_names: tuple[str, ...] | None

    @property
    def where(self) -> str:
        return f"{self.file.name}, column {self.label}"


def read(root: str, image_column: str | None = None, label_column: str | None = None) -> Source:
    """The data set below a folder or URI. Raises DataError naming file, column and row."""
    split = splits.find(root)
    source = read_files(split.train, split.test, image_column, label_column)
    if split.test_name == "test":
        return source
    return replace(source, notes=(f"there is no split called test: {split.test_name} is the test set",))


def read_files(
    train: Sequence[ParquetFile],
    test: Sequence[ParquetFile],
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """A data set from the files of its splits, one after the other. Raises DataError naming file, column and row."""
    # a shard without rows often has columns without types: it is not looked into
    parts = [[_open(file, image_column, label_column) for file in files if file.rows] for files in (train, test)]
    everything = [part for split in parts for part in split]
    named = [part for part in everything if part.class_names is not None]
    for part in named[1:]:
        if part.class_names != named[0].class_names:
            raise DataError(f"{part.where}: its classes are named otherwise than those of {named[0].file.name}")
    labels, names = numbered({part.where: part.labels for part in everything}, named[0].class_names if named else None)
    ends = len(parts[0])
    train_split = _split(parts[0], labels[:ends], "training")
    return Source(train_split, _split(parts[1], labels[ends:], "test"), names)


def training_columns(root: str, name: str) -> dict[str, pa.ChunkedArray]:
    """A column of the training set's files below a folder or URI, by file, for `data.client_column`.

    Raises DataError.
    """
    files = [file for file in splits.find(root).train if file.rows]
    return {f"{file.name}, column {name}": file.column(_known(file, "client", name)) for file in files}


def _open(file: ParquetFile, image: str | None, label: str | None) -> _Part:
    image = _column(file, "image", image, _IMAGES, "Image")
    label = _column(file, "label", label, _LABELS, "ClassLabel")
    kind = given = file.schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if str(kind) not in _BYTES:
        raise DataError(
            f"{file.name}, column {image}: {given}, not images as {{bytes, path}}; store each as PNG or JPEG bytes"
        )
    labels = column(file.column(label), f"{file.name}, column {label}", "label")
    names = file.features.get(label, {}).get("names")
    class_names: tuple[str, ...] | None = None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        class_names = tuple(names)
    return _Part(file, image, label, labels, class_names)


def _column(file: ParquetFile, what: str, wanted: str | None, usual: Sequence[str], kind: str) -> str:
    """The column with the images or labels: the wanted one, one of the usual names, or the only one of its kind."""
    there_are = file.schema.names
    named = [name for name in usual if name in there_are]
    typed = [name for name in there_are if file.features.get(name, {}).get("_type") == kind]
    if wanted is None and not named and len(typed) != 1:
        raise DataError(
            f"{file.name} has the columns {', '.join(there_are)}; none is called {' or '.join(usual)}: set "
            f"data.{what}_column to the one with the {what}s"
        )
    return _known(file, what, wanted or [*named, *typed][0])


def _known(file: ParquetFile, what: str, name: str) -> str:
    """The name of a column that there is, once. Raises DataError."""
    times = file.schema.names.count(name)
    if times == 0:
        raise DataError(f"data.{what}_column: {file.name} has no column {name}; it has {', '.join(file.schema.names)}")
    if times > 1:
        raise DataError(f"{file.name} has {times} columns that are called {name}; keep one")
    return name


def _split(parts: Sequence[_Part], labels: Sequence[IntVector], name: str) -> Split:
    together = np.concatenate([np.zeros(0, np.int64), *labels])
    return Split(together, lambda rows: _decoded(parts, np.arange(len(together)) if rows is None else rows, name))


class _Colour(Exception):
    """A colour image among grey ones."""


def _decoded(parts: Sequence[_Part], rows: IntVector, split: str) -> Images:
    """The images of ascending rows of a split, decoded by several threads; grey ones become colour if others are."""
    images: Pixels | None = None
    done = start = 0
    remarks: Counter[str] = Counter()
    with pictures.strictly(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for part in parts:
            end = start + len(part.labels.values)
            where = f"{part.file.name}, column {part.image}"
            for inside, cells in part.file.cells(part.image, rows[(rows >= start) & (rows < end)] - start):
                if images is None:
                    first = pictures.decode(cells[0], f"{where}, row {inside[0]}", Counter())
                    with reading(where, "does not fit into memory"):
                        images = np.empty((len(rows), *first.shape), np.uint8)
                try:
                    remarks += _filled(images[done:], cells, where, inside, threads)
                except _Colour:
                    with reading(where, "does not fit into memory"):
                        images = np.repeat(images, 3, axis=1)
                    remarks["grey"] = done
                    remarks += _filled(images[done:], cells, where, inside, threads)
                done += len(cells)
            start = end
    pixels = np.zeros((0, 1, 1, 1), np.uint8) if images is None else images
    return Images(pixels, pictures.notes(remarks, split))


def _filled(
    target: Pixels, cells: Sequence[Any], where: str, rows: IntVector, threads: ThreadPoolExecutor
) -> Counter[str]:
    """Decode cells into the first of uint8 [n, channels, height, width]; what was left out of them, counted."""

    def fill(at: int) -> Counter[str]:
        remarks: Counter[str] = Counter()
        end = at + _AT_ONCE
        for image, cell, row in zip(target[at:end], cells[at:end], rows[at:end], strict=False):
            _put(pictures.decode(cell, f"{where}, row {row}", remarks), image, f"{where}, row {row}", remarks)
        return remarks

    # the first fault in order is raised
    return sum(threads.map(fill, range(0, len(cells), _AT_ONCE)), Counter())


def _put(pixels: Pixels, image: Pixels, where: str, remarks: Counter[str]) -> None:
    if pixels.shape[1:] != image.shape[1:]:
        raise DataError(
            f"{where}: {list(pixels.shape[1:])} differs from {list(image.shape[1:])} (height, width) before it; all "
            "images need one size"
        )
    if len(pixels) > len(image):
        raise _Colour
    remarks["grey"] += len(pixels) < len(image)
    image[:] = pixels

"""Image data in the Parquet layout of the Hugging Face hub, from any folder or URI.

Files are named train-*.parquet and test-*.parquet (validation-*.parquet where there is no test), whole or in shards
such as train-00000-of-00004.parquet, in the folder itself or in data/ below it. A row is an image, {bytes, path} or
bytes alone with PNG or JPEG, and a label. Labels are read at once; only the images that are asked for are decoded.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from pyarrow.fs import FileSelector, FileSystem

from fused_ray.data.location import locate
from fused_ray.data.source import Pixels, Source, Split, numbered
from fused_ray.errors import DataError
from fused_ray.types import IntVector

_SPLITS = {"train": ("train",), "test": ("test", "validation")}
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_IMAGES, _LABELS = ("image", "img"), ("label", "labels", "fine_label")
_AT_ONCE = 128
"""Images that a thread decodes in a row."""


@dataclass(frozen=True)
class ParquetFile:
    """One file, and how it is called in messages."""

    filesystem: FileSystem
    path: str
    name: str

    @cached_property
    def content(self) -> pq.ParquetFile:
        """The file with its footer read. Raises DataError."""
        try:
            return pq.ParquetFile(self.filesystem.open_input_file(self.path))
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: names that are not UTF-8
            raise DataError(f"{self.name} is not a readable Parquet file: {error}") from None

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column. Raises DataError."""
        groups = range(self.content.num_row_groups)
        return pa.chunked_array(
            [chunk for group in groups for chunk in self._group(group, name).chunks],
            self.content.schema_arrow.field(name).type,
        )

    def cells(self, name: str, rows: IntVector) -> Iterator[tuple[IntVector, list[Any]]]:
        """Ascending rows of a column with what they hold, a row group at a time. Raises DataError."""
        at = 0
        for group in range(self.content.num_row_groups):
            end = at + self._rows(group)
            inside = rows[(rows >= at) & (rows < end)]
            if len(inside):
                column = self._group(group, name).take(pa.array(inside - at))
                if pa.types.is_struct(column.type):
                    column = pc.struct_field(column, "bytes")
                yield inside, column.to_pylist()
            at = end

    def _rows(self, group: int) -> int:
        return int(self.content.metadata.row_group(group).num_rows)

    def _group(self, group: int, name: str) -> pa.ChunkedArray:
        """A column of one row group."""
        try:
            column = self.content.read_row_group(group, columns=[name]).column(name)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{self.name} is damaged: {error}") from None
        if len(column) != self._rows(group):
            raise DataError(f"{self.name} is damaged: of {self._rows(group)} rows, column {name} has {len(column)}")
        return column


@dataclass(frozen=True)
class _Part:
    """A file of a split with the columns that matter in it."""

    file: ParquetFile
    image: str
    label: str
    labels: IntVector
    class_names: tuple[str, ...] | None

    @property
    def where(self) -> str:
        return f"{self.file.name}, column {self.label}"


def find(root: str) -> dict[str, list[ParquetFile]]:
    """The files of "train" and "test" below a folder or URI, in the order of their names. Raises DataError."""
    filesystem, folder = locate(root, "data.root")
    names: dict[str, str] = {}
    try:
        for below in ("", "data/"):
            selector = FileSelector(f"{folder}/{below}".rstrip("/") or "/", allow_not_found=True)
            found = {below + info.base_name: info.path for info in filesystem.get_file_info(selector) if info.is_file}
            names |= {name: path for name, path in found.items() if name.endswith(".parquet")}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"data.root: {root} cannot be read: {error}") from None
    splits = {}
    for split, prefixes in _SPLITS.items():
        for prefix in prefixes:
            of_split = sorted(name for name in names if re.match(rf"(data/)?{prefix}[-.]", name))
            if of_split:
                break
        else:
            raise DataError(f"data.root: {root} has no {' or '.join(f'{prefix}-*.parquet' for prefix in prefixes)}")
        _check_shards(root, of_split)
        splits[split] = [ParquetFile(filesystem, names[name], f"{root.rstrip('/')}/{name}") for name in of_split]
    return splits


def read(root: str, image_column: str | None = None, label_column: str | None = None) -> Source:
    """The data set below a folder or URI. Raises DataError naming file, column and row."""
    files = find(root)
    return read_files(files["train"], files["test"], image_column, label_column)


def read_files(
    train: Sequence[ParquetFile],
    test: Sequence[ParquetFile],
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """A data set from the files of its splits, one after the other. Raises DataError naming file, column and row."""
    parts = [[_open(file, image_column, label_column) for file in files] for files in (train, test)]
    everything = [part for split in parts for part in split]
    named = [part for part in everything if part.class_names is not None]
    for part in named[1:]:
        if part.class_names != named[0].class_names:
            raise DataError(f"{part.where}: its classes are named otherwise than those of {named[0].file.name}")
    names = numbered({part.where: part.labels for part in everything}, named[0].class_names if named else None)
    return Source(_split(parts[0]), _split(parts[1]), names)


def _check_shards(root: str, names: Sequence[str]) -> None:
    shards = [_SHARD.search(name.removesuffix(".parquet")) for name in names]
    if not any(shards):
        return
    totals = {int(shard[2]) for shard in shards if shard}
    present = {int(shard[1]) for shard in shards if shard}
    if None in shards or len(totals) > 1 or len(present) < len(names):
        raise DataError(f"data.root: {root} mixes files that do not belong together: {', '.join(names)}")
    (total,) = totals
    missing = sorted(set(range(total)) - present)
    if missing:
        raise DataError(f"data.root: {root} lacks shard {missing[0]:05d} of {total} beside {names[0]}")


def _open(file: ParquetFile, image: str | None, label: str | None) -> _Part:
    schema = file.content.schema_arrow
    features = _features(schema)
    image = _column(file, schema, features, "image", image, _IMAGES, "Image")
    label = _column(file, schema, features, "label", label, _LABELS, "ClassLabel")
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{file.name}, column {image}: {schema.field(image).type}, not images as {{bytes, path}}")
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"{file.name}, column {label}: {schema.field(label).type}, not whole numbers")
    labels = file.column(label)
    if labels.null_count:
        row = labels.is_null().to_pylist().index(True)
        raise DataError(f"{file.name}, column {label}, row {row}: there is no label")
    names = features.get(label, {}).get("names")
    class_names: tuple[str, ...] | None = None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        class_names = tuple(names)
    return _Part(file, image, label, labels.to_numpy().astype(np.int64), class_names)


def _column(
    file: ParquetFile,
    schema: pa.Schema,
    features: dict[str, dict[str, Any]],
    what: str,
    wanted: str | None,
    usual: Sequence[str],
    kind: str,
) -> str:
    """The column with the images or labels: the wanted one, one of the usual names, or the only one of its kind."""
    if wanted is not None:
        if wanted in schema.names:
            return wanted
        raise DataError(f"data.{what}_column: {file.name} has no column {wanted}; it has {', '.join(schema.names)}")
    there_are = list(map(str, schema.names))
    named = [name for name in usual if name in there_are]
    typed = [name for name in there_are if features.get(name, {}).get("_type") == kind]
    if named:
        return named[0]
    if len(typed) == 1:
        return typed[0]
    raise DataError(
        f"{file.name} has the columns {', '.join(there_are)}; none is called {' or '.join(usual)}: set "
        f"data.{what}_column to the one with the {what}s"
    )


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the file's Hugging Face metadata says of its columns; nothing where there is none."""
    try:
        found = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def _split(parts: Sequence[_Part]) -> Split:
    labels = np.concatenate([part.labels for part in parts])
    return Split(labels, lambda rows: _decoded(parts, np.arange(len(labels)) if rows is None else rows))


def _decoded(parts: Sequence[_Part], rows: IntVector) -> Pixels:
    """The images of ascending rows of a split, decoded by several threads, in order."""
    images: Pixels | None = None
    done = start = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for part in parts:
            end = start + len(part.labels)
            where = f"{part.file.name}, column {part.image}"
            for inside, cells in part.file.cells(part.image, rows[(rows >= start) & (rows < end)] - start):
                if images is None:
                    first = _decode(cells[0], f"{where}, row {inside[0]}")
                    images = np.empty((len(rows), *first.shape), np.uint8)
                work = [
                    (images[done + at : done + at + _AT_ONCE], cells[at : at + _AT_ONCE], where, inside[at:])
                    for at in range(0, len(cells), _AT_ONCE)
                ]
                for _ in threads.map(lambda given: _fill(*given), work):  # the first fault in order is raised
                    pass
                done += len(cells)
            start = end
    return np.zeros((0, 1, 1, 1), np.uint8) if images is None else images


def _fill(target: Pixels, cells: Sequence[Any], where: str, rows: IntVector) -> None:
    """Decode some cells into uint8 [len(cells), channels, height, width]."""
    for image, cell, row in zip(target, cells, rows, strict=False):
        pixels = _decode(cell, f"{where}, row {row}")
        if pixels.shape != image.shape:
            raise DataError(
                f"{where}, row {row}: {list(pixels.shape)} differs from {list(image.shape)} (channels, height, width) "
                "before it; all images need one size, all grey or all colour"
            )
        image[:] = pixels


def _decode(cell: Any, where: str) -> Pixels:
    """uint8 [channels, height, width] of an image's bytes: grey (L) as it is, all others as RGB."""
    try:
        with Image.open(io.BytesIO(cell), formats=("PNG", "JPEG")) as picture:
            if picture.mode.startswith(("I", "F")):
                raise DataError(f"{where}: its values have more than 8 bits ({picture.mode}); store 8-bit images")
            pixels = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    except (TypeError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        # Pillow calls a broken PNG a SyntaxError
        raise DataError(f"{where}: not an image as {{bytes, path}} with PNG or JPEG bytes") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

"""Which Parquet files are the training set and which the test set, in the layouts that people and hubs use.

The files of a split are called train-*.parquet (or train.parquet), or lie in a folder train/. They are in the root, in
data/ below it, or in the one folder below it that holds a data set, such as default/ (default/train/0000.parquet).
Shards may be numbered (0000.parquet) or say how many there are (train-00000-of-00004.parquet), with the hash of an
upload behind it (train-00000-of-00004-0a1b2c3d4e5f6071.parquet).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from pyarrow.fs import FileSelector, FileType

from fused_ray.data.location import is_file, locate
from fused_ray.data.parquet_file import ParquetFile
from fused_ray.data.reading import reading, some
from fused_ray.errors import DataError

TEST = ("test", "validation", "valid", "val", "dev")
"""Names of the test set; the first that there is counts."""
_PARQUET = ".parquet"
_SHARD = re.compile(r"-(\d+)-of-(\d+)(?:-[0-9a-zA-Z]+)?$")
_NUMBERED = re.compile(r"\d{4}")


@dataclass(frozen=True)
class Splits:
    """A data set's files, each split's in the order of their names."""

    train: list[ParquetFile]
    test: list[ParquetFile]
    test_name: str
    """What the test set is called there."""


def find(root: str) -> Splits:
    """The data set below a folder or URI. Raises DataError."""
    if is_file(root, "data.root"):
        raise DataError(f"data.root: {root} is a file; name the folder that holds the files of train and test")
    tree = _Tree(root)
    places = tree.places()
    train = tree.split("train", places)
    if not train:
        raise DataError(f"data.root: {root} has no train-*.parquet; {tree.content()}")
    for name in TEST:
        if test := tree.split(name, places):
            return Splits(train, test, name)
    others = ", ".join(f"{name}-*" for name in TEST[1:])
    raise DataError(f"data.root: {root} has no test-*.parquet (nor {others}); {tree.content()}")


class _Tree:
    """The folders below a root that are looked into, each listed once."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._filesystem, self._folder = locate(root, "data.root")
        self._listed: dict[str, tuple[dict[str, str], list[str]]] = {}

    def places(self) -> list[str]:
        """Where a data set lies, below the root: in it and in data/, or, if no training set is there, in a folder."""
        usual = ["", "data/"]
        if any(self._of_split(place, "train") for place in usual):
            return usual
        folders = [f"{folder}/" for folder in self._list("")[1]]
        return [place for place in folders if self._of_split(place, "train")]

    def split(self, name: str, places: Sequence[str]) -> list[ParquetFile]:
        """The files of a split, in the order of their names; none if it is not there. Raises DataError."""
        holding = [shards for place in places for shards in self._of_split(place, name)]
        if len(holding) > 1:
            first = " and ".join(next(iter(shards)) for shards in holding)
            raise DataError(f"data.root: {self._root} holds {name} more than once ({first}); keep one")
        files = dict(sorted(holding[0].items())) if holding else {}
        _check_shards(self._root, name, list(files))
        return [ParquetFile(self._filesystem, path, f"{self._root.rstrip('/')}/{file}") for file, path in files.items()]

    def content(self) -> str:
        """What there is instead, for a message."""
        files, folders = self._list("")
        if not files and not folders and self._filesystem.get_file_info(self._folder).type is FileType.NotFound:
            return "there is no such folder"
        names = sorted([*files, *(f"{folder}/" for folder in folders)])
        said = f"there is {some(names) or 'nothing'}"
        if not names or any(file.endswith(_PARQUET) for file in files):
            return said
        return f"{said}; images go into Parquet files first (docs/data.md, A folder of pictures)"

    def _of_split(self, place: str, name: str) -> list[dict[str, str]]:
        """The files of a split in one place: those that are called so, and those in a folder that is."""
        files, folders = self._list(place)
        named = {file: path for file, path in files.items() if re.match(rf"{name}[-.]", file.rpartition("/")[2])}
        inside = self._list(f"{place}{name}/")[0] if name in folders else {}
        parquet = [{file: path for file, path in here.items() if file.endswith(_PARQUET)} for here in (named, inside)]
        return [here for here in parquet if here]

    def _list(self, place: str) -> tuple[dict[str, str], list[str]]:
        """The files in a folder, by name below the root, and the names of its folders. Raises DataError."""
        if place not in self._listed:
            selector = FileSelector(f"{self._folder}/{place}".rstrip("/") or "/", allow_not_found=True)
            with reading(f"data.root: {self._root}", "cannot be read"):
                infos = self._filesystem.get_file_info(selector)
            shown = sorted((info for info in infos if info.base_name[:1] not in "._"), key=lambda info: info.base_name)
            self._listed[place] = (
                {place + info.base_name: info.path for info in shown if info.is_file},
                [info.base_name for info in shown if not info.is_file],
            )
        return self._listed[place]


def _check_shards(root: str, split: str, names: Sequence[str]) -> None:
    """Refuse what is incomplete, or there twice."""
    stems = [name.rpartition("/")[2].removesuffix(_PARQUET) for name in names]
    if all(_NUMBERED.fullmatch(stem) for stem in stems):
        stems = [f"-{stem}-of-{max(map(int, stems)) + 1}" for stem in stems]
    shards = [_SHARD.search(stem) for stem in stems]
    if not any(shards):
        return
    totals = {int(shard[2]) for shard in shards if shard}
    if None in shards or len(totals) > 1:
        raise DataError(f"data.root: {root} mixes files that do not belong together: {some(names)}")
    (total,) = totals
    files: dict[int, list[str]] = {}
    for name, shard in zip(names, shards, strict=True):
        files.setdefault(int(shard[1]) if shard else 0, []).append(name)
    twice = next((paths for paths in files.values() if len(paths) > 1), None)
    if twice is not None:
        raise DataError(
            f"data.root: {root} holds a shard of {split} more than once, as after two uploads ({some(twice)}); keep "
            "the files of one"
        )
    missing = next(number for number in count() if number not in files)
    if missing < total:
        raise DataError(f"data.root: {root} lacks shard {missing:05d} of {total} beside {names[0]}")
    if len(files) > total:
        raise DataError(f"data.root: {root} holds more shards of {split} than the {total} they say: {some(names)}")

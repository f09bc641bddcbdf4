"""Folders of results as they lie, here or on S3: what small files and a directory tell; none is opened or locked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fused_ray.config.paths import expanded, remote
from fused_ray.errors import RunDirectoryError
from fused_ray.storage import lock
from fused_ray.storage.bucket import Bucket, Content, File
from fused_ray.storage.mirror import FORMAT, MANIFEST

_CONFIGS = {"config.yaml", "comparison.yaml", "sweep.yaml", "scaling.yaml"}
SMALL = {"environment.json", "result.json", "starts.json", *_CONFIGS}
"""What is read of a folder of results."""
_OURS = SMALL | {lock.WRITER, lock.COMMAND, "rounds.parquet"}
"""Two of these names are in every folder of results, however damaged."""


@dataclass(frozen=True)
class Found:
    """A folder of results."""

    place: str
    """Its path, or its URI."""
    files: Mapping[str, File]
    """All files in it by their names from there, those of results inside it too."""
    content: Callable[[str], bytes]
    """Of a file of `SMALL`. Raises OSError, KeyError where it has gone, or RunDirectoryError."""
    owner: str | None = None
    """Who works on it; None: nobody."""
    problem: str = ""
    """Why nothing of it can be read, if that is so."""

    @property
    def bytes(self) -> int:
        """What all of its files take."""
        return sum(file.bytes for file in self.files.values())

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file. Raises RunDirectoryError if it is missing or holds no mapping."""
        try:
            content = json.loads(self.text(name))
        except ValueError as error:
            raise RunDirectoryError(f"{name} cannot be read: {error}") from None
        if not isinstance(content, dict):
            raise RunDirectoryError(f"{name} is not what this program writes")
        return content

    def text(self, name: str) -> str:
        """A file of `SMALL`. Raises RunDirectoryError."""
        if name not in self.files:
            raise RunDirectoryError(f"it has no {name}")
        try:
            return self.content(name).decode()
        except (OSError, ValueError, KeyError) as error:
            raise RunDirectoryError(f"{name} cannot be read: {error}") from None

    def inner(self, owner: Callable[[str], str | None] = lambda name: None) -> list[Found]:
        """The folders of results inside this one; `owner` says of one, by its name from here, who works on it."""
        parted: dict[str, dict[str, File]] = {}
        for name in self.files:
            folder, _, last = name.rpartition("/")
            if folder and last in ("environment.json", "result.json"):
                parted[folder] = {}
        for name, file in self.files.items():
            folder = name
            while folder := folder.rpartition("/")[0]:
                if folder in parted:
                    parted[folder][name.removeprefix(f"{folder}/")] = file
        return [self._within(name, files, owner(name)) for name, files in sorted(parted.items())]

    def _within(self, name: str, files: Mapping[str, File], owner: str | None) -> Found:
        def content(inside: str) -> bytes:
            return self.content(f"{name}/{inside}")

        return Found(f"{self.place}/{name}", files, content, owner)


def found(where: str | Path, inside: bool = False) -> list[Found]:
    """The folders of results at a path or URI or below it; `inside` them too. Raises RunDirectoryError.

    Links are not followed, but for one that stands for a folder of results.
    """
    if uri := remote(where):
        return sorted(_there(uri, inside), key=lambda each: each.place.split("/"))
    root = expanded(where)
    if not root.is_dir():
        raise RunDirectoryError(f"{where}: there is no such folder; name another one")
    return list(_here(root, inside))


# -- here


def _here(folder: Path, inside: bool) -> Iterator[Found]:
    try:
        with os.scandir(folder) as entries:
            names = {entry.name: entry for entry in entries}
    except OSError as error:
        yield Found(str(folder), {}, _unread, problem=f"it cannot be read: {error.strerror}")
        return
    if len(_OURS & names.keys()) > 1:
        yield from _with_inner(folder, inside)
        return
    for name in sorted(names):
        if name.startswith(".") or not names[name].is_dir():
            continue
        if not names[name].is_symlink() or _is_results(folder / name):
            yield from _here(folder / name, inside)


def _is_results(folder: Path) -> bool:
    try:
        return len(_OURS & {*os.listdir(folder)}) > 1
    except OSError:
        return False


def _with_inner(folder: Path, inside: bool) -> Iterator[Found]:
    def content(name: str) -> bytes:
        return (folder / name).read_bytes()

    whole = Found(str(folder), dict(_files(folder)), content, lock.holder(folder))
    yield whole
    if inside:
        yield from whole.inner(lambda name: lock.holder(folder / name))


def _files(folder: Path, below: str = "") -> Iterator[tuple[str, File]]:
    """All files of a folder; what vanishes meanwhile, or may not be looked at, is left out."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path), f"{below}{entry.name}/")
                else:
                    status = entry.stat(follow_symlinks=False)
                    yield below + entry.name, File(status.st_size, status.st_mtime)
    except OSError:
        return


def _unread(name: str) -> bytes:
    raise RunDirectoryError(f"{name} cannot be read")


# -- on S3


def _there(uri: str, inside: bool) -> Iterator[Found]:
    """By three rounds of requests, however many folders there are: a list, the manifests, the small files."""
    bucket = Bucket(uri)
    objects = bucket.listed()
    manifests = bucket.read_all([name for name in objects if name.rpartition("/")[2] == MANIFEST])
    named = {manifest: _named(manifest, content.body, objects) for manifest, content in manifests.items()}
    wanted = [key for files in named.values() for name, key in files.items() if _is_read(name, inside)]
    contents = bucket.read_all(wanted)
    for manifest, keys in named.items():
        place = f"{uri}/{manifest}".removesuffix(f"/{MANIFEST}")
        if (lease := _lease(manifests[manifest])) is None:
            yield Found(place, {}, _unread, problem=f"its {MANIFEST} is not what this version of the program writes")
        elif keys:  # else a start came to nothing
            files = {name: objects[key] for name, key in keys.items()}
            bodies = {name: contents[key].body for name, key in keys.items() if key in contents}
            whole = Found(place, files, bodies.__getitem__, lease or None)
            yield whole
            if inside:
                yield from whole.inner()


def _is_read(name: str, inside: bool) -> bool:
    """Whether a file is one that is read, of a folder itself or `inside` of those in it too."""
    folder, _, last = name.rpartition("/")
    return last in SMALL and (inside or not folder)


def _named(manifest: str, body: bytes, objects: Mapping[str, File]) -> dict[str, str]:
    """The files that a manifest names, and the objects that hold them, as far as they are there."""
    try:
        files = json.loads(body)["files"].items()
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    beside = manifest.removesuffix(MANIFEST)
    return {name: f"{beside}{key}" for name, key in files if f"{beside}{key}" in objects}


def _lease(manifest: Content) -> str | None:
    """Who holds a folder's lease, and lives; empty: nobody; None if it is no manifest."""
    try:
        about = json.loads(manifest.body)
        lease = about["lease"] or {"owner": "", "seconds": 0}
        return (lease["owner"] if manifest.age < lease["seconds"] else "") if about["format"] == FORMAT else None
    except (ValueError, TypeError, KeyError):
        return None

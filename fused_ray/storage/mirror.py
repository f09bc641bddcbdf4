"""A folder on S3, worked on in a folder of this machine: every finished file is uploaded, one manifest names them all.

The manifest is the only object that is ever replaced, and each time on condition that it is still the one that was
read. It is the lease as well: whoever writes it next, with a higher generation, has shut out the writer before, which
may sleep and wake up at any time. All other objects have names that are never used twice; the manifest names an object
only once that is there. So whatever ends a writer, at any moment, what the manifest names is all there.

All processes of one machine that work on the folder (the command, its driver, runners) share `.fused_ray-s3` beside it,
and write one after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fused_ray.config.paths import remote
from fused_ray.errors import ConfigError, FusedRayError, NotWrittenError, RunDirectoryError
from fused_ray.storage.bucket import Bucket, Content

MANIFEST = "manifest.json"
FORMAT = "fused_ray folder on S3 1"
LEASE = "FUSED_RAY_LEASE_SECONDS"
"""The variable that says after how many silent seconds a writer counts as dead."""
_HERE, _TRIES = ".fused_ray-s3", 5
_mounted: dict[str, str] = {}
"""This process's folders, and what they stand for."""


def in_words(text: str) -> str:
    """A text as people should read it: with the URI in the place of the folder that stands for it here."""
    for folder, uri in _mounted.items():
        text = text.replace(folder, uri)
    return text


class Mirror:
    """One folder on S3 and its folder here."""

    def __init__(self, root: Path) -> None:
        self._root, self._state = root, root / _HERE / "state.json"
        self.uri: str = self._read()["uri"]
        self.folder = root / self.uri.rpartition("/")[2]
        self._bucket = Bucket(self.uri)
        self._later: list[str] = []
        self._beats: threading.Event | None = None

    @classmethod
    def of(cls, path: Path) -> Mirror | None:
        """The mirror that a folder here is, or lies in; None of an ordinary folder."""
        return next((cls(place) for place in path.parents if (place / _HERE / "state.json").is_file()), None)

    @classmethod
    def mount(cls, where: str | Path) -> Mirror:
        """This process's folder for a URI, at first an empty one; it is gone when the process ends."""
        uri = remote(where)
        assert uri is not None, where
        if known := next((Path(folder) for folder, its in _mounted.items() if its == uri), None):
            return cls(known.parent)
        Bucket(uri)  # says what is wrong with it
        if not {_HERE, ".", ".."}.isdisjoint(uri.split("/")):  # its last part names the folder here
            raise RunDirectoryError(f"{uri}: no part of a folder on S3 can be {_HERE}, . or ..")
        state = {"uri": uri, "etag": None, "manifest": _empty(), "token": None}
        try:
            root = Path(tempfile.mkdtemp(prefix="fused_ray-"))
            (root / _HERE).mkdir()
            (root / _HERE / "state.json").write_text(json.dumps(state))
        except OSError as error:
            raise NotWrittenError(f"{uri}: no folder for it can be made in TMPDIR: {error.strerror}") from None
        mirror = cls(root)
        weakref.finalize(_KEEPER, shutil.rmtree, root, ignore_errors=True)
        _mounted[str(mirror.folder)] = uri
        return mirror

    @property
    def files(self) -> list[str]:
        """The names of its files, as far as is known here."""
        return sorted(name for name in self._read()["manifest"]["files"] if not name.endswith("/"))

    # -- reading

    def writer(self) -> str | None:
        """Who writes there now; None: nobody, or one that has been silent for so long that it counts as dead."""
        manifest, content = self._manifest()
        lease = manifest["lease"]
        alive = lease is not None and content is not None and content.age < lease["seconds"]
        return str(lease["owner"]) if alive else None

    def fetch(self, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Make the folder here what it is there now, in the files that are wanted."""
        last = None
        with self._alone():
            for _ in range(_TRIES):
                if (state := self._read())["token"] is not None:
                    return  # nobody else writes there
                manifest, content = self._manifest()
                manifest["files"] = {name: key for name, key in manifest["files"].items() if wanted(name)}
                if self._download(manifest):
                    self._write({**state, "manifest": manifest, "etag": content.etag if content else None})
                    return
                if manifest["version"] == last:
                    raise self._incomplete()
                last = manifest["version"]
        raise NotWrittenError(f"{self.uri} is changing all the time; try again")

    def _manifest(self) -> tuple[dict[str, Any], Content | None]:
        content = self._bucket.read(MANIFEST)
        if content is None:
            return _empty(), None
        try:
            manifest = json.loads(content.body)
            intact = manifest["format"] == FORMAT and manifest.keys() == _empty().keys()
            inside = intact and all(map(_is_inside, (*manifest["files"], *(manifest["before"] or {}))))
        except (ValueError, TypeError, KeyError, AttributeError):
            inside = False
        if not inside:
            raise RunDirectoryError(f"{self.uri}/{MANIFEST} is not what this version of the program writes")
        return manifest, content

    def _download(self, manifest: Mapping[str, Any]) -> bool:
        """Get what is other here; False where an object has been replaced meanwhile."""
        here: Mapping[str, str] = self._read()["manifest"]["files"]
        wanted: Mapping[str, str] = manifest["files"]
        for name in here.keys() - wanted.keys():
            if not name.endswith("/"):
                (self.folder / name).unlink(missing_ok=True)
        for name in wanted:
            (self.folder / name if name.endswith("/") else (self.folder / name).parent).mkdir(
                parents=True, exist_ok=True
            )
        other = {key: self.folder / name for name, key in wanted.items() if key and here.get(name) != key}
        return self._bucket.get(other)

    def _incomplete(self) -> RunDirectoryError:
        return RunDirectoryError(f"{self.uri} lacks objects that its {MANIFEST} names; they were removed")

    # -- one writer

    def take(self, fresh: bool = False) -> None:
        """Become the writer, unless this object is it, and bring the folder here up to date.

        The lease is renewed until `release`. `fresh`: with an empty folder; what is there now waits until then. A
        writer that has been silent for long is shut out. Raises RunDirectoryError where one lives.
        """
        if self._beats is not None:
            return
        with self._alone():
            state = self._read()
            manifest, content = self._free()
            if content is None and (strange := self._own()):
                raise RunDirectoryError(
                    f"{self.uri} has objects that are of no run ({strange[0]}); choose a folder that is not there yet"
                )
            if not fresh and manifest["id"] != state["manifest"]["id"]:
                raise RunDirectoryError(f"{self.uri} was taken over by another run; start again")
            token = uuid.uuid4().hex
            taken = {**manifest, "generation": manifest["generation"] + 1, "lease": _lease(token)}
            if fresh:
                begun = any("rounds.parquet/" in name or name == "result.json" for name in _named(manifest["files"]))
                taken |= {"id": uuid.uuid4().hex, "files": {}}
                taken["before"] = manifest["files"] if begun else manifest["before"]
            elif not self._download(manifest):
                raise self._incomplete()
            self._swap({**state, "token": token, "etag": content.etag if content else None}, taken)
            self._remove_orphans(taken)
        self._beats = threading.Event()
        threading.Thread(target=self._beat, args=(self._beats, token), daemon=True).start()

    def release(self, settled: bool = False) -> None:
        """Let the next writer in at once. `settled`: what waits is let go of, for its successor is worth something."""
        if self._beats is None:
            return
        self._beats.set()
        self._beats = None
        with contextlib.suppress(FusedRayError), self._alone():
            state = self._owned()
            was = state["manifest"]
            now = {**was, "lease": None, "before": None if settled else was["before"]}
            state = self._swap(state, now)
            self._write({**state, "token": None})
            self._drop(was, now)

    def _free(self) -> tuple[dict[str, Any], Content | None]:
        """The manifest once no writer lives; a lease counts from the last time that it was written."""
        first, _ = manifest, content = self._manifest()
        while (lease := manifest["lease"]) is not None and content is not None and content.age < lease["seconds"]:
            if first["lease"] is not None and manifest["version"] != first["version"]:
                raise RunDirectoryError(
                    f"{self.uri} is being written by another run ({lease['owner']}); wait for it or end it"
                )
            time.sleep(min(1.0, lease["seconds"] - content.age + 0.1))
            manifest, content = self._manifest()
        return manifest, content

    def _beat(self, ended: threading.Event, token: str) -> None:
        """Renew the lease, whatever else renews it; a failure shows at the next file."""
        while not ended.wait(_seconds() / 3):
            with contextlib.suppress(FusedRayError, OSError, ValueError), self._alone():
                state = self._read()
                if ended.is_set() or state["token"] != token:
                    return
                self._swap(state, state["manifest"])

    # -- writing

    def add(self, names: Iterable[str], removed: Iterable[str] = (), later: bool = False) -> None:
        """Upload files of the folder here, and name them there. Folders end with a slash.

        `later`: with the next ones. Raises RunDirectoryError if another writer has taken over. The lease is renewed
        while it uploads, however long that takes.
        """
        self._later += names
        if later:
            return
        manifest = self._owned()["manifest"]
        new = {name: self._fresh_key(name, manifest) for name in dict.fromkeys(self._later)}
        self._bucket.put({key: self.folder / name for name, key in new.items() if key})
        with self._alone():
            state = self._owned()
            manifest = state["manifest"]
            files = {**manifest["files"], **new}
            for name in removed:
                files.pop(name, None)
            self._swap(state, {**manifest, "files": files})
            self._later.clear()
            self._drop(manifest, {**manifest, "files": files})

    def give_back(self) -> None:
        """Put back what waits, or leave nothing."""
        with self._alone():
            state = self._owned()
            was = state["manifest"]
            now = {**was, "files": was["before"] or {}, "before": None}
            self._swap(state, now)
            self._drop(was, now)

    def _owned(self) -> dict[str, Any]:
        state = self._read()
        if state["token"] is None:
            raise RunDirectoryError(f"{self.uri} was taken over by another run; this one stops writing")
        return state

    def _swap(self, state: dict[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the manifest if it is still the one that is known here. Raises RunDirectoryError, for good, if not.

        An answer may have been lost: then the refusal is of a repetition, and what is there is what was written. Or it
        was the answer to an earlier one, which was given up: then what is there has this writer's token still.
        """
        manifest = {**manifest, "version": uuid.uuid4().hex}
        body = json.dumps(manifest).encode()
        etag = self._bucket.swap(MANIFEST, body, state["etag"])
        if etag is None and (there := self._bucket.read(MANIFEST)) is not None:
            if there.body == body:
                etag = there.etag
            elif state["token"] is not None and _token(there.body) == state["token"]:
                etag = self._bucket.swap(MANIFEST, body, there.etag)
        if etag is None:
            self._write({**state, "token": None})
            raise RunDirectoryError(f"{self.uri} was taken over by another run; this one stops writing")
        state = {**state, "manifest": manifest, "etag": etag}
        self._write(state)
        return state

    def _drop(self, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Remove objects that the last manifest named and this one does not; what fails is removed by the next one."""
        with contextlib.suppress(NotWrittenError):
            self._bucket.remove(sorted(_keys(was) - _keys(now)))

    def _remove_orphans(self, manifest: Mapping[str, Any]) -> None:
        """Remove what writers before this one uploaded and never named; not what one after it may have."""
        named, known = manifest["generation"], _keys(manifest)
        with contextlib.suppress(NotWrittenError):
            self._bucket.remove([name for name in self._own() if name not in known and _generation(name) < named])

    def _own(self) -> list[str]:
        """All objects but those of folders inside this one that have manifests of their own."""
        names = self._bucket.names()
        others = tuple(name.removesuffix(MANIFEST) for name in names if name.endswith(f"/{MANIFEST}"))
        return [name for name in names if not name.startswith(others)]

    def _fresh_key(self, name: str, manifest: Mapping[str, Any]) -> str:
        return "" if name.endswith("/") else f"{name}~{manifest['generation']}-{uuid.uuid4().hex[:12]}"

    # -- what the processes of this machine share

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self._root / _HERE / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
        except OSError as error:
            raise NotWrittenError(f"{self._state} cannot be read: {error.strerror}") from None
        return state

    def _write(self, state: Mapping[str, Any]) -> None:
        temporary = self._state.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(state))
            os.replace(temporary, self._state)
        except OSError as error:
            raise NotWrittenError(f"{self._state} cannot be written: {error.strerror}") from None


class _Keeper:
    """What lives as long as this process."""


_KEEPER = _Keeper()


def _empty() -> dict[str, Any]:
    return {"format": FORMAT, "id": "", "generation": 0, "version": "", "lease": None, "files": {}, "before": None}


def _seconds() -> float:
    given = os.environ.get(LEASE, "30")
    if not re.fullmatch(r"\d+(\.\d+)?", given) or not float(given):
        raise ConfigError(f"{LEASE}: a number of seconds above 0 is wanted, not {given!r}")
    return float(given)


def _lease(token: str) -> dict[str, Any]:
    return {"owner": f"{os.uname().nodename}, process {os.getpid()}", "token": token, "seconds": _seconds()}


def _named(files: Mapping[str, str]) -> list[str]:
    return [name for name in files if not name.endswith("/")]


def _keys(manifest: Mapping[str, Any]) -> set[str]:
    return {key for key in (*manifest["files"].values(), *(manifest["before"] or {}).values()) if key}


def _is_inside(name: str) -> bool:
    """Whether a file's name stays in its folder."""
    return not name.startswith("/") and ".." not in name.split("/")


def _token(body: bytes) -> str | None:
    """Whose lease a manifest holds."""
    try:
        token: str = json.loads(body)["lease"]["token"]
    except (ValueError, TypeError, KeyError):
        return None
    return token


def _generation(key: str) -> int:
    found = re.search(r"~(\d+)-[0-9a-f]{12}$", key)
    return int(found[1]) if found else 1 << 62

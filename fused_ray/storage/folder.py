"""A folder of results: created whole, written by one process at a time, every file replaced atomically."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.config.kinds import COMMANDS, COMPARISON, RUN, SWEEP
from fused_ray.config.paths import expanded, remote
from fused_ray.errors import FusedRayError, Interrupted, NotWrittenError, RunDirectoryError, out_of_memory
from fused_ray.storage import place
from fused_ray.storage.environment import environment
from fused_ray.storage.lock import COMMAND, WRITER, Lock, holder
from fused_ray.storage.mirror import Mirror, in_words

Kind = TypeVar("Kind", bound="Folder")

LOCK_WAIT = 60.0
"""Seconds to wait for the writer of a killed run to be gone."""
OVERWRITE_WAIT = 10.0
"""The same before the folder is replaced."""
_JUDGED = {COMPARISON: ("bases", "cells"), SWEEP: ("trials", "audited")}
"""Where studies keep the runs that they judge."""


class Folder:
    """Results of one kind. Reading needs no lock; writing does."""

    KIND: ClassVar[str]
    """What a reader calls it."""
    FORMAT: ClassVar[str]
    """What environment.json says of it."""
    OLDER: ClassVar[tuple[str, ...]] = ()
    """What it says in folders of earlier versions that can still be read."""
    CONFIG: ClassVar[str]
    """The file that holds its configuration."""
    RESUME: ClassVar[str]
    """The command that goes on with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark: place.Mark | None = None
        self.older = False
        """Whether an earlier version made it."""
        self._made = self._withdrawn = False
        self._writer, self._command = Lock(WRITER), Lock(COMMAND)
        self._mirror = Mirror.of(path)

    @classmethod
    def make(cls: type[Kind], path: str | Path, config: str, folders: Sequence[str], overwrite: bool) -> Kind:
        """A new folder, complete at once. Raises RunDirectoryError if there is something at `path` already.

        `overwrite` replaces an earlier one of the same kind, but nothing else; `attempt` puts it back if nothing comes
        of the new one. No other command gets at the new one until `attempt` is over.
        """
        if remote(path):
            return cls._make_there(path, config, folders, overwrite)
        target = expanded(path).absolute()
        if target.is_symlink():  # to another disk, say: what it points to is meant
            target = target.resolve()
        place.recover(target)
        try:
            taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from None
        if taken and not overwrite:
            raise RunDirectoryError(
                f"{path} exists already; choose another output.dir, continue it with --resume {path}, or replace "
                f"it with --overwrite{place.told(target)}"
            )
        earlier = cls.open(path) if taken else None
        try:
            if earlier is not None:
                earlier._command.take(earlier.path, OVERWRITE_WAIT)
                earlier.lock(OVERWRITE_WAIT)
            target.parent.mkdir(parents=True, exist_ok=True)
            with place.beside(target) as fresh:
                (fresh / cls.CONFIG).write_text(config, encoding="utf-8")
                (fresh / "environment.json").write_text(json.dumps({"format": cls.FORMAT, **environment()}, indent=2))
                for folder in folders:
                    (fresh / folder).mkdir()
                made = cls(target)
                made.mark, made._made = place.mark(fresh), True
                made._command.take(fresh, 0)
                place.put(fresh, target, keep=earlier is None or earlier._begun or earlier.finished)
                made._upload([cls.CONFIG, "environment.json", *(f"{folder}/" for folder in folders)])
        except OSError as error:
            raise RunDirectoryError(f"cannot create the {cls.KIND} {path}: {error.strerror}") from None
        finally:
            if earlier is not None:
                earlier.unlock()
                earlier._command.release()
        return made

    @classmethod
    def _make_there(cls: type[Kind], path: str | Path, config: str, folders: Sequence[str], overwrite: bool) -> Kind:
        """The same on S3: the lease is what no other command gets past."""
        mirror = Mirror.mount(path)
        mirror.fetch()
        if mirror.files:
            if not overwrite:
                raise RunDirectoryError(
                    f"{mirror.uri} exists already; choose another output.dir, continue it with --resume {mirror.uri}, "
                    "or replace it with --overwrite"
                )
            cls.open(path)
        mirror.take(fresh=True)
        shutil.rmtree(mirror.folder, ignore_errors=True)
        try:
            made = cls.make(mirror.folder, config, folders, overwrite=False)
        except BaseException:
            mirror.give_back()
            mirror.release()
            raise
        made._mirror = mirror
        return made

    @classmethod
    def open(cls: type[Kind], path: str | Path, mark: place.Mark | None = None, older: bool = False) -> Kind:
        """An existing folder; with the mark of one that was open before, for that one alone.

        `older` takes one of an earlier version too, for reading what every version has. Raises RunDirectoryError if it
        is not one of this kind. `lock` looks at the mark. Of a folder on S3, what is there now is fetched first.
        """
        path = fetched(path)
        directory = cls(expanded(path).absolute())
        place.recover(directory.path)
        if not os.path.isdir(directory.path):
            told = place.told(directory.path)
            raise RunDirectoryError(f"{path} is no {cls.KIND}: there is no such folder{told}")
        directory.mark = mark or place.mark(directory.path)
        stated = directory.read_json("environment.json").get("format")
        directory.older = stated in cls.OLDER
        if not (stated == cls.FORMAT or (older and directory.older)) or not (directory.path / cls.CONFIG).is_file():
            raise RunDirectoryError(f"{path} is no {cls.KIND} of this version" + _what_else(cls.FORMAT, stated, path))
        return directory

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`. Raises RunDirectoryError until it is finished."""
        if not self.finished:
            raise RunDirectoryError(f"{self.path} is not finished; {self.how_to_go_on}")
        return self.read_json("result.json")

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be done; result.json is written last."""
        return (self.path / "result.json").exists()

    @property
    def remote(self) -> bool:
        """Whether it is on S3."""
        return self._mirror is not None

    @property
    def worker(self) -> str | None:
        """The process that works on it now, as locks and leases tell; None: there is none, or it is silent."""
        return holder(self.path) if self._mirror is None else self._mirror.writer()

    @property
    def how_to_go_on(self) -> str:
        """How an unfinished one is gone on with, or what it was to replace brought back, if that is still there."""
        if self.older:
            return "an earlier version began it, and that one alone can go on with it; begin it anew with this one"
        return f"continue it with: {self.RESUME} {shlex.quote(str(self.path))}{place.told(self.path)}"

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file. Raises RunDirectoryError if it is missing or holds no mapping."""
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunDirectoryError(f"{self.path} is no {self.KIND}: it has no {name}") from None
        except (OSError, ValueError) as error:
            raise RunDirectoryError(f"{self.path / name} cannot be read: {error}") from None
        if not isinstance(content, dict):
            raise RunDirectoryError(f"{self.path / name} is not what this program writes")
        return content

    # -- working on it

    @contextlib.contextmanager
    def attempt(self, command: str = "", wait: float = LOCK_WAIT, settles: bool = True) -> Iterator[None]:
        """What is done for this folder inside either ends, or says how to go on: by `command`, else by RESUME.

        A folder that was made for it is removed where nothing of worth came into it, and what stood there before is put
        back, so that a start which failed is not in the way of the next one. KeyboardInterrupt becomes Interrupted.
        Unless `settles` is false, what waits beside a folder that is worth something is let go of.
        No other command gets at the folder meanwhile; raises RunDirectoryError where one is at work there for `wait`
        seconds more.
        """
        again = command or f"{self.RESUME} {shlex.quote(str(self.path))}"
        if not self._command.held:
            self._command.take(self.path, wait)
        try:
            if self._mirror is not None:
                self._mirror.take()
            yield
        except KeyboardInterrupt:
            raise _told(Interrupted("stopped"), again) from None
        except Exception as raised:
            error = out_of_memory(raised) or raised
            removed = not isinstance(error, Interrupted) and self._withdraw()
            if isinstance(error, FusedRayError) and error.can_go_on and not removed:
                error = _told(error, again)
            if error is raised:
                raise
            raise error from raised
        finally:
            settles = settles and (self._begun or self.finished)
            if settles:
                place.settle(self.path)
            self._command.release()
            if self._mirror is not None:
                self._mirror.release(settles)

    def _withdraw(self) -> bool:
        """Remove the folder if it is the one that was made here, nobody writes there, and nothing is in it; whether."""
        if not self._made or self._withdrawn or not self._is_there:
            return self._withdrawn
        try:
            self.lock(wait=0)
        except RunDirectoryError:
            return False
        try:
            if not self._begun and not self.finished:
                place.give_back(self.path)
                self._withdrawn = True
                if self._mirror is not None:
                    self._mirror.give_back()
        except (OSError, RunDirectoryError):
            pass  # it stays
        finally:
            self.unlock()
        return self._withdrawn

    @property
    def _begun(self) -> bool:
        """Whether a round is finished, of this run or of one inside this folder."""
        return any(self.path.glob("**/rounds.parquet/[!.]*"))

    @property
    def _is_there(self) -> bool:
        """Whether this folder is still the one at its place."""
        return self.mark == place.mark(self.path)

    def lock(self, wait: float, waiting: Callable[[str], None] = lambda owner: None) -> None:
        """Become the only writer; wait that many seconds for an earlier one, which may be dying, to let go.

        `waiting` is as of `Lock.take`. Raises RunDirectoryError if the earlier one does not let go, or if another
        folder is at the place now.
        """
        self._writer.take(self.path, wait, waiting)
        if not self._is_there:
            self.unlock()
            raise RunDirectoryError(f"{self.path} was taken over by another run; start again")

    @property
    def writing(self) -> bool:
        """Whether this object is the only writer."""
        return self._writer.held

    def unlock(self) -> None:
        """Let the next writer in."""
        self._writer.release()

    def write(self, name: str, content: bytes, time: int | None = None, later: bool = False) -> None:
        """Replace a file atomically, and durably against a crash of the machine. Only for the holder of the lock.

        `time`, in nanoseconds since 1970, is when it says that it was written, instead of now. `later`: on S3 it need
        not be there before the next file is, which it is useless without.
        """
        self.fence()
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                if time is not None:
                    os.utime(file.fileno(), ns=(time, time))
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise NotWrittenError(f"{target} cannot be written: {error.strerror}") from None
        self._upload([name], later=later)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files. Only for the holder of the lock."""
        self.fence()
        gone: list[str] = []
        try:
            for name in names:
                (self.path / name).unlink(missing_ok=True)
                gone.append(name)
        except OSError as error:
            raise NotWrittenError(f"{self.path / name} cannot be removed: {error.strerror}") from None
        finally:
            if gone:
                self._upload([], gone)

    def _upload(self, names: Sequence[str], removed: Sequence[str] = (), later: bool = False) -> None:
        if self._mirror is not None:
            inside = self.path.relative_to(self._mirror.folder).as_posix()
            below = "" if inside == "." else f"{inside}/"
            self._mirror.add([below + name for name in names], [below + name for name in removed], later)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file atomically."""
        self.write(name, json.dumps(content, indent=2).encode())

    def write_table(self, name: str, rows: pa.Table, later: bool = False) -> None:
        """Replace a Parquet file atomically."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        self.write(f"{name}.parquet", sink.getvalue().to_pybytes(), later=later)

    def fence(self) -> None:
        """A writer that is not the lock's holder any more (its folder was replaced, say) must not write."""
        assert self._writer.held, f"the {self.KIND} is not locked"
        if not self._writer.holds(self.path):
            raise RunDirectoryError(f"{self.path} was taken over by another run; this one stops writing")


def _told(error: FusedRayError, again: str) -> FusedRayError:
    """The same error with the command that goes on, which nobody has to add any more."""
    told = type(error)(in_words(f"{error}; continue with: {again}"))
    told.can_go_on = False
    return told


def fetched(path: str | Path, wanted: Callable[[str], bool] = lambda name: True) -> str | Path:
    """A folder on S3 as the folder of this machine that it is worked on in, as it is now; any other as it is.

    Only files that are `wanted` are fetched.
    """
    if not remote(path):
        return path
    mirror = Mirror.mount(path)
    mirror.fetch(wanted)
    if not mirror.files:
        raise RunDirectoryError(f"{mirror.uri}: there is no such folder")
    folder: Path = mirror.folder
    return folder


def kind_of_folder(path: str | Path) -> str:
    """What kind of results a folder holds; a run's where that cannot be told, so that opening it says what is wrong."""
    path = fetched(path)
    place.recover(expanded(path).absolute())
    try:
        about = json.loads((expanded(path) / "environment.json").read_text(encoding="utf-8"))
        return kind_of_format(about["format"]) or RUN
    except (OSError, ValueError, TypeError, KeyError):
        return RUN


def study_of(run: Path) -> tuple[str, Path] | None:
    """The comparison or sweep that made a run and judges it itself: its kind and its folder; None if there is none."""
    shelf = run.resolve().parent
    kind = kind_of_folder(shelf.parent)
    return (kind, shelf.parent) if shelf.name in _JUDGED.get(kind, ()) else None


def kind_of_format(format: object) -> str | None:
    """What kind of folder says that of itself, "fused_ray run 2", whatever the version."""
    _, kind, *_ = [*str(format).split(), "", ""]
    return kind if kind in COMMANDS else None


def _what_else(wanted: str, stated: object, path: str | Path) -> str:
    kind = kind_of_format(stated)
    if kind in (None, kind_of_format(wanted)):
        return f": {wanted!r} is not in environment.json, or its configuration is gone"
    return f", but of a {kind}: fused-ray show {path}, or to go on with it, {COMMANDS[kind]} --resume {path}"

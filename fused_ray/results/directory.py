"""A run directory: created whole, written by one process at a time, every file replaced atomically.

config.yaml          the full configuration
environment.json     versions, machine, code revision
scenario.json        the partition's hash, examples per client
rounds.parquet/      one part per finished round (schemas.ROUNDS); read the folder as one table
clients.parquet/     the same per client (schemas.CLIENTS)
checkpoints/         per phase, what its next round needs
base.safetensors, adapter.safetensors, retrained.safetensors
plots/, result.json, lock
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.config import RunConfig, read_yaml
from fused_ray.errors import ConfigError, RunDirectoryError
from fused_ray.results.environment import environment

_FORMAT = "fused_ray run 1"


class RunDirectory:
    """A run's folder. Reading needs no lock; writing does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._token = ""

    @classmethod
    def create(cls, path: str | Path, config: RunConfig, overwrite: bool = False) -> RunDirectory:
        """A new run directory, complete at once. Raises RunDirectoryError if there is something at `path` already.

        `overwrite` replaces an earlier run there, but nothing that is not a run.
        """
        target = Path(path).absolute()
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            if not overwrite:
                raise RunDirectoryError(
                    f"{path} exists already; choose another output.dir, continue it with --resume {path}, or replace "
                    "it with --overwrite"
                )
            earlier = cls.open(path)
            earlier.lock(wait=10.0)
            shutil.rmtree(target)
            earlier.unlock()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            fresh.chmod(0o755)
            (fresh / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            (fresh / "environment.json").write_text(json.dumps({"format": _FORMAT, **environment()}, indent=2))
            for folder in ("rounds.parquet", "clients.parquet", "checkpoints"):
                (fresh / folder).mkdir()
            fresh.rename(target)
        except OSError as error:
            raise RunDirectoryError(f"cannot create the run directory {path}: {error.strerror}") from None
        return cls(target)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """An existing run directory. Raises RunDirectoryError if it is none."""
        directory = cls(Path(path).absolute())
        if not directory.path.is_dir():
            raise RunDirectoryError(f"{path} is no run directory: there is no such folder")
        found = directory._read_json("environment.json")
        if found.get("format") != _FORMAT or not (directory.path / "config.yaml").is_file():
            raise RunDirectoryError(
                f"{path} is no run directory of this version: {_FORMAT!r} is not in environment.json"
            )
        return directory

    @property
    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        try:
            return RunConfig.from_dict(read_yaml(self.path / "config.yaml"), source=str(self.path / "config.yaml"))
        except ConfigError as error:
            raise RunDirectoryError(f"{self.path} cannot be read: {error}") from None

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`. Raises RunDirectoryError while the run is not finished."""
        if not (self.path / "result.json").exists():
            raise RunDirectoryError(
                f"{self.path} is not finished; continue it with: fused-ray run --resume {self.path}"
            )
        return self._read_json("result.json")

    def table(self, name: str) -> pa.Table:
        """ "rounds" or "clients", as far as the run has come, in the order of phases and rounds."""
        try:
            parts = sorted((self.path / f"{name}.parquet").glob("[!._]*.parquet"))
            return pa.concat_tables([pq.read_table(part) for part in parts]) if parts else pa.table({})
        except (OSError, pa.ArrowException) as error:
            raise RunDirectoryError(f"{self.path / name}.parquet cannot be read: {error}") from None

    # -- writing

    def lock(self, wait: float) -> None:
        """Become the only writer; wait that many seconds for an earlier one, which may be dying, to let go.

        Raises RunDirectoryError if it does not.
        """
        deadline = time.monotonic() + wait
        try:
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunDirectoryError(f"{self.path} cannot be written: {error.strerror}") from None
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    owner = os.pread(handle, 200, 0).decode(errors="replace")
                    os.close(handle)
                    raise RunDirectoryError(
                        f"{self.path} is being written by another run (process {owner.split(' ')[0] or 'unknown'}); "
                        "wait for it or end it"
                    ) from None
                time.sleep(0.1)
        self._lock, self._token = handle, f"{os.getpid()} {uuid.uuid4().hex}"
        os.ftruncate(handle, 0)
        os.pwrite(handle, self._token.encode(), 0)

    def unlock(self) -> None:
        """Let the next writer in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, name: str, content: bytes) -> None:
        """Replace a file atomically, and durably against a crash of the machine. Only for the holder of the lock."""
        self._fence()
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise RunDirectoryError(f"{target} cannot be written: {error.strerror}; make room and --resume") from None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file atomically."""
        self.write(name, json.dumps(content, indent=2).encode())

    def write_part(self, table: str, part: str, rows: pa.Table) -> None:
        """Replace one part of "rounds" or "clients"."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        self.write(f"{table}.parquet/{part}.parquet", sink.getvalue().to_pybytes())

    def drop_parts(self, beyond: Mapping[str, int]) -> None:
        """Remove the parts of rounds that were recorded but not saved: rounds above `beyond[part prefix]`."""
        self._fence()
        for table in ("rounds", "clients"):
            for part in (self.path / f"{table}.parquet").glob("[!._]*.parquet"):
                prefix, _, number = part.stem.rpartition("-")
                if int(number) > beyond.get(prefix, 0):
                    part.unlink()

    def _fence(self) -> None:
        """A writer that is not the lock's holder any more (its folder was replaced, say) must not write."""
        assert self._lock is not None, "the run directory is not locked"
        try:
            same = os.stat(self.path / "lock").st_ino == os.fstat(self._lock).st_ino
            if same and os.pread(self._lock, 200, 0).decode() == self._token:
                return
        except OSError:
            pass
        raise RunDirectoryError(f"{self.path} was taken over by another run; this one stops writing")

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunDirectoryError(f"{self.path} is no run directory: it has no {name}") from None
        except (OSError, ValueError) as error:
            raise RunDirectoryError(f"{self.path / name} cannot be read: {error}") from None
        if not isinstance(content, dict):
            raise RunDirectoryError(f"{self.path / name} is not what this program writes")
        return content

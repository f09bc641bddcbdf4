"""A run directory: the folder of one run.

config.yaml          the full configuration
environment.json     versions, machine, code revision; every driver and node that it ran on
starts.json          when it was started, and gone on with; why the last start failed, if it did
scenario.json        the hashes of data and partition, examples per client
held.parquet         who holds how much of which class (schemas.HELD), and how much of it must be forgotten
rounds.parquet/      one part per finished round (schemas.ROUNDS); read the folder as one table
clients.parquet/     the same per client (schemas.CLIENTS)
checkpoints/         per phase, what its next round needs
base.safetensors, adapter.safetensors, retrained.safetensors
plots/, report.html, tensorboard/, result.json, lock, command.lock
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.config import RunConfig, takeover
from fused_ray.config.fields import Constants
from fused_ray.config.validation import validated
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError, RunDirectoryError
from fused_ray.storage.environment import environment, machine
from fused_ray.storage.folder import Folder

if TYPE_CHECKING:
    from torch import nn

    from fused_ray.runs.handles import AdapterHandle, Which
    from fused_ray.types import Identity


class RunDirectory(Folder):
    """A run's folder."""

    KIND = "run directory"
    FORMAT = "fused_ray run 2"
    OLDER = ("fused_ray run 1",)
    CONFIG = takeover.CONFIG
    RESUME = "fused-ray run --resume"

    @classmethod
    def create(cls, path: str | Path, config: RunConfig, overwrite: bool = False) -> RunDirectory:
        """A new run directory. Raises RunDirectoryError if there is something at `path` that is not to be replaced."""
        return cls.make(path, config.to_yaml(), ("rounds.parquet", "clients.parquet", "checkpoints"), overwrite)

    @property
    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        try:
            return validated(RunConfig, read_yaml(self.path / self.CONFIG), source=str(self.path / self.CONFIG))
        except ConfigError as error:
            raise RunDirectoryError(f"{self.path} cannot be read: {error}") from None

    @property
    def constants(self) -> Constants:
        """What images are normalised by, of a finished run. Raises RunDirectoryError until it is finished."""
        about = self.result["data"]
        return tuple(about["mean"]), tuple(about["std"])

    def table(self, name: str) -> pa.Table:
        """ "rounds" or "clients", as far as the run has come, in the order of phases and rounds."""
        try:
            parts = sorted((self.path / f"{name}.parquet").glob("[!._]*.parquet"))
            # parts of an earlier version may lack a column: it is null there
            tables = [pq.read_table(part) for part in parts]
            return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
        except (OSError, pa.ArrowException) as error:
            raise RunDirectoryError(f"{self.path / name}.parquet cannot be read: {error}") from None

    @property
    def rounds(self) -> pa.Table:
        """A row per finished round (docs/schemas.md); `.to_pandas()` makes a data frame of it."""
        return self.table("rounds")

    @property
    def clients(self) -> pa.Table:
        """A row per finished round and client."""
        return self.table("clients")

    @property
    def verdict(self) -> str | None:
        """The verdict on the model that forgot, in one word; None if it was not judged."""
        word: str | None = self.result["verdict"]
        return word

    def model(self, which: Which) -> nn.Module:
        """The model "before" unlearning (M_r), "after" it (M_f), or "retrained", in evaluation mode on the CPU.

        Inputs are float32 [batch, channels, height, width], pixels / 255 less `constants[0]` and over `constants[1]`.
        """
        from fused_ray.runs.handles import built

        return built(self.path, self.config, self.result["data"], which)

    @property
    def adapter(self) -> AdapterHandle | None:
        """The adapter: `.apply(model)`, `.remove(model)`, `.values`; None where the whole model was changed."""
        from fused_ray.runs.handles import read_adapter_handle

        self.result  # noqa: B018 - only a finished run's is what it will be
        return read_adapter_handle(self.path)

    def started(self, when: str) -> list[str]:
        """Add a start to starts.json; the times of all starts so far, the first one first, UTC."""
        known = self.read_json("starts.json")["starts"] if (self.path / "starts.json").exists() else []
        starts = [*known, when]
        self.write_json("starts.json", {"starts": starts})
        return starts

    def failed(self, reason: str) -> None:
        """Keep why the last start failed, in one line, until the next one."""
        self.write_json("starts.json", {**self.read_json("starts.json"), "error": reason})

    @property
    def times(self) -> tuple[datetime | None, datetime | None]:
        """When it was first started and when it was finished, UTC; null where that is not so yet, or not known."""
        starts = self.read_json("starts.json")["starts"] if (self.path / "starts.json").exists() else []
        ended = self.result.get("ended") if self.finished else None
        first = datetime.fromisoformat(starts[0]) if starts else None
        return first, datetime.fromisoformat(ended) if ended else None

    def ran_on(self, identities: Sequence[Identity], when: str) -> None:
        """Add to environment.json this driver and the nodes that these workers are on, each where it is not there yet.

        A node whose machine or packages are others than before is there once more.
        """
        about = self.read_json("environment.json")
        before = json.dumps(about)
        nodes = {i.node: {"node": i.node, **(i.machine or machine())} for i in identities}
        for name, here in (("drivers", [environment()]), ("nodes", list(nodes.values()))):
            known = about.setdefault(name, [])
            told = [{key: value for key, value in entry.items() if key != "since"} for entry in known]
            known += [{"since": when, **entry} for entry in here if entry not in told]
        if json.dumps(about) != before:
            written = (self.path / "environment.json").stat().st_mtime_ns  # part of the folder's mark
            self.write("environment.json", json.dumps(about, indent=2).encode(), written)

    def clients_of(self, phase: str, round: int) -> list[dict[str, Any]]:
        """The rows of clients.parquet of one round; none where none were kept. Raises RunDirectoryError."""
        found = list(self.path.glob(f"clients.parquet/[!._]*-{glob.escape(phase)}-{round:06d}.parquet"))
        try:
            return [row for part in found for row in pq.read_table(part).to_pylist() if row["phase"] == phase]
        except (OSError, pa.ArrowException) as error:
            raise RunDirectoryError(f"{found[0]} cannot be read: {error}") from None

    @property
    def held(self) -> list[dict[str, Any]] | None:
        """The rows of held.parquet; None of a run of an earlier version, which did not write it."""
        path = self.path / "held.parquet"
        try:
            return pq.read_table(path).to_pylist() if path.exists() else None
        except (OSError, pa.ArrowException) as error:
            raise RunDirectoryError(f"{path} cannot be read: {error}") from None

    def write_part(self, table: str, part: str, rows: pa.Table) -> None:
        """Replace one part of "rounds" or "clients"."""
        self.write_table(f"{table}.parquet/{part}", rows, later=True)

    def parts(self, table: str) -> Iterator[tuple[str, pa.Table]]:
        """The parts of "rounds" or "clients", each with its name. Raises RunDirectoryError."""
        for part in sorted((self.path / f"{table}.parquet").glob("[!._]*.parquet")):
            try:
                yield part.stem, pq.read_table(part)
            except (OSError, pa.ArrowException) as error:
                raise RunDirectoryError(f"{part} cannot be read: {error}") from None

    def drop_parts(self, beyond: Mapping[str, int]) -> None:
        """Remove the parts of rounds that were recorded but not saved: rounds above `beyond[part prefix]`."""
        parts = [part for table in ("rounds", "clients") for part in self.path.glob(f"{table}.parquet/[!._]*.parquet")]
        cut = [(part, *part.stem.rpartition("-")[::2]) for part in parts]
        unsaved = [part for part, prefix, number in cut if int(number) > beyond.get(prefix, 0)]
        self.remove([part.relative_to(self.path).as_posix() for part in unsaved])

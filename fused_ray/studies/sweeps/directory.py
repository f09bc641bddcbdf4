"""A sweep's directory: ordinary run directories, and what was made of them.

sweep.yaml           the full configuration
environment.json     versions, machine, code revision
store/               pre-trained and retrained models, a run each, unless output.store names another folder
trials/              a run per trial
audited/             trials once more, to an earlier round, where that round's model is audited
shadows/             models that audits needed, if base.audit wants any
trials.parquet       a row per trial and round (rows.SCHEMA), as far as the sweep has come
tune/                Ray Tune's own files, TensorBoard events among them; never read back
front.parquet, table.md, plots/, result.json, lock, command.lock
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fused_ray.audit.rules import outdated
from fused_ray.config.yaml_text import dump, read_yaml
from fused_ray.studies.directory import StudyDirectory
from fused_ray.studies.sweeps.config import SweepConfig


class SweepDirectory(StudyDirectory[SweepConfig]):
    """A sweep's folder."""

    KIND = "sweep directory"
    FORMAT = "fused_ray sweep 2"
    OLDER = ("fused_ray sweep 1",)
    CONFIG = "sweep.yaml"
    RESUME = "fused-ray sweep --resume"
    TABLE = "trials.parquet"
    SETTINGS = SweepConfig
    RUNS = "trials"

    @classmethod
    def create(cls, path: str | Path, config: SweepConfig, overwrite: bool = False) -> SweepDirectory:
        """A new one. Raises RunDirectoryError if there is something at `path` that is not to be replaced."""
        return cls.make(path, config.to_yaml(), ("trials",), overwrite)

    @property
    def statuses(self) -> Sequence[str]:
        return list({row["trial"]: row["status"] for row in self.rows}.values())

    @property
    def outdated(self) -> bool:
        """Whether verdicts of a sweep that was finished are by other rules than this version's."""
        return self.finished and any(outdated(found) for case in self.result["cases"] for found in case["audited"])

    def extend(self, config: SweepConfig) -> None:
        """Keep that more trials or audits are wanted than were; a finished sweep is then unfinished.

        Only for the holder of the lock.
        """
        values = read_yaml(self.path / self.CONFIG)
        wanted = {"samples": config.samples, "max_trials": config.max_trials, "audits": config.audits}
        if any(values.get(name) != wanted[name] for name in ("samples", "audits")):
            self.remove(["result.json"])
            self.write(self.CONFIG, dump(values | wanted).encode())

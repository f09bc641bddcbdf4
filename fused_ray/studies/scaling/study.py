"""A scaling study as a study: runs one after the other on a warm pool, then points, cost model, paper and pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fused_ray.config import RunConfig
from fused_ray.errors import FusedRayError, Interrupted, PlacementError, RunDirectoryError, in_one_line
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import MakePool
from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.studies.progress import Progress
from fused_ray.studies.scaling import measure, model, plots, rows, tables
from fused_ray.studies.scaling.config import ScaleConfig, Take, of_study
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.status import DONE, FAILED, failed
from fused_ray.studies.study import Item, Model, Study
from fused_ray.studies.tools import Tools

NODE_ID = "ray.io/node-id"
"""The label by which Ray tells its nodes."""


class Takes:
    """What a study's runs are, for whoever carries them out."""

    step_by_step = False

    def carry_out(self, take: Take, tools: Tools) -> str:
        """Run it from its beginning to its end: a round of a run that was cut short has no time of its own."""
        place = Path(take.config.output.dir)
        if place.exists() and not (place / "result.json").exists():
            shutil.rmtree(place)
        try:
            tools.finish(_on_nodes(take.config, take.point.nodes))
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # parts from elsewhere raise anything: the other runs go on
            return f"{FAILED}{of_study(in_one_line(error))}"
        return DONE

    def report(self, item: Take | None, status: str) -> dict[str, Any]:
        """Nothing: all runs are wanted, whatever they come to."""
        return {}


def _on_nodes(config: RunConfig, count: int) -> RunConfig:
    """The same on so many nodes of the cluster, this process's first. Raises PlacementError if there are fewer."""
    if config.engine.backend == "local":
        return config
    from fused_ray.engine.cluster import nodes_from_here

    names = nodes_from_here(config.federation)
    if len(names) < count:
        raise PlacementError(
            f"the cluster has {len(names)} node(s) for actors, not {count}; start more, or leave nodes at 1"
        )
    if len(names) == count:
        return config
    labels = {**config.federation.actor_labels, NODE_ID: f"in({', '.join(names[:count])})"}
    return config.model_copy(update={"federation": config.federation.model_copy(update={"actor_labels": labels})})


class Scaling(Study):
    """What is known of a scaling study while it goes on."""

    directory: ScalingDirectory
    plan: Takes
    left: Sequence[Take]

    def __init__(
        self,
        directory: ScalingDirectory,
        config: ScaleConfig,
        listener: Callable[[Progress], None] = lambda progress: None,
        stopped: Callable[[], bool] = lambda: False,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, config.count, listener, stopped, notes)
        self.config, self.plan = config, Takes()
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for row in directory.rows:
            self._rows.setdefault(_name(row), []).append(row)
        self.look()
        self._over = {take.name for take in config.takes} - {take.name for take in self.left}

    @property
    def models(self) -> list[Model]:
        """None: each run makes its own."""
        return []

    def look(self) -> None:
        """Left are runs without rows, or that failed."""
        self.left = [take for take in self.config.takes if not self._settled(take)]

    def _settled(self, take: Take) -> bool:
        return any(row["status"] == DONE for row in self._rows.get(take.name, ()))

    def rests_on(self, item: Take) -> list[str]:
        return []

    def kind(self, item: Take | None) -> str:
        assert item is not None, "no search proposes runs"
        return item.point.name

    @property
    def kinds(self) -> list[tuple[str, float]]:
        return [(take.point.name, 1.0 + take.point.fullest) for take in self.left]

    @property
    def statuses(self) -> list[str]:
        return [self._rows[take.name][0]["status"] for take in self.config.takes if take.name in self._over]

    def begun(self, item: Item | None, name: str) -> None:
        """A run that has rows has failed: one that finished, but was not what its point says, is no good either."""
        assert isinstance(item, Take), "no search proposes runs"
        if item.name in self._rows:
            shutil.rmtree(item.config.output.dir, ignore_errors=True)
        super().begun(item, name)

    def keep(self, item: Take, status: str) -> None:
        self._rows[item.name], found = [], []
        if status == DONE:
            try:
                found = self._measured(item)
            except FusedRayError as error:
                status = f"{FAILED}{in_one_line(error)}"
        self._rows[item.name] = [item.values | {"status": status} | row for row in found or [{}]]
        self._over.add(item.name)
        everything = [row for take in self.config.takes for row in self._rows.get(take.name, ())]
        self.directory.write_table("measured", rows.table(everything, rows.MEASURED))

    def _measured(self, take: Take) -> list[dict[str, Any]]:
        run, config = RunDirectory.open(take.config.output.dir), self.config
        found = measure.measured(run, take.point, config.phase, config.warmup, config.examples)
        tests = len(self.prepare(take.config)[0].test_labels)
        return [row | {"tests": tests} for row in found]

    def conclude(self, make_pool: MakePool) -> dict[str, Any]:
        """Points, cost model, paper, tables and pictures."""
        measured = [row for take in self.config.takes for row in self._rows[take.name]]
        return conclude(self.directory, self.config, measured, self._seconds())

    def _seconds(self) -> float:
        """Wall seconds of all runs that are finished, the start of their actors included."""
        places = (take.config.output.dir for take in self.config.takes if self._settled(take))
        return float(sum(RunDirectory.open(place).result["wall_seconds"] for place in places))


def conclude(
    directory: ScalingDirectory, config: ScaleConfig, measured: Sequence[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """Write what is made of measured rows, whose runs took so many seconds; the content of result.json.

    Raises RunDirectoryError if no run at all could be made.
    """
    statuses = list({_name(row): row["status"] for row in measured}.values())
    broken = [status for status in statuses if failed(status)]
    if DONE not in statuses:
        raise RunDirectoryError(f"{directory.path}: no run could be made; {broken[0]}")
    points = rows.by_point(measured, config.held_out)
    found = model.predicted(points)
    parameters = list(found.parameters(config.paper)) if found else []
    on_paper = found is not None and not model.paper_lacks(parameters, points)
    paper = list(model.on_paper(found, points, config)) if found and on_paper else []
    for name, content, schema in (
        ("points", points, rows.POINTS),
        ("model", parameters, rows.MODEL),
        ("paper", paper, rows.PAPER),
    ):
        directory.write_table(name, rows.table(content, schema))
    result = {
        "runs": len(statuses),
        "done": statuses.count(DONE),
        "failed": len(broken),
        "seconds": seconds,
        **model.held_out(points),
        "held_out_points": len(config.held_out),
        "held_out_measured": sum(row["held_out"] for row in points),
    }
    directory.write("tables.md", tables.markdown(points, parameters, paper, config).encode())
    plots.draw(directory, points, config.base.output.plots)
    directory.write_json("result.json", result)  # last: it says that the study is complete
    return result


def conclude_again(directory: ScalingDirectory, config: ScaleConfig) -> None:
    """Make a finished study's tables and pictures once more from what was measured, these in another format."""
    directory.lock(LOCK_WAIT)
    try:
        conclude(directory, config, directory.rows, directory.result["seconds"])
    finally:
        directory.unlock()


def _name(row: dict[str, Any]) -> str:
    return f"{rows.point_of(row).name}-r{row['repeat']}"

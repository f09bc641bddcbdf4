"""The simulated seconds of a run by its timetable, in its tables and its result; and of a finished one elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fused_ray.audit.margins import FA_MARGIN
from fused_ray.config import RunConfig, schedule
from fused_ray.config.deployment import DeploymentConfig
from fused_ray.core.deployment import Task, devices, forgotten_after
from fused_ray.core.timetable import Plan, Timetable, clock_of
from fused_ray.data import trace
from fused_ray.errors import ConfigError
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.schemas import SIMULATED


def timetable(config: RunConfig, shape: Sequence[int], classes: int) -> Timetable | None:
    """The clock of a configuration's deployment; None where it has none.

    Raises ConfigError where a cost is not known, DataError where the trace is wrong.
    """
    deployment, clients = config.deployment, config.federation.clients
    if deployment.profile == "none":
        return None
    from fused_ray.models.cost import cost  # imports PyTorch

    cycle, operations = deployment.availability == "cycle", cost(config.model, shape, classes)
    given = trace.devices(deployment.trace, clients, cycle) if deployment.trace else {}
    try:
        each = devices(deployment, config.seed, clients, operations.forward, given)
    except ValueError as error:
        raise ConfigError(f"deployment: {error}") from None
    return Timetable(config, each, operations.share_from)


@dataclass(frozen=True)
class Simulated:
    """A run's rounds with their simulated seconds."""

    rows: Sequence[Mapping[str, Any]]
    """Of rounds.parquet."""
    seconds: Sequence[float | None]
    waited: Sequence[float | None]
    """Those of them until somebody was there, or all that a method asks by name."""

    def total(self, phases: Collection[str]) -> float | None:
        """Seconds of all rounds of some phases; None where one is not known."""
        return self._sum(self.seconds, phases)

    def total_waited(self, phases: Collection[str]) -> float | None:
        """The same of those that were waited."""
        return self._sum(self.waited, phases)

    def _sum(self, seconds: Sequence[float | None], phases: Collection[str]) -> float | None:
        own = [s for row, s in zip(self.rows, seconds, strict=True) if row["phase"] in phases]
        return None if None in own else sum(s for s in own if s is not None)

    def to_forget(self, phases: Collection[str], main: str, fa_retrained: float | None) -> dict[str, Any]:
        """Rounds of the main phase, and seconds of all of these phases up to its end, until it is forgotten.

        Both None where FA does not come within the audit's margin of the retrained model's for three rounds in a row.
        """
        nothing = {"rounds_to_forget": None, "seconds_to_forget": None}
        fa = [row["fa"] for row in self.rows if row["phase"] == main]
        after = None if fa_retrained is None else forgotten_after(fa, fa_retrained + FA_MARGIN)
        if after is None:
            return nothing
        until = [
            seconds
            for row, seconds in zip(self.rows, self.seconds, strict=True)
            if row["phase"] in phases and (row["phase"] != main or row["round"] <= after)
        ]
        passed = None if None in until else sum(s for s in until if s is not None)
        return {"rounds_to_forget": after, "seconds_to_forget": passed}


def method_phases(config: RunConfig) -> tuple[str, ...]:
    """The phases of a run that are its method's own."""
    if config.retrains:
        return ("retrain",)
    return tuple(phase for phase in schedule.phases(config) if phase not in ("pretrain", "retrain"))


def recorded(run: RunDirectory) -> Simulated:
    """A finished run's rounds by the clock of its own deployment."""
    rows = run.table("rounds").to_pylist()
    return Simulated(rows, *([row[column.name] for row in rows] for column in SIMULATED))


def imagined(run: RunDirectory, deployment: DeploymentConfig) -> Simulated:
    """A finished run's rounds on any deployment's devices, whatever its own was, from what its tables recorded.

    None where a client's row is missing: it failed, or `output.clients` kept fewer. Raises ConfigError or DataError
    where a cost is not known, and ConfigError where a deployment decides who counts: it would have trained others.
    """
    config, result = run.config.model_copy(update={"deployment": deployment}), run.result
    if deployment.decides or run.config.deployment.decides:
        raise ConfigError(
            "deployment.participation: available decides who counts, so seconds elsewhere are those of another run; "
            "train it there"
        )
    table = timetable(config, result["data"]["shape"], result["data"]["classes"])
    assert table is not None, "a profile is a deployment"
    there: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in run.table("clients").to_pylist():
        there.setdefault((row["phase"], row["round"]), []).append(row)
    adapted: Collection[str] = result["layers"]["chosen"]
    rows = run.table("rounds").to_pylist()
    seconds: list[float | None] = []
    waited: list[float | None] = []
    now: dict[str, float] = {}
    for row in rows:
        phase, own = row["phase"], there.get((row["phase"], row["round"]), [])
        clock, known = clock_of(phase), len(own) == row["clients_expected"]
        share = table.share_from(adapted if phase == "unlearn" else ())
        tasks = {client["client"]: _task(table, client, share) for client in own}
        took, waiting = table.everybody(phase, tasks, now.get(clock, 0.0)) if known else (None, None)
        seconds.append(took)
        waited.append(waiting)
        now[clock] = now.get(clock, 0.0) + (took or 0.0)
    return Simulated(rows, seconds, waited)


def _task(table: Timetable, row: Mapping[str, Any], share: float) -> Task:
    """What a client did in a round, by its row of clients.parquet."""
    return Task(
        examples=table.shown(row["phase"], row["round"], row["examples"]),
        bytes_down=row["bytes_down"],
        bytes_up=row["bytes_up"],
        learning=share,
    )


def told(found: Simulated, config: RunConfig, sent: Mapping[str, Any], fa_retrained: float | None) -> dict[str, Any]:
    """A method's simulated seconds in all, and until it has forgotten; `sent` is `bytes` of result.json."""
    own = method_phases(config)
    main = schedule.main_phase({phase: sent[phase] for phase in own if phase in sent})
    main = "retrain" if own == ("retrain",) else main
    return {
        "simulated_seconds": found.total(own),
        "waited_seconds": found.total_waited(own),
        **found.to_forget(own, main, fa_retrained),
    }


def timed(directory: RunDirectory, table: Timetable, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write the columns of `SIMULATED` in rounds.parquet; result.json's `deployment`."""
    config, retrained = directory.config, result["metrics"]["retrained"]
    fa = None if retrained is None else retrained["fa"]
    for part, rows in directory.parts("rounds"):
        plans = [_by(table, row) for row in rows.select(["phase", "round", "clients_used"]).to_pylist()]
        rows = rows.select([name for name in rows.column_names if name not in SIMULATED.names])
        for column, values in zip(SIMULATED, zip(*plans, strict=True), strict=True):
            rows = rows.append_column(column, pa.array(values, column.type))
        directory.write_part("rounds", part, rows)
    found = recorded(directory)
    return {
        "profile": config.deployment.profile,
        "participation": config.deployment.participation,
        **told(found, config, result["bytes"], fa),
        "pretrain_seconds": found.total(("pretrain",)),
        "retrain_seconds": found.total(("retrain",)),
        **{f"retrain_{name}": value for name, value in found.to_forget(("retrain",), "retrain", fa).items()},
    }


def abandoned(directory: RunDirectory) -> Iterator[str]:
    """A note for each phase of a run some of whose rounds nobody counted in."""
    rows = directory.table("rounds").select(["phase", "clients_used"]).to_pylist()
    rounds = Counter(row["phase"] for row in rows)
    for phase, lost in Counter(row["phase"] for row in rows if not row["clients_used"]).items():
        yield (
            f"{phase}: {lost} of {rounds[phase]} rounds were abandoned, for too few were in, and left the model as it "
            "was: deployment.deadline_s, over_selection and min_share decide that"
        )


def _by(table: Timetable, row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The seconds of a round; not known where a client failed that the timetable counted on."""
    plan: Plan = table.of(row["phase"])[row["round"] - 1]
    return (plan.seconds, plan.waited) if len(plan.counted) == row["clients_used"] else (None, None)

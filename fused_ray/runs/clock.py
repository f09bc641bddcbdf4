"""The simulated seconds of a run, worked out from what its tables recorded: training knows nothing of the clock.

The clock starts at 0 three times: with pre-training, with the request to forget, and with retraining. Everybody who
was asked counts, so a round lasts as long as its slowest client, and what the server takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fused_ray.audit.verdict import FA_MARGIN
from fused_ray.config import RunConfig, schedule
from fused_ray.config.deployment import DEVICE, USE, DeploymentConfig
from fused_ray.core.deployment import Device, Task, client_seconds, close, drawn, forgotten_after
from fused_ray.data.trace import devices as traced
from fused_ray.errors import ConfigError
from fused_ray.models.cost import cost
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.schemas import SIMULATED

STORED = "replay"
"""The phase that stands for what a deployment would have stored when it trained; it takes no time."""


class Clock:
    """The devices of a configuration's deployment, and how long what they did would take."""

    def __init__(self, config: RunConfig, shape: Sequence[int], classes: int) -> None:
        """Raises ConfigError or DataError where a cost is not known."""
        self._config = config
        self._cost = cost(config.model, shape, classes)
        self._devices = _devices(config, self._cost.forward)

    def seconds(
        self, rounds: Sequence[Mapping[str, Any]], clients: Sequence[Mapping[str, Any]], layers: Collection[str]
    ) -> list[float | None]:
        """Simulated seconds of each row of rounds.parquet, by the rows of clients.parquet.

        `layers` are those that an adapter changes; none where the whole model learns. None where a client's row is
        missing, for it failed.
        """
        there: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for row in clients:
            there.setdefault((row["phase"], row["round"]), []).append(row)
        share = self._cost.share_from(layers)
        now: dict[str, float] = {}
        found: list[float | None] = []
        for row in rounds:
            phase, round = row["phase"], row["round"]
            own = there.get((phase, round), [])
            lacking = len(own) < row["clients_expected"]
            seconds = None if lacking else self._round(phase, round, own, share, now.get(_start(phase), 0.0))
            now[_start(phase)] = now.get(_start(phase), 0.0) + (seconds or 0.0)
            found.append(seconds)
        return found

    def _round(self, phase: str, round: int, rows: Sequence[Mapping[str, Any]], share: float, now: float) -> float:
        if phase == STORED:
            return 0.0
        config, server = self._config, self._config.deployment.known["server_s"]
        learning = share if phase == "unlearn" else 1.0
        assert isinstance(server, float | int)
        ready = {}
        for row in rows:
            task = Task(
                examples=config.method.shown(config, phase, round, row["examples"]),
                bytes_down=row["bytes_down"],
                bytes_up=row["bytes_up"],
                learning=learning,
            )
            device = self._devices[row["client"]]
            ready[row["client"]] = client_seconds(device, task, config.deployment.train_factor, now)
        return close(ready, len(ready)).seconds + server


def _start(phase: str) -> str:
    """With what the clock of a phase started."""
    return phase if phase in ("pretrain", "retrain") else "request"


def _devices(config: RunConfig, forward: int) -> list[Device]:
    """Every client's. Raises ConfigError where a cost is not known, DataError where the trace is wrong."""
    deployment, clients = config.deployment, config.federation.clients
    trace = traced(deployment.trace, clients) if deployment.trace else {}
    own = {"ms_per_sample", "teraflops"} if {"ms_per_sample", "teraflops"} & trace.keys() else set()
    known = {name: value for name, value in deployment.known.items() if name not in own}
    try:
        deployment.check_known({**known, **trace})
    except ValueError as error:
        raise ConfigError(f"deployment: {error}") from None

    def device(client: int) -> Device:
        figures = {name: drawn(value, config.seed, name, client) for name, value in known.items() if name in DEVICE}
        figures |= {name: float(values[client]) for name, values in trace.items()}
        speed = figures.get("ms_per_sample")
        seconds = forward / (figures["teraflops"] * 1e12 * USE) if speed is None else speed / 1000
        links = {name: figures[name] for name in ("down_mbps", "up_mbps", "latency_s")}
        if deployment.on_s is None or deployment.off_s is None:
            return Device(forward_s=seconds, **links)
        on, off = deployment.on_s, deployment.off_s
        at = drawn({"uniform": (0.0, on + off)}, config.seed, "phase_s", client)
        return Device(forward_s=seconds, **links, on_s=on, off_s=off, phase_s=at)

    return [device(client) for client in range(clients)]


@dataclass(frozen=True)
class Simulated:
    """A run's rounds with their simulated seconds."""

    rows: Sequence[Mapping[str, Any]]
    """Of rounds.parquet."""
    seconds: Sequence[float | None]

    def total(self, phases: Collection[str]) -> float | None:
        """Of all rounds of some phases; None where one is not known."""
        own = [s for row, s in zip(self.rows, self.seconds, strict=True) if row["phase"] in phases]
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
    if config.unlearn.method == "retrain":
        return ("retrain",)
    return tuple(phase for phase in schedule.phases(config) if phase not in ("pretrain", "retrain"))


def simulated(run: RunDirectory, clock: Clock, layers: Collection[str]) -> Simulated:
    """A run's rounds by a clock."""
    rows = run.table("rounds").to_pylist()
    return Simulated(rows, clock.seconds(rows, run.table("clients").to_pylist(), layers))


def imagined(run: RunDirectory, deployment: DeploymentConfig) -> Simulated:
    """A finished run's rounds on any deployment's devices, whatever its own was. Raises where a cost is not known."""
    config, result = run.config.model_copy(update={"deployment": deployment}), run.result
    about = tuple(result["data"]["shape"]), result["data"]["classes"]
    return simulated(run, Clock(config, *about), result["layers"]["chosen"])


def told(found: Simulated, config: RunConfig, sent: Mapping[str, Any], fa_retrained: float | None) -> dict[str, Any]:
    """A method's simulated seconds in all, and until it has forgotten; `sent` is `bytes` of result.json."""
    own = method_phases(config)
    main = schedule.main_phase({phase: sent[phase] for phase in own if phase in sent})
    main = "retrain" if own == ("retrain",) else main
    return {"simulated_seconds": found.total(own), **found.to_forget(own, main, fa_retrained)}


def timed(directory: RunDirectory, clock: Clock, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write the column `simulated_seconds` of rounds.parquet; result.json's `deployment`."""
    config, retrained = directory.config, result["metrics"]["retrained"]
    fa = None if retrained is None else retrained["fa"]
    found = simulated(directory, clock, result["layers"]["chosen"])
    by_round = {(row["phase"], row["round"]): s for row, s in zip(found.rows, found.seconds, strict=True)}
    for part, rows in directory.parts("rounds"):
        seconds = [by_round[row["phase"], row["round"]] for row in rows.select(["phase", "round"]).to_pylist()]
        names = [name for name in rows.column_names if name != SIMULATED.name]
        directory.write_part(
            "rounds", part, rows.select(names).append_column(SIMULATED, pa.array(seconds, pa.float64()))
        )
    return {
        "profile": config.deployment.profile,
        **told(found, config, result["bytes"], fa),
        "pretrain_seconds": found.total(("pretrain",)),
        "retrain_seconds": found.total(("retrain",)),
        **{f"retrain_{name}": value for name, value in found.to_forget(("retrain",), "retrain", fa).items()},
    }

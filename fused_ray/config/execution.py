"""How a run is judged, where it is executed, and where its results go: no model depends on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fused_ray.config.fields import Count, Drawn, Names, Real, Results, Section
from fused_ray.config.parts.callbacks import CALLBACK
from fused_ray.config.parts.metrics import Metric, further_metrics
from fused_ray.config.parts.trackers import Trackers
from fused_ray.errors import ConfigError

CLIENT = "ray://"
NO_CLIENT = (
    "by Ray Client, the driver would not be on the machine of the results' folder; send the whole command there with "
    "ray job submit, or run it on a node of the cluster with engine.address=auto"
)
"""Why an address of that kind is refused."""


class AuditConfig(Section):
    """How the model that forgot is judged, against the retrained one; nothing here changes a model."""

    enabled: bool = True
    """Judge it by accuracy, relearning, head recovery, membership and the one-number control: one verdict in words."""
    probes: bool = False
    """Look inside as well: what linear probes find on every stage, and whether the gradients oppose each other."""
    shadows: Annotated[int, Field(strict=True, ge=0, le=64)] = 0
    """Shadow models that the membership attack learns from, trained for it; 0: by the loss alone."""
    retrained: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    """Models retrained without the forgotten data; from three on their spread tells chance from difference."""
    relearn_steps: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 40
    """Steps of training on the forgotten data again."""
    relearn_repeats: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    """How often that is done, with other batches; the mean counts."""
    metrics: Names = ()
    """Further figures, which change no verdict: of docs/audit.md, giveaway; or your own, package.module:object."""
    swap: Annotated[int, Field(strict=True, ge=0, le=16)] = 0
    """SWAP test of a sample request: how often all is trained anew, with forgotten and unseen examples exchanged."""
    klom: Annotated[int, Field(strict=True, ge=0, le=256)] = 0
    """KLoM: how many more models are trained, unlearned and retrained; 0: none, else 3 or more, and 20 tell much."""
    ruli: Annotated[int, Field(strict=True, ge=0, le=256)] = 0
    """RULI with canaries, of a sample request: how many shadows are trained and unlearned; a multiple of 3, from 12."""

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        further_metrics(names)
        return names

    @model_validator(mode="after")
    def _enough(self) -> AuditConfig:
        if 0 < self.klom < 3:
            raise ValueError(f"klom: {self.klom} more models have no halves to compare; take 3 or more")
        if self.ruli % 3 or 0 < self.ruli < 12:
            raise ValueError(f"ruli: {self.ruli} shadows are not three roles of four or more; take 12, 15, 18, ...")
        return self

    @property
    def further(self) -> tuple[Metric, ...]:
        """What is known of `metrics`. Raises ConfigError where one cannot be used in this process."""
        try:
            return further_metrics(self.metrics)
        except ValueError as error:
            raise ConfigError(f"audit.metrics: {error}") from None

    @property
    def trains(self) -> bool:
        """Whether models that others are compared with are trained for the audit alone."""
        return self.shadows > 0 or self.retrained > 1

    @property
    def anew(self) -> bool:
        """Whether the run's method is trained anew, for audits of how it comes out elsewhere."""
        return bool(self.swap or self.klom or self.ruli)

    def check_fits(self, kind: str, scenario: str) -> None:
        """Raises ValueError where an audit cannot be made of a scenario, which is of this kind."""
        for key, why in (("swap", "has unseen examples like the forgotten ones"), ("ruli", "forgets single examples")):
            if getattr(self, key) and kind != "sample":
                raise ValueError(f"audit.{key}: only forget.scenario=sample {why}, not {scenario}; leave it at 0")

    def check_shared(self, key: str) -> None:
        """Raises ValueError where a study's audits, which share what is trained for them, were to train anew."""
        if self.anew:
            raise ValueError(
                f"{key}: swap, klom and ruli train each method anew, which a study does not; audit a single run: "
                "fused-ray audit RUN --set audit.klom=20"
            )

    def needs_workers(self, config: Any) -> bool:
        """Whether the audit of a run of this configuration trains anything by rounds."""
        return self.trains or self.anew or self.further_rounds(config) > 0

    def further_rounds(self, config: Any) -> int:
        """How many rounds the further metrics of a run of this configuration train, at most."""
        return sum(metric.rounds(config) for metric in self.further if metric.rounds)


class EngineConfig(Section):
    """Where and how the run is executed; nothing here changes a result, unless federation.on_failure is skip."""

    backend: Literal["ray", "local"] = "ray"
    """ray: every client in a Ray actor; local: a plain loop in this process."""
    address: str | None = None
    """Ray cluster to join; unset: RAY_ADDRESS or the surrounding Ray job, else a private Ray of the run's own."""
    numerics: Literal["report", "strict"] = "report"
    """When actors' floating point differs: report it, or refuse to run (strict)."""
    max_attempts: Count = 3
    """How often a client's work may kill its actor before it has failed (federation.on_failure)."""
    min_nodes: Count = 1
    """Nodes of the cluster that a start waits for."""
    wait_nodes: Annotated[Real, Field(gt=0)] = 600.0
    """Seconds that it waits for them, and for what `autoscale` asked for."""
    autoscale: bool = False
    """Ask the cluster's autoscaler for room for all actors at the start, and for nothing more once they are there."""
    max_lost_nodes: Annotated[int, Field(strict=True, ge=0)] = 8
    """How many nodes a run may lose before it ends; what they had to do moves to the others."""
    start_timeout: Annotated[Real, Field(gt=0)] = 180.0
    """Seconds after which a start is given up in which no actor has started, or others leave no room for one."""
    client_timeout: Annotated[Real, Field(gt=0)] = 3600.0
    """Seconds a client may take in a round, a call of several clients as many times as long; then it is late."""
    aggregate_memory_mb: Annotated[Real, Field(gt=0)] = 4096.0
    """Most memory, in MB of 1e6 bytes, for single clients' updates where an aggregate needs each; more is refused."""
    prefix_cache_mb: Annotated[Real, Field(ge=0)] = 2048.0
    """Memory per actor, in MB of 1e6 bytes, for cached activations of frozen layers; what exceeds it is recomputed."""

    @field_validator("address")
    @classmethod
    def _no_client(cls, address: str | None) -> str | None:
        if address is not None and address.startswith(CLIENT):
            raise ValueError(NO_CLIENT)
        return address


class OutputConfig(Section):
    """Where the results go."""

    dir: Results = "runs/run"
    """Run directory; an existing one is refused unless told otherwise."""
    plots: Drawn = "png"
    """Format of the plots in the run directory; none: draw none. true and false mean png and none."""
    report: bool = True
    """Whether a run writes report.html into its directory when it is finished; a study's runs write none."""
    clients: Literal["all", "sample", "none"] = "all"
    """Rows of clients.parquet, and what callbacks hear of clients: of all, of a sample, or none."""
    clients_sample: Count = 1000
    """Clients of a sample; the same ones in every round, as far as they take part, by the seed."""
    callbacks: Names = ()
    """Objects or classes of your own that hear how it goes on, each as package.module:object."""
    trackers: Trackers = ()
    """Where its figures go while it goes on: tensorboard, mlflow, wandb; their own variables say to which address."""

    @field_validator("callbacks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            CALLBACK.find(name)
        return names

    @property
    def listeners(self) -> dict[str, Any]:
        """What stands at `callbacks`, by name. Raises ConfigError where one cannot be used in this process."""
        try:
            return {name: CALLBACK.find(name) for name in self.callbacks}
        except ValueError as error:
            raise ConfigError(f"output.callbacks: {error}") from None

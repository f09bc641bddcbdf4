"""The devices and networks that a run is imagined on, for its virtual clock (core.deployment)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fused_ray.config.fields import Real, Section, Where

Distribution = Real | dict[Literal["lognormal", "uniform"], tuple[Real, Real]]
"""Of a client's value: one number, {lognormal: [median, sigma]}, or {uniform: [least, most]}."""
DEVICE = ("ms_per_sample", "teraflops", "down_mbps", "up_mbps", "latency_s")
"""What differs between clients: fields, and columns of a trace."""
CYCLE = ("on_s", "off_s", "phase_s")
"""Further columns of a trace where clients come and go in a cycle."""
USE = 0.5
"""Share of a device's peak that training reaches, where only that is known (APPFL's)."""

PROFILES: Mapping[str, Mapping[str, Distribution]] = {
    # 15 to 199 ms an example lie 2 sigma around 55, and 26% of phones are below 3 Mbps (FedScale's traces)
    "phones": {
        "ms_per_sample": {"lognormal": (55.0, 0.65)},
        "down_mbps": {"lognormal": (6.1, 1.1)},
        "up_mbps": {"lognormal": (6.1, 1.1)},
        "latency_s": 0.0,
    },
    # 300 Mbps, and a Jetson Nano's peak as the least GPU that a site has (both APPFL's)
    "hospitals": {"teraflops": 0.472, "down_mbps": 300.0, "up_mbps": 300.0, "latency_s": 0.0},
    # an A100's peak, and the 1,000 Mbps of a shared line (both APPFL's)
    "datacentre": {"teraflops": 312.0, "down_mbps": 1000.0, "up_mbps": 1000.0, "latency_s": 0.0},
    "own": {},
}
"""What is known of each kind of deployment; docs/deployment.md has the sources. Nobody published a latency: that
messages take no longer than their bytes is an assumption of ours."""
LEAST, MOST, _MOST_SIGMA = 1e-12, 1e12, 10.0
"""So that nothing that is drawn is 0 or endless, for it was rounded."""
SERVER_MB_S = 1700.0
"""What one core adds up exactly, measured here (docs/decisions/0020)."""


def parameters(distribution: Distribution) -> tuple[str, float, float]:
    """A distribution's kind (constant, lognormal, uniform) and its two numbers."""
    if not isinstance(distribution, Mapping):
        return "constant", distribution, 0.0
    ((kind, (first, second)),) = distribution.items()
    return kind, first, second


class DeploymentConfig(Section):
    """A virtual clock: how long rounds would take on other devices, and who would be there and in time."""

    profile: Literal["none", "phones", "hospitals", "datacentre", "own"] = "none"
    """none: no clock; phones, hospitals, datacentre: what is unset comes from there; own: nothing may be unset."""
    participation: Literal["everybody", "available"] = "everybody"
    """everybody: all that are asked count, and no bit changes; available: who is there, in time and not lost."""
    trace: Where | None = None
    """A Parquet file with a row a client: column client (from 0), and any of the fields that differ between clients."""
    ms_per_sample: Distribution | None = None
    """Milliseconds of a forward pass on one example: a number, {lognormal: [median, sigma]}, {uniform: [a, b]}."""
    teraflops: Distribution | None = None
    """Instead of that a device's peak, 1e12 operations a second, half of which training reaches; likewise."""
    train_factor: Annotated[Real, Field(ge=1, le=100)] = 3.0
    """What training on an example takes against its forward pass alone."""
    down_mbps: Distribution | None = None
    """Megabits a second that a client receives; likewise."""
    up_mbps: Distribution | None = None
    """Megabits a second that a client sends; likewise."""
    latency_s: Distribution | None = None
    """Seconds that a message takes beside its bytes; likewise."""
    server_mb_s: Annotated[Real, Field(gt=0)] = SERVER_MB_S
    """Megabytes a second of clients' messages that the server adds up."""
    server_s: Annotated[Real, Field(ge=0)] | None = None
    """Instead of that, seconds of the server between a round's last upload and the next round."""
    availability: Literal["always", "cycle", "daily"] = "always"
    """When clients are there: always; cycle: on_s of on_s + off_s, each from its own moment; daily: more by day."""
    on_s: Annotated[Real, Field(gt=0)] = 300.0
    """In a cycle: seconds that a client is there at a stretch."""
    off_s: Annotated[Real, Field(gt=0)] = 600.0
    """In a cycle: seconds that it is then away."""
    daily_share: Annotated[Real, Field(ge=0.01, le=0.625)] = 0.5
    """Daily: the mean p of p (1 + .6 sin(2 pi t / 24 h)), the share of clients that are there t after the start."""
    over_selection: Annotated[Real, Field(ge=1, le=100)] = 1.3
    """With available: so many times the wanted clients are asked (rounded down), and the earliest kept."""
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.08
    """With available: the probability that a client that is asked never answers."""
    deadline_s: Annotated[Real, Field(gt=0)] | None = None
    """With available: seconds after which a round ends with who is in; unset: it waits for all that will answer."""
    min_share: Annotated[Real, Field(gt=0, le=1)] = 0.8
    """With available: of the wanted clients, the least (rounded up) that a round is worth; else it is abandoned."""
    max_wait_s: Annotated[Real, Field(gt=0)] | None = None
    """With available: a round that lacks them at its deadline goes on, up to so many seconds from its start."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # distributions are mappings

    @field_validator(*DEVICE)
    @classmethod
    def _possible(cls, value: Distribution | None, info: Any) -> Distribution | None:
        if value is None:
            return None
        if isinstance(value, dict) and len(value) != 1:
            raise ValueError("write one number, {lognormal: [median, sigma]}, or {uniform: [least, most]}")
        kind, first, second = parameters(value)
        least_ok = first >= 0 if info.field_name == "latency_s" else first > 0
        if not least_ok:
            least = "at least" if info.field_name == "latency_s" else "above"
            raise ValueError(f"{first:g} is not possible; it must be {least} 0")
        if kind == "uniform" and second < first:
            raise ValueError(f"uniform from {first:g} to {second:g} is empty; write the least first")
        if kind == "lognormal" and second < 0:
            raise ValueError(f"a sigma of {second:g} is not possible; it must be at least 0")
        if not all(LEAST <= number <= MOST for number in (first, second) if number) or (
            kind == "lognormal" and second > _MOST_SIGMA
        ):
            raise ValueError(f"give values from {LEAST:g} to {MOST:g}, and a sigma up to {_MOST_SIGMA:g}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> DeploymentConfig:
        said = self.model_fields_set - self._unset()
        if self.profile == "none":
            if said:
                raise ValueError(f"{min(said)} is said, but profile is none; name a profile, or own")
            return self
        if self.ms_per_sample is not None and self.teraflops is not None:
            raise ValueError("ms_per_sample and teraflops both say how fast clients compute; leave one out")
        for needed, value, names in (
            ("availability", "cycle", ("on_s", "off_s")),
            ("availability", "daily", ("daily_share",)),
            ("participation", "available", ("over_selection", "dropout", "deadline_s", "min_share", "max_wait_s")),
        ):
            if getattr(self, needed) != value and (idle := said.intersection(names)):
                raise ValueError(f"{min(idle)} is said, but means nothing without {needed}={value}; set that too")
        if self.max_wait_s is not None and (self.deadline_s is None or self.max_wait_s < self.deadline_s):
            raise ValueError("max_wait_s counts from the round's start; give a deadline_s that is not above it")
        if self.trace is None:
            self.check_known(self.known)
        return self

    def _unset(self) -> set[str]:
        """Fields that say what they say by default."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}

    @property
    def decides(self) -> bool:
        """Whether it has a say in who counts, and so in what is trained."""
        return self.participation == "available"

    @property
    def known(self) -> dict[str, Distribution]:
        """What is said, over what the profile knows."""
        said = {name: getattr(self, name) for name in DEVICE}
        said = {name: value for name, value in said.items() if value is not None}
        given = dict(PROFILES.get(self.profile, {}))
        if {"ms_per_sample", "teraflops"} & said.keys():
            given = {name: value for name, value in given.items() if name not in ("ms_per_sample", "teraflops")}
        return given | said

    def check_known(self, known: Mapping[str, Any]) -> None:
        """Raises ValueError where a cost is unknown: it is never taken as nothing."""
        needed = ["down_mbps", "up_mbps", "latency_s"]
        missing = [name for name in needed if name not in known]
        if not {"ms_per_sample", "teraflops"} & known.keys():
            missing = ["ms_per_sample (or teraflops)", *missing]
        if missing:
            raise ValueError(f"{', '.join(missing)} unknown; give what is missing, or name a profile that knows it")

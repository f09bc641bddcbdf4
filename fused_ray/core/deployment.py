"""A deployment's virtual clock: how long a round would take on devices that are not here, and who would be in time.

Nothing sleeps, nothing is measured, and training's random numbers are not touched: what a client's device is like is
drawn once from (seed, "deployment/...", client), and seconds follow from examples and bytes.

A client's round: it waits until it is there, receives, computes, and sends. A pass over an example costs a forward of
the whole model and, of the layers that learn, a backward of twice as much (FedScale's factor 3 for both together); the
frozen part counts forward only. Bytes take 8 * bytes / (Mbps * 1e6) seconds (APPFL's rule).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fused_ray.config.deployment import USE, DeploymentConfig, Distribution, parameters
from fused_ray.seeding import bits, generator

HELD = 3
"""Rounds in a row that must know no more than a retrained model for it to count as forgotten."""
DAY_S, SLOT_S = 86_400.0, 3_600.0
"""Of the daily cycle; and how long a client stays as it is in it, there or away."""


class Availability(Protocol):
    """When a client is there."""

    def wait(self, now: float) -> float:
        """Seconds from `now` until it is there; 0: it is."""
        ...


@dataclass(frozen=True)
class Always:
    """A client that is always there."""

    def wait(self, now: float) -> float:
        return 0.0


ALWAYS = Always()


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """A client that is there for a while, away for a while, and so on (APPFL's on and off)."""

    on_s: float
    off_s: float
    phase_s: float = 0.0
    """How far it is in that cycle when the clock starts."""

    def wait(self, now: float) -> float:
        period = self.on_s + self.off_s
        at = (now + self.phase_s) % period
        return 0.0 if at < self.on_s else period - at


@dataclass(frozen=True, kw_only=True)
class Daily:
    """A client that is there in some hours, more often by day: each hour is drawn with that hour's probability."""

    seed: int
    client: int
    share: float

    def wait(self, now: float) -> float:
        slot = first = int(now // SLOT_S)
        while _uniform(self.seed, "daily", slot, self.client) >= daily(self.share, slot * SLOT_S):
            slot += 1
        return 0.0 if slot == first else slot * SLOT_S - now


def daily(share: float, seconds: float) -> float:
    """The share of clients that are there, so long after the start: in a day from 1.6 to .4 times the mean (Bonawitz et
    al. 2019 tell of a factor of 4)."""
    return share * (1 + 0.6 * math.sin(2 * math.pi * seconds / DAY_S))


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one client computes and sends with."""

    forward_s: float
    """Seconds of the whole model's forward pass on one example."""
    down_mbps: float
    """Megabits a second, of 1e6 bits."""
    up_mbps: float
    latency_s: float
    """Seconds that a message takes beside its bytes, one way."""
    availability: Availability = ALWAYS


def devices(
    config: DeploymentConfig, seed: int, clients: int, forward: int, trace: Mapping[str, NDArray[np.float64]]
) -> list[Device]:
    """Every client's, by operations of a forward pass and a trace's columns [clients].

    Raises ValueError where a cost is not known.
    """
    own = {"ms_per_sample", "teraflops"} if {"ms_per_sample", "teraflops"} & trace.keys() else set()
    known = {name: value for name, value in config.known.items() if name not in own}
    config.check_known({**known, **trace})

    def device(client: int) -> Device:
        figures = {name: drawn(value, seed, name, client) for name, value in known.items() if name not in trace}
        figures |= {name: float(values[client]) for name, values in trace.items()}
        speed = figures.get("ms_per_sample")
        return Device(
            forward_s=forward / (figures["teraflops"] * 1e12 * USE) if speed is None else speed / 1000,
            down_mbps=figures["down_mbps"],
            up_mbps=figures["up_mbps"],
            latency_s=figures["latency_s"],
            availability=_availability(config, seed, client, figures),
        )

    return [device(client) for client in range(clients)]


def _availability(config: DeploymentConfig, seed: int, client: int, figures: Mapping[str, float]) -> Availability:
    if config.availability == "daily":
        return Daily(seed=seed, client=client, share=config.daily_share)
    if config.availability == "always":
        return ALWAYS
    on, off = figures.get("on_s", config.on_s), figures.get("off_s", config.off_s)
    phase = figures.get("phase_s")
    at = drawn({"uniform": (0.0, on + off)}, seed, "phase_s", client) if phase is None else phase
    return Cycle(on_s=on, off_s=off, phase_s=at)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a client does in a round."""

    examples: int
    """Examples that it is shown, repeats counted."""
    bytes_down: int
    bytes_up: int
    learning: float = 1.0
    """Share of the forward pass's cost that lies in the part that learns; below it nothing goes backward."""


@dataclass(frozen=True)
class Closed:
    """How a round ended."""

    seconds: float
    """After its start."""
    counted: tuple[int, ...]
    """Who counts, by when they were in; nobody in a round that was abandoned."""


def transfer_seconds(size: int, mbps: float) -> float:
    """Seconds of so many bytes at so many megabits a second. Raises ValueError where nothing would ever arrive."""
    if not mbps > 0:
        raise ValueError(f"a bandwidth of {mbps} Mbps carries nothing; it must be above 0")
    return 8 * size / (mbps * 1e6)


def compute_seconds(examples: int, forward_s: float, train_factor: float = 3.0, learning: float = 1.0) -> float:
    """Seconds of training on so many examples: `train_factor` forwards each where all of the model learns."""
    return examples * forward_s * (1 + (train_factor - 1) * learning)


def client_seconds(device: Device, task: Task, train_factor: float = 3.0, now: float = 0.0) -> float:
    """Seconds from `now`, the round's start, until the server has what the client sends."""
    messages = (task.bytes_down > 0) + (task.bytes_up > 0)
    return (
        device.availability.wait(now)
        + transfer_seconds(task.bytes_down, device.down_mbps)
        + compute_seconds(task.examples, device.forward_s, train_factor, task.learning)
        + transfer_seconds(task.bytes_up, device.up_mbps)
        + messages * device.latency_s
    )


def over_selected(wanted: int, over_selection: float, there: int) -> int:
    """How many clients are asked so that so many answer: rounded down, as FedScale does, of those that are there."""
    return min(there, max(wanted, int(over_selection * wanted)))


def close(
    ready: Mapping[int, float],
    lost: Mapping[int, float],
    wanted: int,
    quorum: int = 1,
    deadline: float | None = None,
    longest: float | None = None,
) -> Closed:
    """When a round ends, and with whom, by when clients would be in; those that are lost never are.

    It ends with the `wanted`-th, or when nobody more will come, or at the deadline with those that are in by then. Are
    they fewer than `quorum`, it goes on until these are in, but no `longest` seconds (unset: the deadline). Then it is
    abandoned: nobody counts.
    """
    order = sorted(ready, key=lambda client: (ready[client], client))
    times = [ready[client] for client in order]
    settled = max([*times, *lost.values()])  # who is lost is missed when it would have been in
    end = times[wanted - 1] if wanted <= len(times) else settled
    if deadline is not None and end > deadline:
        end = deadline
        if sum(time <= end for time in times) < quorum:
            last = deadline if longest is None else longest
            end = min(last, times[quorum - 1] if quorum <= len(times) else settled)
    kept = tuple(client for client in order[:wanted] if ready[client] <= end)
    return Closed(end, kept if len(kept) >= quorum else ())


def drops_out(seed: int, phase: str, round: int, client: int, probability: float) -> bool:
    """Whether a client that is asked in a round never answers."""
    return probability > 0 and _uniform(seed, f"dropout/{phase}", round, client) < probability


def _uniform(seed: int, purpose: str, round: int, client: int) -> float:
    """A number from 0 up to 1, of its own for each purpose, round and client."""
    return float(bits(1, seed, f"deployment/{purpose}", round, client)[0] >> np.uint64(11)) * 2.0**-53


def drawn(distribution: Distribution, seed: int, purpose: str, client: int) -> float:
    """One client's value of a distribution, the same for a seed, purpose and client whatever else is drawn."""
    kind, first, second = parameters(distribution)
    if kind == "constant":
        return first
    random = generator(seed, f"deployment/{purpose}", 0, client)
    return float(first * np.exp(second * random.normal()) if kind == "lognormal" else random.uniform(first, second))


def forgotten_after(fa: Sequence[float | None], most: float) -> int | None:
    """The first round, from 1, from which FA is at most `most` for `HELD` rounds; None: never, or not for so long."""
    low = [value is not None and value <= most for value in fa]
    return next((i + 1 for i in range(len(low) - HELD + 1) if all(low[i : i + HELD])), None)

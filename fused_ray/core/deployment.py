"""A deployment's virtual clock: how long a round would take on devices that are not here.

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

import numpy as np

from fused_ray.config.deployment import Distribution, parameters
from fused_ray.seeding import generator

HELD = 3
"""Rounds in a row that must know no more than a retrained model for it to count as forgotten."""


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
    on_s: float = math.inf
    """Seconds that it is there at a stretch; inf: always."""
    off_s: float = 0.0
    """Seconds that it is away between them."""
    phase_s: float = 0.0
    """How far it is in that cycle when the clock starts."""

    def wait(self, now: float) -> float:
        """Seconds from `now` until it is there."""
        if math.isinf(self.on_s):
            return 0.0
        period = self.on_s + self.off_s
        at = (now + self.phase_s) % period
        return 0.0 if at < self.on_s else period - at


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
    """Who counts, by when they were ready; nobody in a round that was abandoned."""
    late: tuple[int, ...]
    """Who was asked in vain."""


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
        device.wait(now)
        + transfer_seconds(task.bytes_down, device.down_mbps)
        + compute_seconds(task.examples, device.forward_s, train_factor, task.learning)
        + transfer_seconds(task.bytes_up, device.up_mbps)
        + messages * device.latency_s
    )


def asked(wanted: int, over_selection: float, there: int) -> int:
    """How many clients are asked so that so many answer: rounded down, as FedScale does, of those that are there."""
    return min(there, max(wanted, int(over_selection * wanted)))


def close(
    ready: Mapping[int, float],
    wanted: int,
    deadline: float = math.inf,
    quorum: int = 1,
    longest: float | None = None,
) -> Closed:
    """When a round ends, and with whom, by when clients would be ready (inf: dropped out).

    It ends with the `wanted`-th, or at the deadline with those that are in by then. Are they fewer than `quorum`, it
    goes on until these are in, but no `longest` seconds (unset: the deadline); then it is abandoned: nobody counts.
    Raises ValueError where it would never end.
    """
    order = sorted(ready, key=lambda client: (ready[client], client))
    times = [ready[client] for client in order]
    last = deadline if longest is None else max(longest, deadline)
    end = times[wanted - 1] if wanted <= len(times) else math.inf
    if end > deadline:
        end = deadline
        if sum(time <= end for time in times) < quorum:
            end = times[quorum - 1] if quorum <= len(times) else math.inf
    kept = order[:wanted] if end <= last else []
    end = min(end, last)
    if math.isinf(end):
        raise ValueError("a client that drops out never answers: a round without a deadline would never end")
    counted = tuple(client for client in kept if ready[client] <= end)
    return Closed(end, counted, tuple(client for client in order if client not in counted))


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

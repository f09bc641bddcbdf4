"""Where a study is: what goes on, how many of its runs are over, and how long the rest takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from fused_ray.runs.progress import Progress as RunProgress


@dataclass(frozen=True)
class Progress:
    """Where a study is."""

    model: str = ""
    """The shared model that is being made, in words; empty once all are there."""
    now: str = ""
    """The run or the audit that goes on, in words; empty where several runs go on side by side."""
    run: RunProgress = field(default_factory=RunProgress)
    """How far that is."""
    count: int = 0
    """Runs of the study, beside those that make shared models."""
    done: int = 0
    """Those that are over, however they ended."""
    running: int = 0
    failed: int = 0
    best: str = ""
    """The best so far, in words; empty where nothing is looked for."""
    seconds_left: float | None = None
    """Until all runs are over, by those that are; None before anything was measured."""
    notes: tuple[str, ...] = ()

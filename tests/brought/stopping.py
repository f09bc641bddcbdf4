"""Commands that are stopped or fail in small runs."""

from __future__ import annotations

import contextlib
import io

import pytest

from fused_ray.cli.app import main

SMALL = [
    *("federation.clients=3", "data.limit=300", "pretrain.rounds=2", "unlearn.rounds=2", "retrain.rounds=2"),
    *("unlearn.layers=1", "output.plots=none", "audit.relearn_repeats=1", "audit.relearn_steps=5"),
]


BASE = (
    "{federation: {clients: 3}, data: {limit: 300}, pretrain: {rounds: 2}, retrain: {rounds: 1}, unlearn: {rounds: 1}}"
)


def settings(*fields: str) -> list[str]:
    return [part for field in fields for part in ("--set", field)]


def command(*arguments: object) -> tuple[int, list[str]]:
    """A command line as typed: its exit code, and the lines that it printed to standard error."""
    errors = io.StringIO()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as end,
    ):
        main([str(argument) for argument in arguments])
    return int(str(end.value.code)), errors.getvalue().splitlines()

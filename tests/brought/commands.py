"""Commands as typed, and small configurations for them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

from fused_ray import (
    FusedRayError,
    RunConfig,
)
from fused_ray.cli.app import main

SWEEP = "base: {data: {limit: 400}, federation: {clients: 4}}\nspace:\n  unlearn.sparsity: {grid: [0.5, 0.9]}\n"


COMPARISON = "methods: [fused]\nscenarios: [class]\nbase: {data: {limit: 400}, federation: {clients: 4}}\n"


RUN = "data: {limit: 400}\nfederation: {clients: 4}\n"


def command(*arguments: object) -> tuple[int, str, str]:
    """A command line as typed: exit code, standard output and standard error."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(str(end.value.code)), out.getvalue(), errors.getvalue()


def one_line(*arguments: object) -> str:
    """What a command is refused with."""
    code, _, errors = command(*arguments)
    lines = errors.splitlines()
    assert code == 2, (arguments, errors)
    assert len(lines) == 1, errors
    assert lines[0].startswith("fused-ray: ")
    assert lines[0].isprintable()
    return lines[0]


def refused(values: Any, *overrides: str) -> str:
    with pytest.raises(FusedRayError) as caught:
        RunConfig.from_dict(values, overrides)
    return str(caught.value)


# -- paths --------------------------------------------------------------------------------------------------

PATHS = ("data.root", "data.partition_file", "model.weights", "pretrain.from", "output.dir")


# -- more samples -------------------------------------------------------------------------------------------

DRAWN: dict[str, Any] = {
    "base": {
        "data": {"limit": 200},
        "federation": {"clients": 2},
        "pretrain": {"rounds": 1},
        "unlearn": {"rounds": 1, "layers": ["fc3"]},
        "retrain": {"rounds": 0},
        "engine": {"backend": "local"},
        "audit": {"enabled": False},
    },
    "space": {"unlearn.sparsity": {"quniform": [0.01, 0.99, 0.01]}},
    "search": "random",
    "samples": 2,
    "output": {"dir": "sweep", "plots": False},
}

"""Where clients that failed are left out: those that nobody can stand in for are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fused_ray.core import methods, state
from fused_ray.core.pools import ClientDone, LocalPool
from fused_ray.core.work import Work
from fused_ray.errors import ClientFailedError
from fused_ray.types import PartialSum, Payload


class Failing(LocalPool):
    """Some clients fail in the first round of unlearning, as `federation.on_failure=skip` has it."""

    fail: Sequence[int] = ()

    def train(
        self, work: Work, payload: Payload, clients: Sequence[int], done: ClientDone, keep_updates: bool = False
    ) -> Iterator[PartialSum]:
        there = [client for client in clients if work.phase != "unlearn" or client not in self.fail]
        return super().train(work, payload, there, done, keep_updates)


@pytest.mark.parametrize(
    ("method", "kind", "fail", "said"),
    [
        ("ridge", "class", (2,), "unlearn round 1: client 2 failed, and nobody can stand in for it"),
        ("fedosd", "client", (3,), "unlearn round 1: client 3 failed, and nobody can stand in for it"),
        ("fedquit", "client", (3,), "unlearn round 1: client 3 failed, and nobody can stand in for it"),
        ("puf", "client", (1,), "unlearn round 1: client 1 failed, and nobody can stand in for it"),
        ("fedosd", "client", (0, 2, 4), "unlearn round 1: every client that keeps data failed"),
    ],
)
def test_the_run_ends_and_keeps_nothing_of_the_round(
    federate: Any, pretrained: Any, scenario: Any, gone: Any, method: str, kind: str, fail: Sequence[int], said: str
) -> None:
    fields = (f"unlearn.method={method}", f"forget.scenario={kind}", "federation.on_failure=skip")
    federation = federate(*fields, on=scenario if kind == "class" else gone)
    pool = Failing(federation.config, federation.data, federation.scenario)
    pool.fail = fail
    federation = dataclasses.replace(federation, pool=pool)
    base = pretrained(federation)
    pool.install(state.flatten(base))
    with pytest.raises(ClientFailedError, match=said):
        methods.unlearn(federation, base)
    assert ("unlearn", 1) not in federation.recorder.rounds


@pytest.mark.parametrize(
    ("fields", "used"),
    [
        (("unlearn.method=puf", "puf.eta=0.5", "unlearn.rounds=0"), [4]),
        (("unlearn.method=fedosd", "fedosd.rounds=1", "unlearn.rounds=1"), [4, 2]),
    ],
)
def test_one_of_the_others_is_left_out(
    federate: Any, pretrained: Any, gone: Any, fields: tuple[str, ...], used: list[int]
) -> None:
    federation = federate("federation.on_failure=skip", *fields)
    pool = Failing(federation.config, federation.data, gone)
    pool.fail = (0,)
    federation = dataclasses.replace(federation, pool=pool)
    methods.unlearn(federation, pretrained(federation))
    assert [r.clients_used for r in federation.recorder.records if r.phase == "unlearn"] == used

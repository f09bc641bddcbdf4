"""Who counts on a deployment's devices: whose updates are in the mean of small federations, and what records say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fused_ray.core import methods, state
from fused_ray.core.deployment import Always, Cycle, Device
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.participation import Draw, of_round
from fused_ray.core.rounds import Federation
from fused_ray.core.timetable import Timetable
from fused_ray.errors import ConfigError

FREE = Device(forward_s=1e-12, down_mbps=1e9, up_mbps=1e9, latency_s=0.0)
"""Takes next to nothing."""
SLOW = replace(FREE, latency_s=50.0)
"""Two messages take 100 s."""
AWAY = replace(FREE, availability=Cycle(on_s=300, off_s=600, phase_s=400))
"""Comes back at 500 s."""
SURE = ("over_selection=1", "dropout=0")


@pytest.fixture
def clocked(federate: Callable[..., Federation]) -> Callable[..., Federation]:
    """`clocked(devices, "deadline_s=5", ...)`: a federation of five clients on devices, with fields of `deployment`;
    the server takes 2 s."""

    def make(devices: list[Device], *fields: str, more: tuple[str, ...] = (), start: Any = None) -> Federation:
        deployment = ("profile=hospitals", "participation=available", "server_s=2", *fields)
        if any(isinstance(device.availability, Cycle) for device in devices):
            deployment = (*deployment, "availability=cycle")
        federation = federate(*(f"deployment.{field}" for field in deployment), *more, start=start)
        return replace(federation, clock=Timetable(federation.config, devices, lambda layers: 1.0))

    return make


def trained(federation: Federation) -> bytes:
    """The bits of M_r."""
    start = state.flatten(fedavg.initial(federation, "pretrain"))
    return fedavg.pretrain(federation, start).payload.values.tobytes()


def counts(federation: Federation, phase: str = "pretrain") -> list[tuple[int, int, int]]:
    records = [record for record in federation.recorder.records if record.phase == phase]
    return [(record.clients_expected, record.clients_received, record.clients_used) for record in records]


def seconds(federation: Federation, phase: str = "pretrain") -> list[float]:
    assert federation.clock is not None
    return [round(plan.seconds or 0, 3) for plan in federation.clock.of(phase)]


@pytest.mark.parametrize("share", ["1", "0.6"])
def test_where_nobody_is_late_or_away_the_bits_are_those_without_a_clock(
    clocked: Any, federate: Any, share: str
) -> None:
    more = (f"federation.participation={share}",)
    assert trained(clocked([FREE] * 5, *SURE, "deadline_s=1", more=more)) == trained(federate(*more))


def test_who_is_late_does_not_count_and_the_round_ends_at_the_deadline(clocked: Any, federate: Any) -> None:
    federation = clocked([FREE, FREE, SLOW, FREE, FREE], *SURE, "deadline_s=5")
    found = trained(federation)
    assert counts(federation) == [(5, 5, 4)] * 2  # late uploads arrive, and are thrown away
    assert seconds(federation) == [7.0, 7.0]
    others = federate()
    phase = replace(fedavg.pretraining(others), clients=[0, 1, 3, 4])
    start = state.flatten(fedavg.initial(others, "pretrain"))
    assert others.run(phase, start).payload.values.tobytes() == found


def test_without_a_deadline_everybody_that_answers_is_waited_for(clocked: Any, federate: Any) -> None:
    federation = clocked([FREE, FREE, SLOW, FREE, FREE], *SURE)
    assert trained(federation) == trained(federate())
    assert seconds(federation) == [102.0, 102.0]


def test_the_earliest_of_those_asked_too_many_count(clocked: Any) -> None:
    """Two of five are wanted, int(2 x 2.4) = 4 asked; of these the two with the shortest messages count."""
    devices = [replace(FREE, latency_s=client / 2) for client in range(5)]  # client k takes k seconds
    federation = clocked(devices, "over_selection=2.4", "dropout=0", more=("federation.participation=2",))
    trained(federation)
    assert counts(federation) == [(4, 4, 2)] * 2
    for plan, took in zip(federation.clock.of("pretrain"), seconds(federation), strict=True):
        assert plan.counted == sorted(plan.asked)[:2]
        assert took == plan.counted[1] + 2.0


@pytest.mark.parametrize(("wanted", "worth"), [("4", False), ("0.8", True)])
def test_a_number_is_wanted_however_few_are_there(clocked: Any, wanted: str, worth: bool) -> None:
    """One of five is there: of a share that is all there is to want, of 4 it is fewer than .8."""
    here = Cycle(on_s=1e6, off_s=1.0)
    away = [Cycle(on_s=1.0, off_s=1e6, phase_s=500.0)] * 4
    devices = [replace(FREE, availability=when) for when in (here, *away)]
    federation = clocked(devices, *SURE, more=(f"federation.participation={wanted}",))
    trained(federation)
    assert counts(federation) == [(1, 1, int(worth))] * 2


def test_who_drops_out_has_received_and_sends_nothing(clocked: Any) -> None:
    federation = clocked([FREE] * 5, "dropout=0.4", "min_share=0.2", "over_selection=1")
    trained(federation)
    found = counts(federation)
    assert all(asked == 5 and received == used for asked, received, used in found)
    assert any(used < 5 for _, _, used in found)


@pytest.mark.parametrize("late", [5, 2])
def test_an_abandoned_round_leaves_the_model_and_takes_its_time(clocked: Any, late: int) -> None:
    """All time out, or two of five do, which are fewer than .8."""
    federation = clocked([FREE] * (5 - late) + [SLOW] * late, *SURE, "deadline_s=5", "max_wait_s=9")
    start = state.flatten(fedavg.initial(federation, "pretrain"))
    end = fedavg.pretrain(federation, start)
    assert end.payload.values.tobytes() == start.values.tobytes()
    assert end.round == 2
    assert counts(federation) == [(5, 5, 0)] * 2
    assert seconds(federation) == [11.0, 11.0]
    record = federation.recorder.records[0]
    assert record.loss is None
    assert record.bytes_down * record.clients_expected > 0
    assert record.metrics.keys() >= {"ra", "fa"}


def test_an_abandoned_round_counts_nobody_though_targets_were_waited_for(clocked: Any, pretrained: Any) -> None:
    """Puf asks its targets, 1 and 3, by name; the others are late, so that the model must not be the targets' alone."""
    more = ("unlearn.method=puf",)
    federation = clocked([FREE] * 5, *SURE, "deadline_s=5", more=more)
    base = pretrained(federation)
    federation = replace(federation, clock=_from(federation, [SLOW, FREE, SLOW, FREE, SLOW]))
    federation.pool.install(state.flatten(base))
    found = methods.unlearn(federation, base)
    assert {used for _, _, used in counts(federation, "unlearn")} == {0}
    assert all((found.state[name] == base[name]).all() for name in base)


def test_who_goes_back_to_an_abandoned_round_is_told_that_it_was(clocked: Any, pretrained: Any) -> None:
    federation = clocked([SLOW] * 5, *SURE, "deadline_s=5", more=("pretrain.history=true", "unlearn.method=federaser"))
    base = pretrained(federation)
    with pytest.raises(ConfigError, match=r"round 1 of pre-training, which was abandoned, .* deployment\.deadline_s"):
        methods.unlearn(federation, base)


def test_a_lone_client(clocked: Any) -> None:
    late = clocked([SLOW] * 5, *SURE, "deadline_s=5", more=("federation.participation=0.2",))
    trained(late)
    assert counts(late) == [(1, 1, 0)] * 2
    in_time = clocked([SLOW] * 5, *SURE, "deadline_s=101", more=("federation.participation=0.2",))
    trained(in_time)
    assert counts(in_time) == [(1, 1, 1)] * 2


def test_those_that_are_there_are_asked_and_the_server_waits_while_nobody_is(clocked: Any) -> None:
    """300 s there, 600 away; from 500 s, 590 s and 100 s on. A round takes 250 s and the server 2."""
    slow = replace(FREE, latency_s=125.0)
    phases = (400, 310, 800, 800, 800)
    devices = [replace(slow, availability=Cycle(on_s=300, off_s=600, phase_s=phase)) for phase in phases]
    federation = clocked(devices, *SURE, more=("pretrain.rounds=4",))
    trained(federation)
    plans = federation.clock.of("pretrain")
    assert [list(plan.asked) for plan in plans] == [[2, 3, 4], [2, 3, 4], [0, 1], [1]]
    # at 352 the three are still there, at 604 the other two, at 856 the last of them
    assert [plan.waited for plan in plans] == [100, 0, 0, 0]
    assert seconds(federation) == [352.0, 252.0, 252.0, 252.0]


def test_a_run_that_goes_on_asks_whom_it_would_have_asked(clocked: Any) -> None:
    devices = [replace(FREE, latency_s=40.0, availability=Cycle(on_s=300, off_s=200, phase_s=90 * k)) for k in range(5)]
    fields, more = ("dropout=0.3", "min_share=0.1"), ("pretrain.rounds=6", "federation.participation=0.7")
    whole = clocked(devices, *fields, more=more)
    expected = trained(whole)
    assert len({tuple(plan.counted) for plan in whole.clock.of("pretrain")}) > 2
    saved = {"pretrain": whole.recorder.rounds["pretrain", 3]}
    again = clocked(devices, *fields, more=more, start=saved)
    assert trained(again) == expected
    assert again.clock.of("pretrain") == whole.clock.of("pretrain")
    planned = clocked(devices, *fields, more=more)  # who counted is known without training
    who = fedavg.trained_by(planned)
    assert [of_round(who, n) for n in range(1, 7)] == [plan.counted for plan in whole.clock.of("pretrain")]


def test_one_answer_is_enough_to_rank_by_and_none_is_told(clocked: Any, pretrained: Any) -> None:
    one = clocked([FREE] + [SLOW] * 4, *SURE, "deadline_s=5", "min_share=0.2")
    base = pretrained(one)
    one.pool.install(state.flatten(base))
    fused.rank_layers(one, base, one.anatomy.ranked)
    assert counts(one, "rank") == [(5, 5, 1)]
    assert list(fused.rankers(one)) == [0, 1, 2, 3, 4]  # all were sent M_r
    late = replace(one, clock=Timetable(one.config, [SLOW] * 5, lambda layers: 1.0), recorder=type(one.recorder)())
    with pytest.raises(ConfigError, match=r"of 5 clients none answered in rank round 1, .* deployment\.deadline_s"):
        fused.rank_layers(late, base, late.anatomy.ranked)


@pytest.mark.parametrize(
    ("method", "fields", "waits"),
    [
        ("fused", ("unlearn.mask=random",), 0),
        ("fused", ("unlearn.mask=saliency",), 500),
        *(
            (method, (), 0)
            for method in ("retrain", "finetune", "not", "federaser", "exactfun", "fedmemprune", "ridge")
        ),
        ("fedup", ("model.factory=fused_ray.models.bottleneck:build", "model.args={name: tiny}"), 0),
        *((method, (), 500) for method in ("puf", "eraseclient", "fedquit", "hessian-reset", "fedosd")),
    ],
)
def test_which_methods_wait_for_a_target_that_is_away(
    clocked: Any, pretrained: Any, method: str, fields: tuple[str, ...], waits: float
) -> None:
    """The targets, 1 and 3, were there in pre-training, which takes no time here; at the request they come in 500 s."""
    devices = [FREE, AWAY, FREE, AWAY, FREE]
    more = ("pretrain.history=true", f"unlearn.method={method}", "unlearn.layers=1", *fields)
    federation = clocked([FREE] * 5, *SURE, "availability=cycle", "server_s=0", more=more)
    base = pretrained(federation)
    federation = replace(federation, clock=_from(federation, devices))
    federation.pool.install(state.flatten(base))
    methods.unlearn(federation, base)
    waited = {name: sum(plan.waited for plan in plans) for name, plans in federation.clock.plans.items()}
    assert sum(wait for name, wait in waited.items() if name != "pretrain") == pytest.approx(waits)


def _from(federation: Federation, devices: list[Device]) -> Timetable:
    """The same clock with other devices from the request on."""
    assert federation.clock is not None
    table = Timetable(federation.config, devices, lambda layers: 1.0)
    table.plans.update(federation.clock.plans)
    return table


def test_what_is_sent_once_is_sent_to_those_that_are_asked(clocked: Any, pretrained: Any) -> None:
    """Client 4 is away in the first two rounds of unlearning, and is sent M_r's mask in the third."""
    devices = [replace(FREE, latency_s=1.0)] * 4 + [
        replace(FREE, latency_s=1.0, availability=Cycle(on_s=300, off_s=6, phase_s=300))
    ]
    more = ("unlearn.mask=random", "unlearn.layers=[fc]", "unlearn.method=fused")
    federation = clocked(devices, *SURE, more=more)
    base = pretrained(federation)
    federation.pool.install(state.flatten(base))
    methods.unlearn(federation, base)
    records = [record for record in federation.recorder.records if record.phase == "unlearn"]
    assert [sorted(record.once) for record in records] == [[0, 2], [], [4]]
    assert len({*records[0].once.values(), *records[2].once.values()}) == 1
    draw = federation.participants("unlearn", "retained")
    assert isinstance(draw, Draw)
    assert list(draw(1)) == [0, 2, 4]  # where nobody is away


def test_a_client_that_is_always_there_never_waits() -> None:
    assert Always().wait(math.pi) == 0

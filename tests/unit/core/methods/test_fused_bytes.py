"""M_r is sent once to every client, with the first message that is of no use without it; by hand."""

from __future__ import annotations

import dataclasses

import pytest

from fused_ray.core import state
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation

MODEL = 8 + 72 + 4 * 43_916
"""LeNet of four classes in one message: the header's length, the header, the values."""
VALUES = 8 + 64 + 4 * 40
MASK = 8 + 64 + 43
"""Of 40 entries of fc3's 340: a bitmap is shorter than indices of 16 bits."""
LONG_MASK = 8 + 64 + 2 * 40
"""Of 40 entries of conv2's 2,416, which the ranking chooses: indices are shorter."""
LORA = 8 + 64 + 4 * 1 * (84 + 4)
"""Of rank 1 on fc3, whose weight is 4 x 84."""
KEEPING, LOSING = (1, 2, 3, 4), (0, 2, 3, 4)
NAMED, SALIENCY = ["unlearn.layers=[fc3]"], "unlearn.mask=saliency"
RANKED = ["unlearn.layers=1", "unlearn.ranking=relative"]


@pytest.fixture(scope="module")
def uneven(data, scenario):
    """Client 0 keeps nothing, client 1 loses nothing, the others have both."""
    retained = (scenario.held[0][:0], scenario.held[1], *scenario.retained[2:])
    return dataclasses.replace(scenario, retained=retained)


@pytest.fixture(scope="module")
def unlearn(make_config, data, uneven, recorder):
    def make(*overrides, saved=None):
        config = make_config("unlearn.rounds=2", *overrides)
        pool, keeps = LocalPool(config, data, uneven), recorder(saved)
        federation = Federation(config, data, uneven, pool, keeps)
        base = fedavg.initial(federation, "pretrain")
        pool.install(state.flatten(base))
        fused.unlearn(federation, base)
        return keeps

    return make


def received(keeps):
    """What clients receive in each round: each of them as in any, and some once."""
    return [(r.phase, r.bytes_down, dict(r.once)) for r in keeps.records]


def each(clients, count):
    return dict.fromkeys(clients, count)


BUDGET = "unlearn.budget=40"
CASES = {
    "named layers": ([*NAMED, BUDGET], [("unlearn", VALUES, each(KEEPING, MODEL)), ("unlearn", VALUES, {})]),
    "last layers": (
        ["unlearn.layers=1", "unlearn.selection=last", BUDGET],
        [("unlearn", VALUES, each(KEEPING, MODEL)), ("unlearn", VALUES, {})],
    ),
    "random layers": (
        ["unlearn.layers=1", "unlearn.selection=random", BUDGET],
        [("unlearn", VALUES, each(KEEPING, MODEL)), ("unlearn", VALUES, {})],
    ),
    "lora": (
        [*NAMED, "unlearn.adapter=lora", "unlearn.rank=1"],
        [("unlearn", LORA, each(KEEPING, MODEL)), ("unlearn", LORA, {})],
    ),
    "ranked": ([*RANKED, BUDGET], [("rank", MODEL, {}), ("unlearn", VALUES, {}), ("unlearn", VALUES, {})]),
    "saliency, named layers": (
        [*NAMED, BUDGET, SALIENCY],
        [
            ("saliency", 0, each(LOSING, MODEL)),
            ("unlearn", VALUES, {1: MASK + MODEL} | each((2, 3, 4), MASK)),
            ("unlearn", VALUES, {}),
        ],
    ),
    "difference, named layers": (
        [*NAMED, BUDGET, SALIENCY, "unlearn.saliency=difference"],
        [
            ("saliency", 0, each(LOSING, MODEL)),
            ("saliency", 0, {1: MODEL}),
            ("unlearn", VALUES, each(KEEPING, MASK)),
            ("unlearn", VALUES, {}),
        ],
    ),
    "saliency after ranking": (
        [*RANKED, BUDGET, SALIENCY],
        [
            ("rank", MODEL, {}),
            ("saliency", 0, {}),
            ("unlearn", VALUES, each(KEEPING, LONG_MASK)),
            ("unlearn", VALUES, {}),
        ],
    ),
    "saliency alone": ([*NAMED, BUDGET, SALIENCY, "unlearn.rounds=0"], [("saliency", 0, each(LOSING, MODEL))]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_client_is_sent_the_model_once_and_where_it_needs_it(unlearn, case):
    overrides, expected = CASES[case]
    keeps = unlearn(*overrides)
    assert received(keeps) == expected
    assert keeps.records[0].clients_used == len(expected[0][2] or range(5))


@pytest.mark.parametrize("case", ["named layers", "difference, named layers", "saliency after ranking"])
def test_a_run_that_goes_on_sends_no_more_and_no_less(unlearn, case):
    overrides, expected = CASES[case]
    done = list(unlearn(*overrides).rounds.items())
    for finished in range(1, len(done)):
        saved = {phase: end for (phase, _), end in done[:finished]}
        assert received(unlearn(*overrides, saved=saved)) == expected[finished:]

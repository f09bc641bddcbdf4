"""What methods do in the same way after their first round: those that keep data recover, by FedAvg."""

from __future__ import annotations

from typing import Any

import pytest

from fused_ray.core import methods, state
from fused_ray.core.methods import fedavg
from fused_ray.errors import NumericsError

FIRST = {
    "puf": ("puf.variant=special", "puf.eta=0.5"),
    "fedquit": ("fedquit.lr=0.01", "train.momentum=0.5"),
    "fedmemprune": ("fedmemprune.share=0.3",),
    "eraseclient": (),
}


@pytest.mark.parametrize("method", FIRST)
def test_then_the_others_recover(
    federate: Any, pretrained: Any, gone: Any, space_of: Any, mean: Any, method: str
) -> None:
    federation = federate(f"unlearn.method={method}", "unlearn.rounds=1", *FIRST[method])
    found = methods.unlearn(federation, pretrained(federation))
    start = federation.recorder.rounds["unlearn", 1].payload
    work = fedavg.FullTraining("unlearn", 2, 0, federation.config.train, "retained")
    updates = [work.update(space_of(federation), start, client).payload for client in (0, 2, 4)]
    sizes = [len(gone.held[client]) for client in (0, 2, 4)]
    assert state.flatten(found.state).values.tobytes() == mean(updates, sizes, sum(sizes)).values.tobytes()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            ("unlearn.method=fedquit", "fedquit.lr=1e-30"),
            r"changed nothing; the targets.* raise fedquit\.lr",
        ),
        (("unlearn.method=hessian-reset", "hessian_reset.lr=1e-30"), r"changed nothing; raise hessian_reset\.lr"),
        (("unlearn.method=finetune", "train.lr=1e-30"), "changed nothing; raise the learning rate"),
    ],
)
def test_what_would_mend_a_round_that_changes_nothing(
    federate: Any, pretrained: Any, fields: tuple[str, ...], said: str
) -> None:
    base = pretrained(federate())
    federation = federate(*fields)
    federation.pool.install(state.flatten(base))
    with pytest.raises(NumericsError, match=said):
        methods.unlearn(federation, base)

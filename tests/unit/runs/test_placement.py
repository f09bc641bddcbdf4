"""`fused-ray plan --cluster`: a run's clients on nodes in words, and one line where that cannot be."""

from __future__ import annotations

import pytest

from fused_ray.cli.app import main
from tests.unit.conftest import Shown

MINI = ["--set", "data.name=fashion-mnist-mini", "--set", "federation.clients=6"]


def planned(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *MINI, *words])
    assert ended.value.code == 0


def test_a_runs_actors_are_placed_on_a_cluster_that_is_not_there(shown: Shown) -> None:
    assert shown(lambda: planned("--cluster", "4c/8GB, 0c"), width=200) == [
        "6 clients in 4 actors (1 to 2 each) on 1 of 2 nodes",
        "node 1 (4 CPU, 8.0 GB): 4 actors, an actor with 1 CPU, 1 to 2 clients and up to 2.0 GB; left: 0 CPU, 0.0 GB",
        "no actor on node 2",
        "left over: 0 CPU, 0 GPU",
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--cluster", "4q"], "fused-ray: --cluster: '4q': write nodes as [COUNTx]CORESc"),
        (
            ["--cluster", "4c", "--set", "federation.actor_gpus=1"],
            "fused-ray: 6 clients in 1 actors need 1 x (1 CPU + 1 ",
        ),
        (
            ["--cluster", "4c", "--set", "federation.actor_labels={zone: a}"],
            "fused-ray: federation.actor_labels: none of",
        ),
    ],
)
def test_what_cannot_be_placed_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *MINI, *words])
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert told.err.startswith(line)
    assert told.err.count("\n") == 1

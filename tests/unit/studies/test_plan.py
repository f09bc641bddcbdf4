"""A plan: its table in 80 columns, what it says of the store, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fused_ray.config import RunConfig
from fused_ray.core.layers import Sensitivity, choose
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage import schemas
from fused_ray.studies.start import unused
from fused_ray.studies.sweeps import estimate
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.estimate import Costs, kept, measure, seconds
from fused_ray.studies.sweeps.foreseen import foresee
from fused_ray.studies.sweeps.plan import show_plan

BASE = {
    "data": {"limit": 200}, "federation": {"clients": 4}, "pretrain": {"rounds": 3},
    "unlearn": {"rounds": 2, "selection": "last"},
    "engine": {"backend": "local"},
}  # fmt: skip


def plan(place: Path, space: dict[str, Any], **more: Any) -> SweepConfig:
    found = {key: {"grid": values} for key, values in space.items()}
    return SweepConfig.from_dict({"base": BASE, "space": found, "output": {"dir": str(place)}} | more)


def said(shown: Any, config: SweepConfig, width: int = 160, timed: bool = False) -> list[str]:
    lines: list[str] = shown(lambda: show_plan(config, timed=timed), width)
    return lines


def test_it_fits_80_columns_however_many_fields(tmp_path: Path, shown: Any) -> None:
    space = {
        "unlearn.layers": [1, 2], "unlearn.sparsity": [0.5], "unlearn.mask": ["saliency"], "unlearn.lr": [0.05],
        "unlearn.saliency": ["difference"], "unlearn.wire": ["float16"], "unlearn.start": ["negate"],
    }  # fmt: skip
    lines = said(shown, plan(tmp_path / "s", space), 80)
    rule = lines.index("-" * len(lines[2]))
    table = [line for line in lines[1:] if not line.startswith(("4 unlearning", "Shared", "In the end"))]
    assert rule == 2
    assert max(map(len, table)) <= 80
    text = " ".join(" ".join(line.split()) for line in table)
    for value in ("sparsity 0.5", "mask saliency", "saliency difference", "wire float16", "start negate"):
        assert value in text
    wide = said(shown, plan(tmp_path / "s", {"unlearn.layers": [1, 2]}))
    assert wide[1].split() == ["trial", "layers", "rounds", "frozen", "prefix"]
    assert [line.split()[:3] for line in wide[3:5]] == [["0", "1", "2"], ["1", "2", "2"]]


def test_it_tells_what_the_store_holds(tmp_path: Path, shown: Any) -> None:
    config = plan(tmp_path / "s", {"unlearn.layers": [1, 2]})
    store = tmp_path / "s" / "store"
    (run, *_) = [trial.config for trial in config.trials if trial.config]
    model, reference = config.model(run), config.reference(run)
    assert reference is not None

    def store_line() -> str:
        return next(line for line in said(shown, config) if line.startswith("Shared models: "))

    # 3 rounds of pre-training and one that ranks; 3 of retraining
    assert store_line() == f"Shared models: 0 of 2 are in {store}; 2 to make (7 full rounds)."
    begun = RunDirectory.create(model.output.dir, model)
    begun.lock(1.0)
    row = {name: ["pretrain" if name == "phase" else 1 if name == "round" else None] for name in schemas.ROUNDS.names}
    begun.write_part("rounds", "1-pretrain-000001", pa.table(row, schema=schemas.ROUNDS))
    assert store_line() == f"Shared models: 0 of 2 are in {store}; 2 to make (6 full rounds), 1 of them begun."
    begun.write_json("result.json", {})
    begun.unlock()
    assert store_line() == f"Shared models: 1 of 2 are in {store}; 1 to make (3 full rounds)."
    done = RunDirectory.create(reference.output.dir, reference)
    (done.path / "result.json").write_text(json.dumps({}))
    assert store_line() == f"Shared models: 2 of 2 are in {store}."


def test_a_number_at_a_time_that_the_local_backend_does_not_take_is_said(tmp_path: Path, shown: Any) -> None:
    """In a plan as in a sweep's and a comparison's first lines."""
    told = "max_concurrent: 3 at a time take base.engine.backend=ray; on the local backend one run goes on after the "
    place = tmp_path / "s"
    for wanted, note in ((3, [f"note: {told}other"]), (1, []), ("auto", [])):
        config = plan(place, {"unlearn.layers": [1]}, max_concurrent=wanted)
        assert [line for line in said(shown, config) if line.startswith("note: ")] == note
    on_ray = plan(place, {"unlearn.layers": [1]}, max_concurrent=3, base=BASE | {"engine": {"backend": "ray"}})
    assert not unused(on_ray)


def test_what_is_proposed_later_may_need_more_models(tmp_path: Path, shown: Any) -> None:
    base = BASE | {"engine": {"backend": "ray"}}
    drawn = {"base": base, "search": "optuna", "samples": 3, "output": {"dir": str(tmp_path / "s")}}
    for field, least in (("train.lr", "at least "), ("unlearn.lr", "")):
        config = SweepConfig.from_dict({**drawn, "space": {field: {"uniform": [0.01, 0.1]}}})
        assert any(f"0 of {least}2 are in" in line for line in said(shown, config))


def test_rounds_are_the_methods(tmp_path: Path, shown: Any) -> None:
    """FedEraser has as many rounds as stored ones but one, retraining its own, whatever unlearn.rounds says."""
    config = plan(tmp_path / "s", {"unlearn.method": ["fused", "puf", "retrain"], "forget.scenario": ["client"]})
    lines = said(shown, config)
    assert [line.split()[3] for line in lines[3:6]] == ["2", "3", "3"]
    assert any(line.startswith("8 unlearning rounds in 3 trials; 2 trials train the input layer") for line in lines)


def test_seconds_by_hand() -> None:
    """200 of 2,000 test and 10,000 training examples; a class of ten goes, so 180 stay."""
    config = RunConfig.from_dict(BASE)
    costs = Costs(train={"pretrain": 1e-3, "unlearn": 1e-4}, prefix=1e-5, evaluate={"pretrain": 1e-3, "unlearn": 1e-4})
    evaluated = 200 * 1e-3
    assert seconds(config, {}, costs) == pytest.approx(evaluated)
    pretrained = 3 * (200 * 1e-3 + 200 * 1e-3)
    assert seconds(config, {"pretrain": 3}, costs) == pytest.approx(evaluated + pretrained)
    assert seconds(config, {"rank": 1}, costs) == pytest.approx(evaluated + 200 * 1e-3)  # nothing is evaluated
    unlearned = 180 * (2 * 1e-4 + 1e-5) + 2 * 200 * 1e-4
    assert seconds(config, {"unlearn": 2}, costs) == pytest.approx(evaluated + unlearned)
    gradients = [
        seconds(RunConfig.from_dict(BASE, [f"unlearn.saliency={one}"]), {"saliency": rounds}, costs)
        for one, rounds in (("forget", 1), ("difference", 2))
    ]
    assert gradients == pytest.approx([evaluated + 20 * 1e-3, evaluated + (20 + 180) * 1e-3])
    assert seconds(config, {"retrain": 2}, costs) == pytest.approx(evaluated + 2 * (180 * 1e-3 + 200 * 1e-3))


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        (["forget.classes=[0, 1]"], 0.8),
        (["forget.scenario=client", "forget.clients=[0]"], 0.75),
        (["forget.scenario=client", "forget.share=0.5"], 0.5),
        (["forget.scenario=sample", "forget.share=0.5", "forget.examples_share=0.2"], 0.9),
    ],
)
def test_the_share_that_stays(settings: list[str], share: float) -> None:
    assert kept(RunConfig.from_dict(BASE, settings)) == pytest.approx(share)


UPPER = ("conv1", "conv2", "fc1", "fc2")


@pytest.mark.parametrize(
    ("settings", "choices", "below"),
    [
        (["unlearn.layers=2"], [("fc2", "fc3")], ("conv1", "conv2", "fc1")),
        (["unlearn.layers=5"], [("conv1", "conv2", "fc1", "fc2", "fc3")], ()),
        (["unlearn.layers=[conv2, fc3]"], [("conv2", "fc3")], ("conv1",)),
        (["unlearn.selection=budget", "unlearn.budget=100"], [("conv2", "fc1", "fc2", "fc3")], ("conv1",)),
        (["unlearn.method=finetune"], [("conv1", "conv2", "fc1", "fc2", "fc3")], ()),
        # of the six pairs of four layers, conv2 is the lower one of three, fc1 of two, fc2 of one
        (["unlearn.selection=critical"], [("conv2", "fc3"), ("conv2", "fc3"), ("fc1", "fc3")], UPPER[:3]),
        (["unlearn.layers=1", "unlearn.sparsity=0", "unlearn.start=reset"], [("fc3",)], UPPER),
        (["unlearn.selection=critical", "unlearn.layers=1"], [("conv2",), ("fc1",), ("fc3",)], UPPER),
        (["unlearn.selection=critical", "unlearn.layers=4"], [("conv2", "fc1", "fc2", "fc3")], ("conv1",)),
    ],
)
def test_layers_as_far_as_they_are_known(settings: list[str], choices: Any, below: Any) -> None:
    found = foresee(RunConfig.from_dict(BASE, settings))
    assert found is not None
    assert (list(found.choices), found.below, found.known) == (choices, below, len(choices) == 1)


def test_the_table_says_what_is_known_of_the_frozen_prefix(tmp_path: Path, shown: Any) -> None:
    space = {"unlearn.selection": ["last", "critical"], "unlearn.layers": [2, 5]}
    lines = said(shown, plan(tmp_path / "s", space))
    ends = [line.split("  2  ")[-1].strip() for line in lines[3:7]]
    assert ends == ["conv1, conv2, fc1", "none: full rounds", "at most conv1, conv2, fc1", "none: full rounds"]


def test_a_ranking_tells_the_layers() -> None:
    """By change per parameter fc2 and conv2 lead, by change in all fc1 does; the input layer comes last."""
    figures = {"conv1": (9, 9), "conv2": (3, 1), "fc1": (1, 5), "fc2": (4, 2), "fc3": (2, 3)}
    ranking = [Sensitivity(layer, mean, total, 0.0) for layer, (mean, total) in figures.items()]

    def chosen(*settings: str) -> Any:
        found = foresee(RunConfig.from_dict(BASE, ["unlearn.selection=critical", *settings]), ranking)
        return found and found.choices

    assert chosen() == (("conv2", "fc2"),)
    assert chosen("unlearn.ranking=sum") == (("fc1", "fc3"),)
    assert chosen("unlearn.ranking=sum", "unlearn.input_layer=true") == (("conv1", "fc1"),)


def test_drawn_layers_are_those_that_the_run_draws() -> None:
    config = RunConfig.from_dict(BASE, ["unlearn.selection=random", "seed=3", "unlearn.draw=1"])
    found = foresee(config)
    assert found is not None
    names = ("conv1", "conv2", "fc1", "fc2", "fc3")
    assert found.choices == (tuple(choose("random", names, 2, [], "conv1", 3, 1)),)


METHODS = [
    *(["unlearn.layers=1"], ["unlearn.method=retrain"], ["unlearn.method=finetune"]),
    ["unlearn.method=federaser", "forget.scenario=client"],
    ["unlearn.selection=budget", "unlearn.budget=100", "unlearn.mask=saliency", "unlearn.saliency=difference"],
]


@pytest.mark.parametrize("settings", METHODS, ids=" ".join)
def test_a_miniature_measures_every_kind_of_round(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_BATCHES", (1,))
    config = RunConfig.from_dict(BASE, settings)
    costs = measure(config, ("fc3",) if settings == ["unlearn.layers=1"] else None)
    assert costs.train.keys() >= {"pretrain", "unlearn"}
    assert min(costs.train.values()) > 0
    assert costs.evaluate["pretrain"] > 0
    if settings == ["unlearn.layers=1"]:  # the output layer alone, above four that are frozen
        assert costs.train["unlearn"] < costs.train["pretrain"] / 2
        assert costs.prefix > 0


def test_a_miniature_of_groups_has_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has two clients, which could not fill five groups."""
    monkeypatch.setattr(estimate, "_BATCHES", (1,))
    config = RunConfig.from_dict(BASE, ["unlearn.method=fedsgt", "forget.scenario=client"])
    assert measure(config, None).train.keys() >= {"pretrain", "sequence-1"}


def test_a_time_is_told_or_why_it_cannot_be(tmp_path: Path, shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_BATCHES", (1,))
    last = said(shown, plan(tmp_path / "s", {"unlearn.layers": [1]}), timed=True)[-1]
    assert last.startswith("About ")
    assert "on one core if nothing else runs" in last
    monkeypatch.setattr(estimate, "_RATE", 1e30)
    last = said(shown, plan(tmp_path / "s", {"unlearn.layers": [1]}), timed=True)[-1]
    assert last.startswith("How long it takes cannot be said: a miniature of it failed: client 0, pretrain round 1")

"""A plan: its table in 80 columns, what it says of the store, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fused_ray.config import RunConfig
from fused_ray.results import schemas
from fused_ray.results.directory import RunDirectory
from fused_ray.results.sweep import estimate
from fused_ray.results.sweep.estimate import Costs, kept, measure, seconds, supposed
from fused_ray.results.sweep.plan import lowest, show_plan
from fused_ray.trials import SweepConfig

BASE = {
    "data": {"limit": 200}, "federation": {"clients": 4}, "pretrain": {"rounds": 3}, "unlearn": {"rounds": 2},
    "engine": {"backend": "local"},
}  # fmt: skip


def plan(place: Path, space: dict[str, Any], **more: Any) -> SweepConfig:
    found = {key: {"grid": values} for key, values in space.items()}
    return SweepConfig.from_dict({"base": BASE, "space": found, "output": {"dir": str(place)}, **more})


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


def test_layers_that_a_ranking_is_supposed_to_choose() -> None:
    def of(*settings: str) -> RunConfig:
        return RunConfig.from_dict(BASE, settings)

    assert supposed(of("unlearn.layers=2")) == ("fc2", "fc3")
    assert supposed(of("unlearn.layers=[conv1, fc3]")) == ("conv1", "fc3")
    assert supposed(of("unlearn.selection=budget", "unlearn.budget=100")) == ("conv2", "fc1", "fc2", "fc3")
    assert lowest(of("unlearn.layers=2")) == "fc2"
    assert lowest(of("unlearn.method=finetune")) == "conv1"


METHODS = [
    *(["unlearn.layers=1"], ["unlearn.method=retrain"], ["unlearn.method=finetune"]),
    ["unlearn.method=federaser", "forget.scenario=client"],
    ["unlearn.selection=budget", "unlearn.budget=100", "unlearn.mask=saliency", "unlearn.saliency=difference"],
]


@pytest.mark.parametrize("settings", METHODS, ids=" ".join)
def test_a_miniature_measures_every_kind_of_round(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_BATCHES", (1,))
    config = RunConfig.from_dict(BASE, settings)
    costs = measure(config)
    assert costs.train.keys() >= {"pretrain", "unlearn"}
    assert min(costs.train.values()) > 0
    assert costs.evaluate["pretrain"] > 0
    if settings == ["unlearn.layers=1"]:  # the output layer alone, above four that are frozen
        assert costs.train["unlearn"] < costs.train["pretrain"] / 2
        assert costs.prefix > 0


def test_a_time_is_told_or_why_it_cannot_be(tmp_path: Path, shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_BATCHES", (1,))
    last = said(shown, plan(tmp_path / "s", {"unlearn.layers": [1]}), timed=True)[-1]
    assert last.startswith("About ")
    assert "on one core if nothing else runs" in last
    monkeypatch.setattr(estimate, "_RATE", 1e30)
    last = said(shown, plan(tmp_path / "s", {"unlearn.layers": [1]}), timed=True)[-1]
    assert last.startswith("How long it takes cannot be said: a miniature of it failed: client 0, pretrain round 1")

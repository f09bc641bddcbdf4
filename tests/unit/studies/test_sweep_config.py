"""A sweep's file: what is wrong in it is one line that names it, and the list of its trials is fixed by the seed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fused_ray import RunConfig, SweepConfig
from fused_ray.errors import ConfigError
from fused_ray.studies.sweeps.config import Dimension

ROOT = Path(__file__).parents[3]
SPACE = {"unlearn.layers": {"grid": [1, "all"]}, "unlearn.sparsity": {"grid": [0.5, 0.9, 0.99]}}


def sweep(space: Any = SPACE, **changes: Any) -> SweepConfig:
    return SweepConfig.from_dict({"space": space, **changes})


# -- what it means


def test_a_grid_is_every_combination_the_last_field_fastest() -> None:
    trials = sweep().trials
    assert [(t.values["unlearn.layers"], t.values["unlearn.sparsity"]) for t in trials] == [
        (1, 0.5), (1, 0.9), (1, 0.99), ("all", 0.5), ("all", 0.9), ("all", 0.99),
    ]  # fmt: skip
    assert [t.number for t in trials] == [0, 1, 2, 3, 4, 5]
    assert trials[5].config is not None
    assert (trials[5].config.unlearn.layers, trials[5].config.unlearn.sparsity) == (5, 0.99)  # LeNet has five


def test_a_preset_lies_under_the_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("federation: {clients: 4}\n")
    (tmp_path / "s.yaml").write_text("base: base.yaml\nspace: {unlearn.start: {grid: [zero, negate]}}\n")
    found = SweepConfig.from_yaml(tmp_path / "s.yaml", ["base.seed=3"], "paper")
    assert found.base == RunConfig.from_dict({}, ["federation.clients=4", "seed=3"], preset="paper")
    starts = [trial.config.adapter_start for trial in found.trials if trial.config]
    assert starts == ["zero", "negate"]
    assert SweepConfig.from_dict({"space": SPACE}, preset="paper").base == RunConfig.from_dict({}, preset="paper")


def test_seeds_are_one_more_grid_and_trials_on_one_model_follow_each_other() -> None:
    space = {"unlearn.sparsity": {"grid": [0.5, 0.9]}, "forget.scenario": {"grid": ["class", "exclusive"]}}
    trials = sweep(space, seeds=[3, 4]).trials
    assert [(t.values["seed"], t.values["forget.scenario"], t.values["unlearn.sparsity"]) for t in trials] == [
        (seed, scenario, sparsity) for seed in (3, 4) for scenario in ("class", "exclusive") for sparsity in (0.5, 0.9)
    ]


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    space = {**SPACE, "unlearn.lr": {"loguniform": [0.01, 1]}, "unlearn.draw": {"choice": [0, 1, 2]}}
    one, again, other = (sweep(space, search="random", samples=40, seed=seed) for seed in (1, 1, 2))
    assert [t.values for t in one.trials] == [t.values for t in again.trials]
    assert [t.values for t in one.trials] != [t.values for t in other.trials]
    assert len(one.trials) == 40
    assert {t.values["unlearn.draw"] for t in one.trials} == {0, 1, 2}
    assert {t.values["unlearn.layers"] for t in one.trials} == {1, "all"}
    assert len({t.values["unlearn.lr"] for t in one.trials}) == 40


def test_a_grid_draws_the_rest_anew_for_each_of_its_points() -> None:
    trials = sweep({**SPACE, "unlearn.lr": {"uniform": [0.1, 0.2]}}, samples=2).trials
    assert len(trials) == 12
    assert len({t.values["unlearn.lr"] for t in trials}) == 12


@given(low=st.floats(1e-9, 1e3), ratio=st.floats(1.001, 1e6), number=st.integers(0, 10**6))
def test_a_draw_stays_in_its_range(low: float, ratio: float, number: int) -> None:
    for kind in ("uniform", "loguniform"):
        found = Dimension.model_validate({kind: [low, low * ratio]}).draw(0, "key", number)
        assert low <= found <= low * ratio
        assert math.isfinite(found)


def test_values_that_do_not_go_together_are_a_trial_without_a_run() -> None:
    space = {
        "unlearn.layers": {"grid": [1, 3]},
        "unlearn.sparsity": {"grid": [0, 0.5]},
        "unlearn.start": {"grid": ["reset"]},
    }
    trials = sweep(space).trials
    assert [t.config is None for t in trials] == [False, False, True, False]
    assert "reset at sparsity 0 would set 3 whole layers to zero" in trials[2].reason


def test_trials_share_models_by_what_training_reads() -> None:
    space = {**SPACE, "unlearn.start": {"grid": ["zero", "reset"]}, "forget.classes": {"grid": [[0], [1]]}}
    config = sweep({**space, "unlearn.sparsity": {"grid": [0.5, 0.9]}})
    runs = [trial.config for trial in config.trials if trial.config]
    assert len({config.model(run).output.dir for run in runs}) == 1  # which class goes shapes no pre-training
    references = [config.reference(run) for run in runs]
    assert len({found.output.dir for found in references if found}) == 2
    model = config.model(runs[0])
    assert model.pretrain_key() == runs[0].pretrain_key()
    assert (model.unlearn.rounds, model.retrain_rounds) == (0, 0)
    run = config.run(config.trials[0])
    assert (run.pretrain.from_, run.retrain_rounds) == (model.output.dir, 0)
    assert run.output.dir == str(Path("runs/sweep/trials/0000").absolute())


def test_a_trial_that_ends_earlier_is_a_run_beside_it() -> None:
    config = sweep({"unlearn.method": {"grid": ["fused", "puf", "federaser", "retrain"]}},
                   base={"forget": {"scenario": "client", "clients": [0]}}, output={"dir": "/s"})  # fmt: skip
    fused, puf, federaser, retrain = config.trials
    earlier = config.shorter(fused, 3)
    assert earlier.output.dir == "/s/audited/0000-r3"
    place = [f"output.dir={config.run(fused).output.dir}", "unlearn.rounds=5"]
    assert RunConfig.from_dict(earlier.model_dump(mode="json", by_alias=True), place) == config.run(fused)
    assert config.shorter(fused, 0).unlearn.rounds == 0
    assert config.shorter(puf, 3).unlearn.rounds == 2  # one round comes before them
    assert (config.shorter(retrain, 3).retrain.rounds, config.shorter(fused, 3).retrain.rounds) == (3, 0)
    for trial, rounds in ((puf, 0), (federaser, 1)):
        with pytest.raises(ConfigError, match=f"no model of {trial.values['unlearn.method']} after round {rounds}"):
            config.shorter(trial, rounds)


def test_a_trial_without_retraining_has_no_reference() -> None:
    config = sweep(base={"retrain": {"rounds": 0}})
    assert config.trials[0].config is not None
    assert config.reference(config.trials[0].config) is None


def test_retraining_is_keyed_by_what_it_reads() -> None:
    def key(*overrides: str) -> str:
        return RunConfig.from_dict({}, overrides).retrain_key()

    assert key() == key(
        "unlearn.layers=1", "engine.backend=local", "retrain.rounds=20", "federation.clients_per_actor=3"
    )
    different = {key(), key("seed=1"), key("retrain.rounds=3"), key("forget.classes=[1]"), key("train.lr=0.3")}
    assert len(different) == 5


def test_a_setting_is_tried_on_every_seed_unless_something_is_drawn() -> None:
    drawn = {**SPACE, "unlearn.lr": {"uniform": [0.1, 0.2]}}
    assert sweep().draws == 1
    assert sweep(seeds=[0, 1, 2]).draws == 3
    assert sweep(drawn, seeds=[0, 1, 2]).draws == 1
    assert sweep(seeds=[0, 1, 2], search="random", samples=9).draws == 1


def test_all_layers_are_counted_where_the_model_is_known() -> None:
    space = {"unlearn.layers": {"grid": ["all", 1]}}
    assert sweep(space).trials[0].config.unlearn.layers == 5
    for model in ({"factory": "mynets:net"}, {"name": "simplevit", "args": {"depth": 2}}):
        with pytest.raises(ConfigError, match="not known before the model is built"):
            sweep(space, base={"model": model})


def test_a_located_sweep_means_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"data.root": {"grid": ["a", "s3://b"]}}
    base = {"data": {"name": "npz", "root": "a"}}
    found = sweep(space, base=base, output={"store": "models"}).located()
    assert found.space["data.root"].grid == (str(tmp_path / "a"), "s3://b")
    assert (found.base.data.root, found.output.store) == (str(tmp_path / "a"), str(tmp_path / "models"))


def test_a_method_that_needs_history_has_a_model_with_history() -> None:
    space = {"unlearn.method": {"grid": ["fused", "federaser"]}}
    config = sweep(space, base={"forget": {"scenario": "client"}})
    fused, federaser = (config.model(t.config) for t in config.trials if t.config)
    assert not fused.pretrain.history
    assert federaser.pretrain.history
    assert fused.output.dir != federaser.output.dir


def test_a_base_may_be_a_path_beside_the_file_and_set_reaches_everywhere(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("federation: {clients: 4}\ndata: {limit: 400}\n")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "space": SPACE}))
    changes = [
        "base.pretrain.rounds=3",
        "space.unlearn.lr={uniform: [0.1, 0.2]}",
        "space.unlearn.sparsity=null",
        "seeds=[4]",
    ]
    config = SweepConfig.from_yaml(tmp_path / "s.yaml", changes)
    assert (config.base.federation.clients, config.base.pretrain.rounds) == (4, 3)
    assert list(config.dimensions) == ["seed", "unlearn.layers", "unlearn.lr"]
    assert SweepConfig.from_dict(yaml.safe_load(config.to_yaml())) == config


def test_the_example_is_the_experiment() -> None:
    config = SweepConfig.from_yaml(ROOT / "examples" / "sweep-fashion-mnist.yaml")
    assert len(config.trials) == 64
    assert all(trial.config for trial in config.trials)
    assert config.base.unlearn.rounds == 5


# -- bad input


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {}}, "space: it is empty"),
        ({"space": {"unlearn.layer": {"grid": [1]}}}, "space.unlearn.layer: there is no such field; did you mean"),
        ({"space": {"sparsity": {"grid": [0.5]}}}, "did you mean unlearn.sparsity?"),
        ({"space": {"engine.backend": {"grid": ["ray"]}}}, "space.engine.backend: this is no dimension"),
        ({"space": {"unlearn.layers": {"grid": []}}}, "name at least one value"),
        ({"space": {"unlearn.layers": {"grid": [1, 1]}}}, "space.unlearn.layers.grid: 1 is there twice"),
        ({"space": {"unlearn.layers": {"grid": [1], "choice": [2]}}}, "unlearn.layers: it has grid and choice"),
        ({"space": {"unlearn.layers": {"range": [1]}}}, "unlearn.layers.range: unknown key; unlearn.layers has grid,"),
        ({"space": {"unlearn.layers": [1, 2]}}, "space.unlearn.layers: say how it varies, as in {grid: [1, 2]}"),
        ({"space": {"unlearn.lr": {"uniform": [2, 1]}}}, "[2, 1] is no range"),
        ({"space": {"unlearn.lr": {"loguniform": [0, 1]}}}, "is no range above 0"),
        ({"space": {"unlearn.layers": {"grid": [1, 6]}}}, "space.unlearn.layers: 6 is more than the 5 layers"),
        ({"space": {"unlearn.start": {"grid": ["nil"]}}}, "space.unlearn.start: unknown start 'nil'"),
        ({"max_trials": 5}, "max_trials: the space has 6 trials, more than the 5 allowed"),
        ({"samples": 2}, "would only repeat its trials"),
        ({"search": "random"}, "samples: say how many trials random may draw"),
        ({"search": "optuna"}, "samples: say how many trials optuna may draw"),
        ({"search": "annealing"}, "search"),
        ({"scheduler": "asha"}, "scheduler: asha takes one objective, not ra, fa, bytes_up_total"),
        ({"objectives": {"speed": "max"}}, "objectives: unknown 'speed'"),
        ({"objectives": {}}, "objectives: name at least one"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] names none, or one twice"),
        ({"seeds": [1], "space": {"seed": {"grid": [1, 2]}}}, "seeds: the space has the dimension seed already"),
        ({"base": {"pretrain": {"from": "runs/x"}}}, "base.pretrain.from"),
        ({"base": {"engine": {"backend": "local"}}, "search": "optuna", "samples": 3}, "optuna and asha need ray"),
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"sampels": 3}, "sampels: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SweepConfig.from_dict({"space": SPACE, **changes})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_file_is_answered_without_torch_and_ray(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"space": {"unlearn.layer": {"grid": [1]}}}))
    program = (
        "import resource, sys\nfrom fused_ray.cli.app import main\n"
        f"try: main(['sweep', {str(tmp_path / 's.yaml')!r}])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, 'ray' in sys.modules)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT)
    outcome, seconds = done.stdout.splitlines()
    assert outcome == "2 False False", done.stderr
    assert float(seconds) < 2
    assert len(done.stderr.splitlines()) == 1
    assert json.dumps("unlearn.layer")[1:-1] in done.stderr

"""A comparison's file: what is wrong in it is one line that names it, and every run it means is checked beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fused_ray import CompareConfig, RunConfig
from fused_ray.config.preset import presets, read_preset
from fused_ray.errors import ConfigError

SALIENCY = {"label": "fused-saliency", "set": {"unlearn.method": "fused", "unlearn.mask": "saliency"}}


def comparison(**changes: Any) -> CompareConfig:
    return CompareConfig.from_dict({"methods": ["fused"], "scenarios": ["class"], **changes})


# -- what it means


def test_cells_are_ordinary_runs_on_one_base_run() -> None:
    config = comparison(methods=["retrain", "fused", SALIENCY], scenarios=["class", "client"], seeds=[0, 7])
    assert [cell.name for cell in config.cells[:4]] == [
        "class-0-retrain", "class-0-fused", "class-0-fused-saliency", "class-7-retrain",
    ]  # fmt: skip
    assert len(config.cells) == 12
    retrain, fused, saliency = config.cells[-3:]
    base = retrain.base
    assert retrain.is_base
    assert (base.unlearn.method, base.forget.scenario, base.seed, base.retrain_rounds) == ("retrain", "client", 7, 20)
    assert not base.pretrain.history
    for cell in (fused, saliency):
        assert not cell.is_base
        assert cell.config is not None
        assert cell.config.pretrain.from_ == base.output.dir
        assert (cell.config.seed, cell.config.forget, cell.config.retrain_rounds) == (7, base.forget, 0)
    assert saliency.config is not None
    assert saliency.config.unlearn.mask == "saliency"


def test_a_method_that_needs_history_makes_the_base_runs_keep_it() -> None:
    assert comparison(methods=["federaser"], scenarios=["client"]).cells[0].base.pretrain.history


def test_a_method_that_cannot_do_a_scenario_is_a_cell_without_a_run() -> None:
    cells = comparison(methods=["federaser", "retrain"], scenarios=["class", "client"]).cells
    assert [cell.config is None for cell in cells] == [True, False, False, False]


def test_retraining_with_settings_of_its_own_is_a_run_of_its_own() -> None:
    longer = {"label": "retrain-40", "set": {"unlearn.method": "retrain", "retrain.rounds": 40}}
    (cell,) = comparison(methods=[longer]).cells
    assert not cell.is_base
    assert cell.config is not None
    assert (cell.config.retrain_rounds, cell.base.retrain_rounds) == (40, 20)


def test_a_scenario_has_settings_of_its_own() -> None:
    two = {"label": "two-classes", "set": {"forget.scenario": "class", "forget.classes": [2, 3]}}
    cells = comparison(scenarios=["class", two]).cells
    assert [cell.base.forget_classes for cell in cells] == [(0,), (2, 3)]


def test_a_files_base_may_be_a_path_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("federation: {clients: 4}\ndata: {limit: 400}\n")
    (tmp_path / "c.yaml").write_text("base: base.yaml\nmethods: [fused]\nscenarios: [class]\n")
    config = CompareConfig.from_yaml(tmp_path / "c.yaml", ["base.pretrain.rounds=3", "seeds=[4]", "audit.shadows=5"])
    assert config.base == RunConfig.from_dict({}, ["federation.clients=4", "data.limit=400", "pretrain.rounds=3"])
    assert (config.seeds, config.audit.shadows) == ((4,), 5)


def test_it_survives_a_trip_through_yaml() -> None:
    config = comparison(methods=["fused", SALIENCY], audit=False, base={"forget": {"owner": 3}})
    assert CompareConfig.from_dict(yaml.safe_load(config.to_yaml())) == config
    assert config.at("/elsewhere").cells[0].base.output.dir == "/elsewhere/bases/class-0"


# -- presets


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", presets("compare"))
def test_presets_are_valid(name: str, quick: bool) -> None:
    assert CompareConfig.from_yaml(None, quick=quick, preset=name).cells


def test_the_papers_preset_is_what_it_says() -> None:
    config = CompareConfig.from_yaml(None, preset="paper-fashion-mnist")
    assert {cell.algorithm for cell in config.cells} == {
        "fused", "retrain", "finetune", "federaser", "eraseclient", "exactfun", "not", "puf",
        "fedquit", "fedmemprune", "hessian-reset", "ridge", "fedosd",
    }  # fmt: skip
    assert {cell.base.forget.scenario for cell in config.cells} == {"class", "client", "sample", "exclusive"}
    assert config.seeds == (300, 301, 302)
    for cell in config.cells:
        assert (cell.base.data.name, cell.base.data.limit, cell.base.data.alpha) == ("fashion-mnist", None, 1.0)
        assert (cell.base.federation.clients, cell.base.pretrain.rounds, cell.base.retrain_rounds) == (50, 20, 20)
        if cell.config is not None and not cell.is_base:
            assert cell.config.unlearn.rounds <= 10
            assert cell.config.exactfun_rounds <= 10


@pytest.mark.parametrize("name", presets("compare"))
@pytest.mark.parametrize(("method", "preset"), [("fused-paper", "paper"), ("fused-deep", "deep")])
def test_methods_named_after_a_runs_preset_are_that_preset(name: str, method: str, preset: str) -> None:
    config = CompareConfig.from_yaml(None, preset=name)
    cell = next(cell for cell in config.cells if cell.method == method)
    assert cell.config is not None
    same = config.base.unlearn.model_dump() | read_preset(preset)["unlearn"]
    assert cell.config.unlearn.model_dump() == same | {"rounds": config.base.unlearn.rounds}


def test_a_preset_lies_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("federation: {clients: 4}\n")
    (tmp_path / "c.yaml").write_text("base: base.yaml\nmethods: [fused]\nscenarios: [sample]\nseeds: [7]\n")
    changes = ["base.pretrain.rounds=3"]
    fields = CompareConfig.from_yaml(tmp_path / "c.yaml", changes, preset="paper")
    assert fields.base == RunConfig.from_dict({}, ["federation.clients=4", "pretrain.rounds=3"], preset="paper")
    assert [cell.name for cell in fields.cells] == ["sample-7-fused"]
    whole = CompareConfig.from_yaml(tmp_path / "c.yaml", changes, preset="paper-fashion-mnist")
    assert [cell.name for cell in whole.cells] == ["sample-7-fused"]
    assert (whole.base.federation.clients, whole.base.pretrain.rounds, whole.base.data.name) == (4, 3, "fashion-mnist")
    assert CompareConfig.from_yaml(tmp_path / "c.yaml", quick=True, preset="paper-fashion-mnist").seeds == (0,)
    (tmp_path / "audit.yaml").write_text("audit: false\n")
    assert not CompareConfig.from_yaml(tmp_path / "audit.yaml", preset="paper-fashion-mnist").audit.enabled


# -- what is wrong


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": []}, "methods: name at least one"),
        ({"scenarios": []}, "scenarios: name at least one"),
        ({"seeds": []}, "seeds: name at least one"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"seeds": [-1]}, "seeds: "),
        ({"methods": ["fusd"]}, "unknown method 'fusd'"),
        ({"scenarios": ["clas"]}, "unknown scenario 'clas'"),
        ({"methods": ["fused", "fused"]}, "'fused' is there twice"),
        ({"methods": [{"label": "a/b", "set": {"unlearn.rounds": 1}}]}, "the label 'a/b'"),
        ({"methods": [{"label": "x", "set": {"unlearn.method": "nope"}}]}, "unknown method 'nope'"),
        ({"methods": [{"label": "x", "set": {"unlearn.foo": 1}}]}, "unlearn.foo: unknown key"),
        ({"methods": [{"label": "x", "set": {"unlearn": {"rounds": 1}}}]}, "the whole section unlearn"),
        ({"methods": [{"label": "x", "set": {"data.limit": 100}}]}, "x cannot set data.limit"),
        ({"methods": [{"label": "x", "set": {"pretrain.rounds": 1}}]}, "x cannot set pretrain.rounds"),
        ({"methods": [{"label": "x", "set": {"seed": 3}}]}, "x cannot set seed"),
        ({"methods": [{"label": "x", "set": {"engine.backend": "local"}}]}, "x cannot set engine.backend"),
        ({"scenarios": [{"label": "x", "set": {"unlearn.method": "not"}}]}, "x cannot set unlearn.method"),
        (
            {"methods": [{"label": "x", "set": {"unlearn.start": "reset", "unlearn.sparsity": 0}}]},
            "methods: x: unlearn.start: reset at sparsity 0",
        ),
        ({"methods": ["federaser"]}, "none of them can do"),
        (
            {
                "scenarios": ["client"],
                "methods": [{"label": "slow", "set": {"unlearn.method": "eraseclient", "train.lr": 0.5}}],
            },
            "methods: slow goes back over pre-training and cannot set train",
        ),
        ({"base": {"unlearn": {"layers": 9}}}, "base.unlearn.layers: 9 is more than"),
        ({"base": {"trian": {"lr": 1}}}, "base.trian: unknown key"),
        ({"base": {"retrain": {"rounds": 0}}}, "retrain.rounds"),
        ({"base": {"pretrain": {"from": "runs/x"}}}, "base.pretrain.from"),
        ({"base": "nowhere.yaml"}, "cannot read the config file nowhere.yaml"),
        ({"base": {"forget": {"classes": [3]}}, "scenarios": ["client"]}, "base.forget.classes: the scenario"),
        ({"audit": 3}, "audit: write true, false or"),
        ({"audit": {"shadows": -1}}, "audit.shadows"),
        ({"audit": {"klom": 5}}, "audit: swap, klom and ruli train each method anew, which a study does not"),
        ({"method": ["fused"]}, "method: unknown key"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        comparison(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quick_needs_its_section_and_presets_their_names(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("methods: [fused]\nscenarios: [class]\n")
    with pytest.raises(ConfigError, match="no section `quick`"):
        CompareConfig.from_yaml(tmp_path / "c.yaml", quick=True)
    with pytest.raises(ConfigError, match="there is no preset 'nope'; choose one of deep, paper, cifar10-resnet18"):
        CompareConfig.from_yaml(None, preset="nope")
    with pytest.raises(ConfigError, match=r"^the preset paper: methods: field required"):
        CompareConfig.from_yaml(None, preset="paper")


def test_two_cells_in_one_folder_are_refused() -> None:
    """What labels are joined by may be in them, too."""
    slow = {"label": "2-finetune", "set": {"unlearn.method": "finetune", "train.lr": 0.5}}
    other = {"label": "class-1", "set": {"forget.classes": [5]}}
    with pytest.raises(ConfigError, match=r"would both be kept in class-1-2-finetune; choose other labels"):
        comparison(methods=["finetune", slow], scenarios=["class", other], seeds=[1, 2])

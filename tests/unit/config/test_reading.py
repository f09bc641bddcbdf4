"""Configurations from files, presets and overrides: what wins, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fused_ray.config import RunConfig
from fused_ray.config.preset import over, presets, read_preset
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError
from tests.unit.config.fields import CHANGES, FIELDS, NEEDS, attempt, make, refusal

SECTIONS = sorted({key.partition(".")[0] for key in FIELDS if "." in key})


# --- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_keys_are_named_with_those_that_exist(section: str) -> None:
    message = refusal({section: {"nonsense": 1}})
    assert message.startswith(f"{section}.nonsense: unknown key")
    for key in FIELDS:
        if key.startswith(f"{section}."):
            assert key.partition(".")[2] in message


def test_unknown_sections_are_named() -> None:
    message = refusal({"nonsense": {}})
    assert message.startswith("nonsense: unknown key")
    assert all(section in message for section in SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("value", [3, "word", [1]])
def test_a_section_is_a_mapping(section: str, value: Any) -> None:
    assert refusal({section: value}).startswith(f"{section}: ")


def test_all_mistakes_are_told_at_once_with_their_source() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({"train": {"lr": -1}, "seed": "x"}, source="some.yaml")
    message = str(caught.value)
    assert message.startswith("some.yaml: ")
    assert "train.lr: " in message
    assert "seed: " in message
    assert "(given: -1)" in message


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        RunConfig().seed = 3  # type: ignore[misc]


# --- overrides -------------------------------------------------------------------------------------------


def test_overrides_win_over_the_file_and_the_last_wins() -> None:
    config = RunConfig.from_dict({"train": {"lr": 0.5, "momentum": 0.1}}, ["train.lr=0.1", "train.lr=5e-4"])
    assert (config.train.lr, config.train.momentum) == (5e-4, 0.1)


def test_overrides_leave_the_given_values_alone() -> None:
    values: dict[str, Any] = {"train": {"lr": 0.5}}
    RunConfig.from_dict(values, ["train.lr=0.1", "seed=2"])
    assert values == {"train": {"lr": 0.5}}


def test_images_are_normalised_by_published_constants_or_one_half_or_as_told() -> None:
    assert RunConfig().data.constants == ((0.286,), (0.353,))
    assert make("data.name=cifar10").data.constants == ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
    assert make("data.name=npz", "data.root=a").data.constants == ((0.5,), (0.5,))
    assert make("data.mean=1e-1").data.constants == ((0.1,), (0.353,))  # which YAML 1.1 takes for a word
    assert make("data.name=cifar10", "data.std=[1, 0.5, 0.25]").data.constants[1] == (1.0, 0.5, 0.25)
    keys = {make(*changes).retrain_key() for changes in ((), ("data.mean=0.3",), ("data.std=0.3",))}
    assert len(keys) == 3


def test_overrides_are_yaml() -> None:
    assert make("unlearn.layers=[fc1, fc2]").unlearn.layers == ("fc1", "fc2")
    assert make("unlearn.layers=fc1", "forget.classes=3").unlearn.layers == ("fc1",)
    assert make("unlearn.layers=2").unlearn.layers == 2
    assert make("train={lr: 0.5}").train.lr == 0.5
    assert make("data.limit=null").data.limit is None
    assert make(" output.dir = a=b").output.dir == "a=b"


@pytest.mark.parametrize("wrong", ["seed", "=1", "train.=1", ".lr=1", "seed=[", "seed={a: 1, a: 2}", ""])
def test_an_override_that_cannot_be_read_is_quoted(wrong: str) -> None:
    assert repr(wrong) in refusal({}, wrong)


def test_an_override_below_a_value_is_refused() -> None:
    assert "seed is a value, not a section" in refusal({"seed": 1}, "seed.x=1")


# --- files -----------------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from([*CHANGES, *NEEDS.values()])))
@settings(max_examples=60, deadline=None)
def test_yaml_gives_back_an_equal_config(changes: set[str]) -> None:
    try:
        config = make(*sorted(changes))
    except ConfigError:  # some do not go together
        assume(False)
    text = config.to_yaml()
    again = RunConfig.from_dict(yaml.safe_load(text))
    assert again == config
    assert again.to_yaml() == text
    assert again.pretrain_key() == config.pretrain_key()
    assert hash(again) == hash(config)


def test_a_file_is_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 3\ntrain:\n  lr: 0.5\n", encoding="utf-8")
    config = RunConfig.from_yaml(path, ["seed=4"])
    assert (config.seed, config.train.lr) == (4, 0.5)
    assert RunConfig.from_yaml(None, ["seed=4"]).seed == 4
    path.write_text("# all defaults\n", encoding="utf-8")
    assert RunConfig.from_yaml(path) == RunConfig()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"seed: [", id="no YAML"),
        pytest.param(b"\xff\xfe\xff", id="no UTF-8"),
        pytest.param(b"- 1\n- 2\n", id="a list"),
        pytest.param(b"word", id="a word"),
        pytest.param(b"seed: 2020-01-01", id="a date"),
        pytest.param(b"seed: &x [*x]", id="a circle"),
        pytest.param(b"? [1, 2]\n: 3", id="a list for a key"),
        pytest.param(b"seed: !!python/object/apply:os.getcwd []", id="a program"),
        pytest.param(b"trian: {lr: 1}", id="an unknown section"),
        pytest.param(b"train: {lr: -1}", id="a wrong value"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some-file.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"some-file\.yaml") as caught:
        RunConfig.from_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "some-file.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            read_yaml(path)


# --- presets ---------------------------------------------------------------------------------------------


def test_the_papers_preset_is_what_it_says() -> None:
    paper = RunConfig.from_dict({}, preset="paper")
    assert (paper.unlearn.selection, paper.unlearn.layers, paper.unlearn.ranking) == ("critical", 2, "mean")
    assert (paper.adapter_mask, paper.adapter_start, paper.adapter_lr) == ("random", "zero", 10 * paper.train.lr)
    assert read_preset("paper").keys() == {"unlearn"}  # so it also fits a model that is there already


def test_the_deep_preset_is_what_it_says() -> None:
    deep = RunConfig.from_dict({}, preset="deep")
    assert (deep.unlearn.layers, deep.unlearn.input_layer, deep.unlearn.start_input) == (3, True, True)
    assert (deep.adapter_mask, deep.unlearn.saliency, deep.gradient_rounds) == ("saliency", "margin", 2)
    assert (deep.adapter_start, deep.adapter_density, deep.unlearn.heal) == ("negate", pytest.approx(0.05), 1)
    flipped = RunConfig.from_dict({"forget": {"scenario": "client"}}, preset="deep")
    assert flipped.adapter_start == "zero"
    assert flipped.keeps_all  # whatever a gradient would say
    assert not deep.keeps_all


def test_the_example_that_judges_the_deep_preset_says_what_it_says() -> None:
    example = read_yaml(Path(__file__).parents[3] / "examples" / "compare-deep.yaml")
    (deep,) = [method for method in example["methods"] if isinstance(method, dict)]
    assert deep["set"] == {f"unlearn.{name}": value for name, value in read_preset("deep")["unlearn"].items()}


@pytest.mark.parametrize("name", presets("run"))
def test_presets_are_valid_and_say_where_they_differ(name: str) -> None:
    assert RunConfig.from_yaml(None, preset=name) != RunConfig()
    assert RunConfig.from_dict(read_preset(name)) == RunConfig.from_dict({}, preset=name)


def test_a_file_wins_over_a_preset_and_an_override_over_both(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 3\nunlearn: {start: reset, layers: [fc3]}\n", encoding="utf-8")
    config = RunConfig.from_yaml(path, ["unlearn.layers=1", "federation.clients=7"], "paper")
    assert (config.seed, config.unlearn.start, config.unlearn.layers, config.federation.clients) == (3, "reset", 1, 7)
    assert (config.unlearn.mask, config.unlearn.selection) == ("random", "critical")


def test_a_preset_is_merged_by_sections_alone() -> None:
    assert over({"a": {"x": 1, "y": [1, 2]}, "b": 3}, {"a": {"y": [4]}, "c": 5}) == {
        "a": {"x": 1, "y": [4]}, "b": 3, "c": 5,
    }  # fmt: skip
    assert over({"a": {"x": 1}}, {"a": None}) == {"a": {"x": 1}}  # all of its keys are commented out


def test_what_is_wrong_above_a_preset_is_said_as_ever() -> None:
    for values in ({"train": 3}, {"train": {"lr": -1}}):
        with pytest.raises(ConfigError, match="train"):
            RunConfig.from_dict(values, preset="paper")
    with pytest.raises(ConfigError, match=r"there is no preset 'nope'; choose one of deep, paper$"):
        RunConfig.from_yaml(None, preset="nope")
    with pytest.raises(ConfigError, match="there is no preset 'paper-fashion-mnist'"):
        RunConfig.from_yaml(None, preset="paper-fashion-mnist")


# --- whatever one writes ---------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


JUNK = st.recursive(
    SCALARS | st.sampled_from([2**70, "auto", "fc1", "class", "\ud800", -(10**30)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


NAMES = st.sampled_from([*SECTIONS, "seed"]) | st.text(max_size=5)


KEYS = st.sampled_from([key.rpartition(".")[2] for key in FIELDS]) | st.text(max_size=5)


JUNKYARD = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(st.dictionaries(NAMES, JUNK | st.dictionaries(KEYS, JUNK, max_size=5), max_size=5))
@example({"": {"": {}}})
@example({"pretrain": {"from": "a", "from_": "b"}})
@JUNKYARD
def test_junk_is_refused_in_one_line_or_valid(values: dict[str, Any]) -> None:
    message = attempt(values)
    assert message != "no message"
    assert "\n" not in message


@given(st.text(max_size=12), st.text(max_size=12), JUNK)
@JUNKYARD
def test_junk_in_overrides_too(key: str, text: str, value: Any) -> None:
    for override in (f"{key}={text}", f"seed.{key}={text}", f"train.lr={text}", text, f"train={json.dumps(value)}"):
        assert "\n" not in attempt({}, override)


@pytest.mark.parametrize(
    ("values", "overrides"),
    [
        pytest.param({"seed": b"1"}, (), id="bytes"),
        pytest.param({("a", "b"): 1}, (), id="a tuple for a key"),
        pytest.param([1], ("seed=1",), id="a list"),
        pytest.param({}, ("seed=" + "[" * 5000,), id="deep"),
    ],
)
def test_what_is_no_yaml_is_refused_too(values: Any, overrides: tuple[str, ...]) -> None:
    assert attempt(values, *overrides)


def test_a_path_is_taken_as_its_text() -> None:
    assert RunConfig.from_dict({"output": {"dir": Path("runs/here")}}).output.dir == "runs/here"

"""The configuration refuses whatever is wrong in one line that names the key, and survives a trip through YAML."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fused_ray.config import RunConfig, describe, registry
from fused_ray.config.methods import METHODS
from fused_ray.config.preset import over, presets, read_preset
from fused_ray.config.yaml_text import read_yaml
from fused_ray.errors import ConfigError

FIELDS = {key: (kind, json.loads(default), doc) for key, kind, default, doc in describe()}
SECTIONS = sorted({key.partition(".")[0] for key in FIELDS if "." in key})

# Per field another valid value, as in --set; None where there is only one.
OTHER: dict[str, str | None] = {
    "seed": "1",
    "data.name": "fashion-mnist",
    "data.args": None,  # of a part of another package alone
    "data.root": "/somewhere",
    "data.image_column": None,  # of Parquet files alone
    "data.label_column": None,
    "data.mean": "0.25",
    "data.std": "[0.125]",
    "data.partition": "iid",
    "data.partition_args": None,  # of a part of another package alone
    "data.partition_file": None,  # of a partition from a file alone
    "data.client_column": None,  # the same
    "data.alpha": "0.1",
    "data.classes_per_client": "3",
    "data.min_examples": "5",
    "data.limit": "5000",
    "data.augment": "crop",
    "model.name": "simplevit",
    "model.factory": "package.module:function",
    "model.args": "{depth: 2}",
    "model.weights": "weights.safetensors",
    "federation.clients": "50",
    "federation.clients_per_actor": "5",
    "federation.actor_cpus": "0.5",
    "federation.actor_gpus": "0.25",
    "federation.aggregate": "median",
    "federation.aggregate_args": None,  # of an aggregate with settings alone
    "federation.server": "fedavgm",
    "federation.server_args": None,  # of a server with settings alone
    "train.lr": "5e-3",  # which YAML 1.1 takes for a word
    "train.momentum": "0",
    "train.weight_decay": "0.0",
    "train.batch_size": "64",
    "train.local_epochs": "2",
    "train.local_steps": "5",
    "train.schedule": "cosine",
    "train.schedule_args": None,  # of a schedule with settings alone
    "train.warmup": "2",
    "train.optimiser": "adam",
    "train.optimiser_args": None,  # of an optimiser with settings alone
    "train.proximal": "0.1",
    "pretrain.rounds": "3",
    "pretrain.history": "true",
    "pretrain.from": "runs/earlier",
    "forget.scenario": "exclusive",
    "forget.args": None,  # of a part of another package alone
    "forget.classes": "[2, 3]",
    "forget.clients": "[3, 4]",
    "forget.share": "0.3",
    "forget.poison": "false",
    "forget.examples": "[7, 3]",
    "forget.examples_share": "0.25",
    "forget.target": "3",
    "forget.trigger": "3",
    "forget.owner": "4",
    "forget.overlap": "0.5",
    "unlearn.method": "finetune",
    "unlearn.args": None,  # of a method with settings alone
    "unlearn.rounds": "0",
    "unlearn.layers": "[fc3, conv2]",
    "unlearn.selection": "last",
    "unlearn.ranking": "sum",
    "unlearn.input_layer": "true",
    "unlearn.adapter": "lora",
    "unlearn.sparsity": "0.5",
    "unlearn.budget": "85",
    "unlearn.mask": "random",
    "unlearn.saliency": "forget",
    "unlearn.draw": "1",
    "unlearn.start": "reset",
    "unlearn.rank": "4",
    "unlearn.alpha": "8",
    "unlearn.lr": "0.3",
    "unlearn.weight_decay": "0.001",
    "unlearn.wire": "int8",
    "federaser.interval": "1",
    "federaser.ratio": "0.2",
    "eraseclient.lr": "0.1",
    "eraseclient.momentum": "0",
    "eraseclient.clip": "1",
    "eraseclient.batch_size": "64",
    "eraseclient.epochs": "2",
    "eraseclient.stop_accuracy": "0.1",
    "exactfun.step": "0.0125",
    "exactfun.rounds": "4",
    "puf.variant": "special",
    "puf.eta": "3",
    "retrain.rounds": "0",
    "audit.enabled": "false",
    "audit.probes": "true",
    "audit.shadows": "2",
    "audit.retrained": "3",
    "audit.relearn_steps": "10",
    "audit.relearn_repeats": "1",
    "audit.metrics": "[agreement]",
    "engine.backend": "local",
    "engine.address": "10.0.0.1:6379",
    "engine.numerics": "strict",
    "engine.max_attempts": "1",
    "engine.min_nodes": "2",
    "engine.wait_nodes": "30",
    "engine.max_lost_nodes": "0",
    "engine.start_timeout": "5",
    "engine.client_timeout": "0.5",
    "engine.aggregate_memory_mb": "1",
    "engine.prefix_cache_mb": "0",
    "output.dir": "'runs/a: #1 é'",
    "output.plots": "false",
    "output.callbacks": None,  # all of them come from elsewhere
}
CHANGES = [f"{key}={value}" for key, value in OTHER.items() if value is not None]
# Fields that the default scenario refuses, and a scenario that takes them.
NEEDS = {"forget.clients": "forget.scenario=client", "forget.share": "forget.scenario=client"}


def make(*overrides: str) -> RunConfig:
    return RunConfig.from_dict({}, overrides)


def refusal(values: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(values, overrides)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def nested(key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def value_of(config: RunConfig, key: str) -> Any:
    value: Any = config.model_dump(mode="json", by_alias=True)
    for part in key.split("."):
        value = value[part]
    return value


# --- every field -----------------------------------------------------------------------------------------


def test_the_list_of_other_values_is_complete() -> None:
    assert list(OTHER) == list(FIELDS)


@pytest.mark.parametrize("key", FIELDS)
def test_every_field_is_described(key: str) -> None:
    kind, default, doc = FIELDS[key]
    assert kind
    assert "\n" not in doc
    assert doc.endswith(".")
    assert value_of(RunConfig(), key) == default


@pytest.mark.parametrize("change", CHANGES)
def test_every_field_can_be_set(change: str) -> None:
    key = change.partition("=")[0]
    before = [NEEDS[key]] if key in NEEDS else []
    plain, config = make(*before), make(*before, change)
    assert value_of(config, key) != FIELDS[key][1]
    others = [other for other in FIELDS if other != key]
    assert [value_of(config, other) for other in others] == [value_of(plain, other) for other in others]


ANY_WORD = {"data.root", "model.weights", "pretrain.from", "engine.address", "output.dir"}


@pytest.mark.parametrize("key", FIELDS)
def test_every_field_refuses_values_of_another_kind(key: str) -> None:
    mapping = [] if key == "model.args" else [{"a": {}}]
    for value in (*mapping, [[]], *([] if key in ANY_WORD else ["\N{SNOWMAN}"])):
        assert key in refusal(nested(key, value))


@pytest.mark.parametrize("key", [key for key, (kind, *_) in FIELDS.items() if "int" in kind or "float" in kind])
def test_numbers_are_not_taken_from_booleans(key: str) -> None:
    assert refusal(nested(key, True)).startswith(key)


@pytest.mark.parametrize("key", [key for key, (kind, *_) in FIELDS.items() if "float" in kind])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(key: str, value: float) -> None:
    assert refusal(nested(key, value)).startswith(key)


@pytest.mark.parametrize("key", [key for key, (kind, *_) in FIELDS.items() if "int" in kind])
def test_counts_are_whole_and_not_words(key: str) -> None:
    assert refusal(nested(key, 1.5)).startswith(key)
    assert key in refusal(nested(key, "1"))


@pytest.mark.parametrize(
    "wrong",
    [
        *("seed=-1", "seed=9223372036854775808"),
        *("data.name=imagenet", "data.partition=even", "data.alpha=0", "data.alpha=1e7", "data.min_examples=0"),
        *("data.classes_per_client=0", "data.limit=0", "data.limit=9"),
        *(
            "data.mean=[]",
            "data.mean=127.5",
            "data.mean=-0.1",
            "data.std=[]",
            "data.std=64",
            "data.std=0",
            "data.std=-1",
        ),
        *("model.name=lenet6", "model.factory=net", "model.factory=a.b:", "model.args=3", "unlearn.wire=int4"),
        *("federation.clients=0", "federation.clients=1001", "federation.clients_per_actor=0"),
        *("federation.actor_cpus=0", "federation.actor_gpus=-1", "federation.actor_gpus=few"),
        *("train.lr=0", "train.lr=1001", "train.momentum=1", "train.momentum=-0.1", "train.weight_decay=-1"),
        *("train.batch_size=0", "train.local_epochs=0", "train.local_steps=0", "train.schedule=sine"),
        *("train.warmup=-1", "train.optimiser=sdg", "train.proximal=-1"),
        *("federation.aggregate=average", "federation.server=fedavg", "engine.aggregate_memory_mb=0"),
        *("pretrain.rounds=0", "pretrain.rounds=100001"),
        *("forget.scenario=all", "forget.classes=[]", "forget.classes=[10]", "forget.classes=[-1]"),
        *("forget.classes=[1, 1]", "forget.classes=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", "forget.clients=[20]"),
        *("forget.clients=[0]", "forget.share=0", "forget.share=1.1", "forget.share=0.2", "forget.poison=perhaps"),
        *("forget.examples_share=0", "forget.examples_share=1.1", "forget.target=-1", "forget.trigger=0"),
        *("forget.owner=-1", "forget.overlap=0", "forget.overlap=1"),
        *("unlearn.method=none", "unlearn.layers=0", "unlearn.layers=6", "unlearn.layers=[]", "unlearn.layers=[fc9]"),
        *("unlearn.layers=[fc1, fc1]", "unlearn.selection=best", "unlearn.ranking=max", "unlearn.adapter=dense"),
        *("unlearn.sparsity=1", "unlearn.sparsity=-0.1", "unlearn.budget=0", "unlearn.mask=largest"),
        *("unlearn.saliency=both", "unlearn.draw=-1", "unlearn.start=one", "unlearn.rank=0", "unlearn.alpha=0"),
        *("unlearn.lr=0", "unlearn.weight_decay=2", "unlearn.rounds=-1", "unlearn.rounds=100001"),
        *("federaser.interval=0", "federaser.ratio=0", "federaser.ratio=1.1"),
        *("eraseclient.lr=0", "eraseclient.momentum=1", "eraseclient.clip=0", "eraseclient.batch_size=0"),
        *("eraseclient.epochs=0", "eraseclient.stop_accuracy=-0.1", "eraseclient.stop_accuracy=1.1"),
        *("exactfun.step=0", "exactfun.step=1.1", "exactfun.rounds=0", "puf.variant=other", "puf.eta=0"),
        "retrain.rounds=-1",
        *("engine.backend=mpi", "engine.numerics=ignore", "engine.max_attempts=0", "engine.start_timeout=0"),
        *("engine.min_nodes=0", "engine.wait_nodes=0", "engine.max_lost_nodes=-1"),
        *("engine.client_timeout=0", "engine.prefix_cache_mb=-1"),
        "output.plots=maybe",
    ],
)
def test_values_out_of_range_are_refused(wrong: str) -> None:
    assert wrong.partition("=")[0] in refusal({}, wrong)


# The key that is named, and what does not go together.
CLASHES = """
train.local_epochs     train.local_steps=5 train.local_epochs=2
train.warmup           train.warmup=20
train.schedule_args    train.schedule_args.every=2
train.optimiser_args   train.optimiser_args.beta1=0.5
federation.aggregate_args    federation.aggregate_args.share=0.1
federation.server_args federation.server_args.lr=1
train.schedule_args.every    train.schedule=step train.schedule_args.every=0
train.optimiser_args.beta1   train.optimiser=adam train.optimiser_args.beta1=1
federation.server_args.tau   federation.server=fedadam federation.server_args.tau=0
federation.aggregate_args.share  federation.aggregate=trimmed federation.aggregate_args.share=0.5
federation.server      federation.server=fedadam forget.scenario=client unlearn.method=federaser
federation.aggregate   federation.aggregate=median forget.scenario=client unlearn.method=eraseclient
federation.server      federation.server=fedavgm unlearn.method=exactfun
data.mean              data.mean=[0.1,0.2,0.3]
data.std               data.std=[0.1,0.2]
data.mean              data.name=cifar10 data.mean=[0.1,0.2]
data.classes_per_client data.partition=pathological data.classes_per_client=11
federation.clients     data.limit=199
federation.clients     forget.scenario=exclusive federation.clients=1
federation.clients     forget.scenario=client federation.clients=1
forget.classes         forget.scenario=exclusive forget.classes=[1]
forget.classes         forget.scenario=client forget.classes=[0]
forget.classes         forget.scenario=sample forget.classes=[0]
forget.owner           forget.scenario=exclusive forget.owner=20
forget.clients         forget.clients=[3]
forget.clients         forget.scenario=exclusive forget.clients=[3]
forget.clients         forget.scenario=client forget.clients=[]
forget.clients         forget.scenario=client forget.clients=[20]
forget.clients         forget.scenario=client forget.clients=[-1]
forget.clients         forget.scenario=client forget.clients=[anna]
forget.clients         forget.scenario=client forget.clients=[3,'3'] data.partition=file data.partition_file=who.csv
data.client_column     data.client_column=writer
data.client_column     data.client_column=writer data.name=parquet data.root=here
data.partition_file    data.client_column=writer data.partition=file
forget.clients         forget.scenario=client forget.clients=[3,3]
forget.clients         forget.scenario=client forget.clients=[0,1,2] federation.clients=3
forget.clients         forget.scenario=sample forget.clients=[]
forget.clients         forget.scenario=sample forget.clients=[20]
forget.clients         forget.scenario=sample forget.clients=[3,3]
forget.share           forget.share=0.2
forget.share           forget.scenario=exclusive forget.share=0.2
forget.share           forget.scenario=client forget.clients=[3] forget.share=0.2
forget.share           forget.scenario=client forget.share=1
forget.share           forget.scenario=client forget.share=0.9 federation.clients=5
forget.share           forget.scenario=sample forget.clients=[3] forget.share=0.2
forget.target          forget.scenario=sample forget.target=10
forget.trigger         forget.scenario=sample forget.trigger=29
forget.examples        forget.scenario=sample forget.examples=[3,3]
forget.examples        forget.scenario=sample forget.examples=[3,-1]
forget.examples        forget.scenario=sample forget.examples=[10000]
forget.examples        forget.scenario=sample forget.examples=[500] data.limit=500
forget.examples        forget.scenario=sample forget.examples=[99999999999999999999]
forget.examples        forget.scenario=sample forget.examples=[0,1,2,3,4,5,6,7,8,9] data.limit=10 federation.clients=1
forget.examples        forget.scenario=sample forget.examples=[3] forget.clients=[1]
forget.examples        forget.scenario=sample forget.examples=[3] forget.share=0.1
forget.examples_share  forget.scenario=sample forget.examples_share=1 forget.share=1
retrain.rounds         unlearn.method=retrain retrain.rounds=0
unlearn.start          unlearn.start=reset unlearn.sparsity=0 unlearn.layers=2
unlearn.start          unlearn.start=reset unlearn.sparsity=0 unlearn.layers=[fc1,fc2]
unlearn.start          unlearn.start=reset unlearn.sparsity=0 unlearn.layers=2 unlearn.mask=saliency
unlearn.start          unlearn.start=reset unlearn.sparsity=0 unlearn.layers=[fc2]
unlearn.start          unlearn.start=reset unlearn.sparsity=0 unlearn.layers=[conv1,conv2] unlearn.mask=saliency
unlearn.start          unlearn.start=reset unlearn.sparsity=0 unlearn.layers=[layer2.0.bn1] model.name=resnet18
unlearn.start          unlearn.adapter=lora unlearn.start=reset
unlearn.start          unlearn.adapter=lora unlearn.start=negate
unlearn.adapter        unlearn.adapter=lora unlearn.mask=saliency
unlearn.adapter        unlearn.adapter=lora unlearn.budget=85
unlearn.budget         unlearn.selection=budget
unlearn.layers         unlearn.selection=budget unlearn.budget=85 unlearn.layers=[fc3]
unlearn.layers         model.name=resnet18 unlearn.layers=22
unlearn.layers         model.name=simplevit unlearn.layers=[fc3]
"""


@pytest.mark.parametrize("clash", CLASHES.strip().splitlines())
def test_values_that_do_not_go_together_are_refused(clash: str) -> None:
    key, *overrides = clash.split()
    assert refusal({}, *overrides).startswith(f"{key}: ")


def test_values_at_the_edge_are_taken() -> None:
    make("data.limit=200")
    make("federation.clients=1000")
    make("unlearn.layers=5")
    make("unlearn.sparsity=0")
    make("unlearn.start=reset", "unlearn.sparsity=0", "unlearn.layers=1")
    make("unlearn.start=reset", "unlearn.sparsity=0", "unlearn.layers=[conv1, fc3]")
    make("unlearn.start=reset", "unlearn.sparsity=0", "unlearn.layers=[layer2.0.conv1]", "model.name=resnet18")
    make("unlearn.start=reset", "unlearn.sparsity=0", "unlearn.layers=[blocks.0.linear1]", "model.name=simplevit")
    make("unlearn.start=reset", "unlearn.sparsity=0", "unlearn.layers=2", "unlearn.budget=85")
    make(f"seed={2**63 - 1}")
    make("data.mean=0", "data.std=1")
    make("data.name=npz", "data.root=a", "data.mean=[0.1, 0.2]")  # how many channels there are is not known yet
    make("forget.scenario=client", "forget.share=0.89", "federation.clients=5")
    make("forget.scenario=sample", "forget.target=9", "forget.trigger=28", "forget.examples=[9999, 0]")
    make("forget.scenario=sample", "forget.share=1")
    make("forget.scenario=sample", "forget.examples_share=1")
    make("forget.target=99", "forget.trigger=99", "forget.examples=[3, 3]")  # of no concern to this scenario


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scenario", ["class", "client", "sample", "exclusive"])
def test_a_method_is_taken_for_the_scenarios_that_it_can_do(method: str, scenario: str) -> None:
    able = METHODS[method].scenarios
    message = attempt({}, f"forget.scenario={scenario}", f"unlearn.method={method}")
    assert (message == "") == (scenario in able)
    if message:
        assert message.startswith("unlearn.method: ")
        assert all(name in message for name in (method, *able))


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
    with pytest.raises(ConfigError, match=r"there is no preset 'nope'; choose one of paper$"):
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


def attempt(values: Any, *overrides: str) -> str:
    """The message with which a configuration is refused, empty if it is valid."""
    try:
        RunConfig.from_dict(values, overrides).pretrain_key()
    except ConfigError as error:
        return str(error) or "no message"
    return ""


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


# --- what is derived -------------------------------------------------------------------------------------

# What pre-training reads in every scenario, and what it reads besides: who holds what, and what poison says.
READ = {
    "seed",
    *(key for key in FIELDS if key.startswith(("data.", "model.", "train."))),
    *("federation.clients", "federation.aggregate", "federation.server", "pretrain.rounds"),
} - {"data.root"}
POISONED = {"forget.clients", "forget.share", "forget.poison"}
READ_BESIDES: dict[tuple[str, ...], set[str]] = {
    ("forget.scenario=class",): set(),
    ("forget.scenario=exclusive",): {"forget.classes", "forget.owner", "forget.overlap"},
    ("forget.scenario=client",): POISONED,
    ("forget.scenario=sample",): POISONED
    | {"forget.examples", "forget.examples_share", "forget.target", "forget.trigger"},
    ("forget.scenario=client", "forget.poison=false"): set(),
    ("forget.scenario=sample", "forget.poison=false"): set(),
}


@pytest.mark.parametrize("change", [change for change in CHANGES if not change.startswith("forget.scenario")])
@pytest.mark.parametrize("scenario", READ_BESIDES, ids=" ".join)
def test_pretrain_key_changes_with_what_pretraining_reads(scenario: tuple[str, ...], change: str) -> None:
    key = change.partition("=")[0]
    if attempt({}, *scenario, change):
        assert key in ("forget.classes", "forget.clients", "forget.share")  # which some scenarios refuse
        return
    changed = make(*scenario, change).pretrain_key() != make(*scenario).pretrain_key()
    assert changed == (key in READ | READ_BESIDES[scenario])


def test_keys_see_a_parts_settings_in_full_and_leave_defaults_out() -> None:
    def keys(*fields: str) -> tuple[str, str]:
        config = make(*fields)
        return config.pretrain_key(), config.retrain_key()

    adam = keys("train.optimiser=adam")
    assert keys("train.optimiser=adam", "train.optimiser_args={beta1: 0.9}") == adam
    others = [keys("train.optimiser=adam", "train.optimiser_args={beta1: 0.8}"), keys("federation.server=fedadam")]
    others += [keys("federation.server=fedadam", "federation.server_args={tau: 1}"), keys()]
    assert len({key for found in (adam, *others) for key in found}) == 10
    assert keys("engine.aggregate_memory_mb=1") == keys()


def test_pretrain_key_changes_with_the_scenario_where_it_shapes_the_data() -> None:
    keys = [make(*scenario).pretrain_key() for scenario in READ_BESIDES]
    plain, exclusive, clients, samples, *unpoisoned = keys
    assert len({plain, exclusive, clients, samples}) == 4
    assert unpoisoned == [plain, plain]


def test_pretrain_key_changes_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "other", dataclasses.replace(registry.MODELS["lenet"]))
    assert make("model.name=other").pretrain_key() != RunConfig().pretrain_key()


def test_pretrain_key_tells_own_data_apart_by_their_place() -> None:
    def key(name: str, root: str) -> str:
        return make(f"data.name={name}", f"data.root={root}").pretrain_key()

    assert key("mnist", "/a") == key("mnist", "/b")
    assert len({key(name, root) for name in ("parquet", "npz") for root in ("/a", "/b")}) == 4


def test_keys_see_what_files_hold_and_not_where_they_lie(tmp_path: Path) -> None:
    def keys(root: str) -> tuple[str, str, str]:
        files = (f"data.root={tmp_path / root}", f"data.partition_file={tmp_path / root / 'who.npy'}")
        config = make("data.name=parquet", "data.partition=file", *files)
        return config.pretrain_key(), config.retrain_key(), config.model_copy(update={"seed": 1}).retrain_key()

    for root in ("a", "b"):
        (tmp_path / root / "data").mkdir(parents=True)
        (tmp_path / root / "data" / "train-0.parquet").write_bytes(b"first")
        (tmp_path / root / "who.npy").write_bytes(b"0 1")
    seen = [keys("a")]
    assert keys("b") == seen[0]
    (tmp_path / "b" / "data" / "train-0.parquet").write_bytes(b"other")
    seen.append(keys("b"))
    (tmp_path / "b" / "who.npy").write_bytes(b"1 0 ")
    seen.append(keys("b"))
    (tmp_path / "b" / "default" / "train").mkdir(parents=True)
    (tmp_path / "b" / "default" / "train" / "0000.parquet").write_bytes(b"more")
    seen.append(keys("b"))
    assert len({key for found in seen for key in found}) == 12


def test_a_located_configuration_means_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = make("data.name=parquet", "data.root=shapes", "model.weights=~/w.safetensors", "pretrain.from=runs/run")
    found = own.located()
    assert found.data.root == str(tmp_path / "shapes")
    assert found.model.weights == str(Path.home() / "w.safetensors")
    assert found.pretrain.from_ == str(tmp_path / "runs" / "run")
    assert found.located() == found
    store = make("data.name=parquet", "data.root=s3://bucket/shapes")
    assert store.located() == store


def test_pretrain_key_knows_defaults() -> None:
    """Writing a default out is no change."""
    exclusive = make("forget.scenario=exclusive")
    assert make("forget.scenario=exclusive", "forget.classes=[1, 0]").pretrain_key() == exclusive.pretrain_key()
    for scenario, share in (("client", 0.6), ("sample", 0.4)):
        drawn = make(f"forget.scenario={scenario}")
        assert make(f"forget.scenario={scenario}", f"forget.share={share}").pretrain_key() == drawn.pretrain_key()
        assert make(f"forget.scenario={scenario}", "forget.share=0.5").pretrain_key() != drawn.pretrain_key()
    assert RunConfig.from_dict({"train": {"lr": 0.02}}).pretrain_key() == RunConfig().pretrain_key()
    for set_, mean, std in (("fashion-mnist-mini", 0.286, [0.353]), ("npz", [0.5, 0.5, 0.5], 0.5)):
        plain = make(f"data.name={set_}", "data.root=a")
        written = make(f"data.name={set_}", "data.root=a", f"data.mean={mean}", f"data.std={std}")
        assert (written.pretrain_key(), written.retrain_key()) == (plain.pretrain_key(), plain.retrain_key())


def test_defaults_that_depend_on_other_fields() -> None:
    assert RunConfig().forget_classes == (0,)
    assert make("forget.scenario=exclusive").forget_classes == (1, 0)
    assert make("forget.classes=[3, 4]").forget_classes == (3, 4)
    assert make("pretrain.rounds=7").retrain_rounds == 7
    assert make("pretrain.rounds=7", "retrain.rounds=0").retrain_rounds == 0
    assert make("train.lr=0.1").adapter_lr == 0.25
    assert make("train.lr=0.1", "unlearn.lr=0.3").adapter_lr == 0.3
    assert make("unlearn.selection=budget", "unlearn.budget=85").adapter_lr == RunConfig().train.lr
    plain, lora = RunConfig(), make("unlearn.adapter=lora")
    assert (plain.adapter_lr, lora.adapter_lr) == (2.5 * plain.train.lr, lora.train.lr)
    assert (plain.adapter_mask, plain.adapter_start, plain.adapter_density) == ("saliency", "negate", 1 - 0.9)
    flipped, clean = make("forget.scenario=client"), make("forget.scenario=client", "forget.poison=false")
    assert (flipped.adapter_start, flipped.adapter_sparsity) == ("zero", 0.5)
    assert (clean.adapter_start, clean.adapter_sparsity) == ("negate", 0.9)
    assert make("unlearn.start=zero").adapter_sparsity == 0.5
    assert make("unlearn.start=reset").adapter_sparsity == 0.9
    assert make("unlearn.start=zero", "unlearn.sparsity=0").adapter_sparsity == 0
    assert (lora.adapter_mask, lora.adapter_start) == (None, "zero")
    chosen = make("unlearn.mask=random", "unlearn.start=reset")
    assert (chosen.adapter_mask, chosen.adapter_start) == ("random", "reset")
    assert make("forget.scenario=sample").forget_classes == ()
    assert [make(f"forget.scenario={name}").forget_share for name in ("client", "sample")] == [0.6, 0.4]
    assert [make(f"puf.variant={name}").puf_eta for name in ("regular", "special")] == [20, 2]
    assert make("puf.eta=3").puf_eta == 3
    rounds = [make("pretrain.rounds=7", f"exactfun.rounds={n}").exactfun_rounds for n in ("null", 3, 9)]
    assert rounds == [7, 3, 7]


def test_history_is_kept_where_it_was_asked_for_or_a_method_needs_it() -> None:
    assert make("pretrain.history=true").keeps_history
    for name, method in METHODS.items():
        assert make("forget.scenario=client", f"unlearn.method={name}").keeps_history == method.needs_history


@pytest.mark.parametrize(
    ("share", "clients", "drawn"),
    [("null", 50, 20), (0.5, 5, 3), (0.3, 5, 2), (0.29, 5, 1), (0.01, 50, 1), (0.29, 100, 29), (1, 7, 7)],
)
def test_the_nearest_whole_number_of_clients_is_drawn_and_at_least_one(share: Any, clients: int, drawn: int) -> None:
    config = make("forget.scenario=sample", f"forget.share={share}", f"federation.clients={clients}")
    assert config.forget_count == drawn

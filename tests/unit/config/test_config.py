"""The configuration refuses whatever is wrong in one line that names the key."""

from __future__ import annotations

from typing import Any

import pytest

from fused_ray.config import RunConfig
from fused_ray.config.parts.methods import METHODS
from tests.unit.config.fields import CHANGES, FIELDS, NEEDS, OTHER, attempt, make, refusal


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


ANY_WORD = {"data.root", "model.weights", "pretrain.from", "deployment.trace", "engine.address", "output.dir"}


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
        *(
            "unlearn.saliency=both",
            "unlearn.heal=1.1",
            "unlearn.draw=-1",
            "unlearn.start=one",
            "unlearn.rank=0",
            "unlearn.alpha=0",
        ),
        *("unlearn.alpha=0", "unlearn.lr=0", "unlearn.weight_decay=2", "unlearn.rounds=-1", "unlearn.rounds=100001"),
        *("federaser.interval=0", "federaser.ratio=0", "federaser.ratio=1.1"),
        *("eraseclient.lr=0", "eraseclient.momentum=1", "eraseclient.clip=0", "eraseclient.batch_size=0"),
        *("eraseclient.epochs=0", "eraseclient.stop_accuracy=-0.1", "eraseclient.stop_accuracy=1.1"),
        *("exactfun.step=0", "exactfun.step=1.1", "exactfun.rounds=0", "puf.variant=other", "puf.eta=0"),
        *("fedquit.lr=0", "fedquit.epochs=0", "fedquit.batch_size=0", "fedquit.teacher=highest"),
        *("fedmemprune.share=0", "fedmemprune.share=1.1", "fedmemprune.vectors=ones"),
        *("hessian_reset.share=0", "hessian_reset.diagonal=full", "hessian_reset.lr=0", "hessian_reset.momentum=1"),
        *("hessian_reset.batch_size=0", "ridge.penalty=-1"),
        *("fedosd.rounds=0", "fedosd.lr=0", "fedosd.recovery_lr=0"),
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
unlearn.adapter        unlearn.adapter=lora unlearn.heal=0.5
unlearn.adapter        unlearn.adapter=lora unlearn.start_input=true
unlearn.start          unlearn.layers=[conv1] unlearn.start=negate unlearn.start_input=true unlearn.sparsity=0
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

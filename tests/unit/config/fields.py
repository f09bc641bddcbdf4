"""Every field with another value, and configurations made of a few of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fused_ray.config import RunConfig, describe
from fused_ray.errors import ConfigError

FIELDS = {key: (kind, json.loads(default), doc) for key, kind, default, doc in describe()}


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
    "federation.actor_labels": "{zone: a}",
    "federation.participation": "0.5",
    "federation.sampling": "weighted",
    "federation.on_failure": "skip",
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
    "pretrain.participation": "3",
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
    "unlearn.participation": "0.25",
    "unlearn.retain": "0.5",
    "unlearn.retain_by": "herding",
    "unlearn.layers": "[fc3, conv2]",
    "unlearn.selection": "last",
    "unlearn.selection_args": None,  # of a selection of another package alone
    "unlearn.ranking": "sum",
    "unlearn.input_layer": "true",
    "unlearn.adapter": "lora",
    "unlearn.adapter_args": None,  # of a kind of another package alone
    "unlearn.sparsity": "0.5",
    "unlearn.budget": "85",
    "unlearn.mask": "random",
    "unlearn.mask_args": None,  # of a rule of another package alone
    "unlearn.saliency": "forget",
    "unlearn.heal": "0.5",
    "unlearn.draw": "1",
    "unlearn.start": "reset",
    "unlearn.start_input": "true",
    "unlearn.start_args": None,  # of a start of another package alone
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
    "fedquit.lr": "0.001",
    "fedquit.epochs": "2",
    "fedquit.batch_size": "16",
    "fedquit.teacher": "flat",
    "fedmemprune.share": "0.3",
    "fedmemprune.vectors": "zero",
    "hessian_reset.share": "0.3",
    "hessian_reset.diagonal": "exact",
    "hessian_reset.lr": "0.1",
    "hessian_reset.momentum": "0",
    "hessian_reset.batch_size": "64",
    "ridge.penalty": "10",
    "fedosd.rounds": "2",
    "fedosd.lr": "0.1",
    "fedosd.recovery_lr": "0.01",
    "fedup.share": "0.3",
    "fedup.lr": "0.01",
    "fedup.batch_size": "20",
    "fedup.epochs": "10",
    "fedsgt.groups": "7",
    "fedsgt.sequences": "2",
    "fedsgt.spread": "2",
    "fedsgt.share": "0.5",
    "fedsgt.rounds": "1",
    "fedsgt.lr": "0.01",
    "retrain.rounds": "0",
    "retrain.participation": "0.1",
    "deployment.profile": "phones",
    "deployment.participation": "available",
    "deployment.trace": "phones.parquet",
    "deployment.ms_per_sample": "20",
    "deployment.teraflops": "{uniform: [0.5, 2]}",
    "deployment.train_factor": "2.5",
    "deployment.down_mbps": "{lognormal: [20, 1]}",
    "deployment.up_mbps": "4.5",
    "deployment.latency_s": "0.05",
    "deployment.server_mb_s": "500",
    "deployment.server_s": "1",
    "deployment.availability": "daily",
    "deployment.on_s": "60",
    "deployment.off_s": "90",
    "deployment.daily_share": "0.25",
    "deployment.over_selection": "1.5",
    "deployment.dropout": "0.1",
    "deployment.deadline_s": "600",
    "deployment.min_share": "0.5",
    "deployment.max_wait_s": None,  # with deadline_s alone
    "audit.enabled": "false",
    "audit.probes": "true",
    "audit.shadows": "2",
    "audit.retrained": "3",
    "audit.relearn_steps": "10",
    "audit.relearn_repeats": "1",
    "audit.metrics": "[agreement]",
    "audit.swap": None,  # of the scenario sample alone
    "audit.klom": "3",
    "audit.ruli": None,  # of the scenario sample alone
    "engine.backend": "local",
    "engine.address": "10.0.0.1:6379",
    "engine.numerics": "strict",
    "engine.max_attempts": "1",
    "engine.min_nodes": "2",
    "engine.wait_nodes": "30",
    "engine.autoscale": "true",
    "engine.max_lost_nodes": "0",
    "engine.start_timeout": "5",
    "engine.client_timeout": "0.5",
    "engine.aggregate_memory_mb": "1",
    "engine.prefix_cache_mb": "0",
    "output.dir": "'runs/a: #1 é'",
    "output.plots": "false",
    "output.report": "false",
    "output.clients": "none",
    "output.clients_sample": None,  # of output.clients=sample alone
    "output.callbacks": None,  # all of them come from elsewhere
    "output.trackers": "[tensorboard]",
}


CHANGES = [f"{key}={value}" for key, value in OTHER.items() if value is not None]


# Fields that the default scenario refuses, and a scenario that takes them.
NEEDS = {"forget.clients": "forget.scenario=client", "forget.share": "forget.scenario=client"}
NEEDS |= {key: "deployment.profile=phones" for key in OTHER if key.startswith("deployment.") and key[11:] != "profile"}
NEEDS |= dict.fromkeys(("deployment.on_s", "deployment.off_s"), "deployment={profile: phones, availability: cycle}")
NEEDS["deployment.daily_share"] = "deployment={profile: phones, availability: daily}"
NEEDS |= {
    f"deployment.{name}": "deployment={profile: phones, participation: available}"
    for name in ("over_selection", "dropout", "deadline_s", "min_share")
}


def make(*overrides: str) -> RunConfig:
    return RunConfig.from_dict({}, overrides)


def refusal(values: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(values, overrides)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def attempt(values: Any, *overrides: str) -> str:
    """The message with which a configuration is refused, empty if it is valid."""
    try:
        RunConfig.from_dict(values, overrides).pretrain_key()
    except ConfigError as error:
        return str(error) or "no message"
    return ""

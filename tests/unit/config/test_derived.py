"""What is derived from a configuration: keys of models, places, and defaults that depend on other fields."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fused_ray.config import RunConfig
from fused_ray.config.parts.methods import METHODS
from fused_ray.config.parts.models import MODELS
from tests.unit.config.fields import CHANGES, FIELDS, NEEDS, attempt, make

# --- what is derived -------------------------------------------------------------------------------------

# What pre-training reads in every scenario, and what it reads besides: who holds what, and what poison says.
READ = {
    "seed",
    *(key for key in FIELDS if key.startswith(("data.", "model.", "train."))),
    *("federation.clients", "federation.aggregate", "federation.server", "federation.participation"),
    "federation.on_failure",
    *("pretrain.rounds", "pretrain.participation"),
    *(f"deployment.{name}" for name in ("participation", "over_selection", "dropout", "deadline_s", "min_share")),
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
    before = (*scenario, NEEDS[key]) if key.startswith("deployment.") and key in NEEDS else scenario
    if attempt({}, *before, change):
        assert key in ("forget.classes", "forget.clients", "forget.share")  # which some scenarios refuse
        return
    changed = make(*before, change).pretrain_key() != make(*before).pretrain_key()
    assert changed == (key in READ | READ_BESIDES[scenario])


@pytest.mark.parametrize("change", [change for change in CHANGES if change.startswith("deployment.")])
def test_keys_see_all_of_a_deployment_that_decides_who_counts(change: str) -> None:
    """And nothing of one that does not, whose clock changes no bit."""
    name, value = change.removeprefix("deployment.").split("=", 1)
    availability = {"on_s": "cycle", "off_s": "cycle", "daily_share": "daily"}.get(name, "always")
    for participation in ("available", "everybody"):
        if name in ("over_selection", "dropout", "deadline_s", "min_share") and participation == "everybody":
            continue
        before = f"deployment={{profile: datacentre, participation: {participation}, availability: {availability}}}"
        plain, changed = make(before), make(before, f"deployment.{name}={value}")
        decides = participation == "available" if name != "participation" else participation == "everybody"
        assert (plain.pretrain_key() != changed.pretrain_key()) == decides
        assert (plain.retrain_key() != changed.retrain_key()) == decides


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


def test_keys_see_who_takes_part_and_only_where_somebody_is_absent() -> None:
    def keys(*fields: str) -> tuple[str, str]:
        config = make(*fields)
        return config.pretrain_key(), config.retrain_key()

    (trained, retrained), half = keys(), keys("federation.participation=0.5")
    assert keys("federation.sampling=weighted", "retrain.participation=1") == (trained, retrained)
    assert keys("unlearn.participation=0.5") == (trained, retrained)
    assert keys("federation.participation=0.5", "retrain.participation=1") == (half[0], retrained)
    assert keys("federation.participation=0.5", "pretrain.participation=1.0") == (trained, half[1])
    assert keys("pretrain.participation=0.5", "retrain.participation=0.5") == half
    weighted = keys("federation.participation=0.5", "federation.sampling=weighted")
    assert len({trained, retrained, *half, *weighted}) == 6


def test_pretrain_key_changes_with_the_scenario_where_it_shapes_the_data() -> None:
    keys = [make(*scenario).pretrain_key() for scenario in READ_BESIDES]
    plain, exclusive, clients, samples, *unpoisoned = keys
    assert len({plain, exclusive, clients, samples}) == 4
    assert unpoisoned == [plain, plain]


def test_pretrain_key_changes_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "other", dataclasses.replace(MODELS["lenet"]))
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

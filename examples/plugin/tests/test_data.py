"""A task of another package that is not images: data set, partition, scenario and model, from run to restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_ray_plugin.text import documents, sources

from fused_ray import CompareConfig, FusedRayError, RunConfig, compare, load_comparison, load_run, run, types
from fused_ray.api import DataSet, Forgotten, Loaded, Partitioning, Request, Section
from fused_ray.config.validation import nested
from fused_ray.core.state import state_hash
from fused_ray.runs.execute import prepared
from fused_ray.runs.export import apply_adapter, restore_base
from fused_ray.storage.files import read_state

HERE = "fused_ray_plugin.text"
WORDS = ("vacuous", "damaged", "not forgotten", "shallow", "forgotten")
TASK = (
    *(f"data.name={HERE}.documents:DATASET", "data.args.authors=6", "data.args.train=300"),
    *(f"data.partition={HERE}.sources:PARTITION", f"forget.scenario={HERE}.author:SCENARIO", "forget.args.author=2"),
    *(f"model.factory={HERE}.model:two_layers", "federation.clients=4", "train.lr=0.1"),
    *("pretrain.rounds=6", "retrain.rounds=6", "unlearn.rounds=2"),
    *("audit.relearn_steps=5", "audit.relearn_repeats=1", "output.plots=none", "engine.backend=local"),
)


def config(*fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*TASK, *fields])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "fused"
    run(config("audit.probes=true", f"output.dir={path}"))
    return path


def test_it_is_a_run_like_any_other(finished: Path) -> None:
    found = load_run(finished)
    result = found.result
    assert result["scenario"] == f"{HERE}.author:SCENARIO"
    assert result["data"]["shape"] == [120]
    assert (result["data"]["mean"], result["data"]["std"]) == ([0.0], [1.0])
    assert result["data"]["class_names"] == list(documents.TOPICS)
    assert result["layers"]["chosen"] == ["0", "2"]
    before, retrained = result["metrics"]["before"], result["metrics"]["retrained"]
    assert before["fa"] > retrained["fa"] + 0.3  # the author's own words are known to who has seen them
    assert retrained["ra"] > 0.5
    assert result["verdict"] in set(WORDS) - {"vacuous"}


def test_the_adapter_goes_on_and_comes_off(finished: Path, tmp_path: Path) -> None:
    hashes = load_run(finished).result["hash"]
    assert apply_adapter(finished, tmp_path / "after.safetensors") == hashes["unlearned"]
    assert state_hash(read_state(tmp_path / "after.safetensors")) == hashes["unlearned"] != hashes["base"]
    assert restore_base(finished, None) == hashes["base"] == hashes["restored"]


def test_who_holds_what_and_what_goes() -> None:
    data, scenario = prepared(config())
    source, author = data.columns["source"], data.columns["author"]
    held = [set(source[part].tolist()) for part in scenario.held]
    assert sum(map(len, held)) == len(set().union(*held)) == len(np.unique(source))
    gone = np.concatenate([scenario.forgotten(client) for client in range(4)])
    assert sorted(gone.tolist()) == np.flatnonzero(author == 2).tolist()
    assert len(data.test_labels) == 150 + len(gone)
    fa = scenario.views["fa"]
    assert np.array_equal(data.test_images[fa.indices], data.train_images[scenario.shown])
    assert np.array_equal(fa.labels, data.train_labels[scenario.shown])


def test_sources_by_hand() -> None:
    column = np.array([7, 3, 7, 3, 9, 9])
    found = sources.split(np.zeros(6), 3, 0, {"source": column}, column="source")
    assert [part.tolist() for part in found] == [[1, 3], [0, 2], [4, 5]]


def test_a_limit_takes_the_columns_along() -> None:
    whole, _ = prepared(config())
    data, scenario = prepared(config("data.limit=200"))
    assert np.array_equal(data.columns["author"], whole.columns["author"][data.train_rows])
    gone = np.concatenate([scenario.forgotten(client) for client in range(4)])
    assert sorted(gone.tolist()) == np.flatnonzero(data.columns["author"] == 2).tolist()


def test_inputs_are_taken_as_they_are() -> None:
    from fused_ray.core.workspace import Workspace

    settings = config()
    data, scenario = prepared(settings)
    kept = data.train_images.copy()
    x = Workspace(settings, data, scenario).images("train", np.arange(5))
    assert np.array_equal(x.numpy(), data.train_images[:5])
    moved = config("data.mean=0.25", "data.std=0.5")
    data, scenario = prepared(moved)
    x = Workspace(moved, data, scenario).images("train", np.arange(5))
    assert np.array_equal(x.numpy(), (kept[:5] - np.float32(0.25)) / np.float32(0.5))
    assert np.array_equal(data.train_images, kept)


def test_a_comparison_of_methods(tmp_path: Path) -> None:
    base = nested({}, [field for field in TASK if not field.startswith(("forget.", "audit."))])
    author = {"forget.scenario": f"{HERE}.author:SCENARIO", "forget.args": {"author": 2}}
    values: dict[str, Any] = {
        "base": base,
        "methods": ["finetune", "not", "federaser", "retrain"],
        "scenarios": [{"label": "author", "set": author}],
        "audit": {"shadows": 1, "relearn_steps": 5, "relearn_repeats": 1},
        "output": {"dir": str(tmp_path / "compared")},
    }
    compare(CompareConfig.from_dict(values))
    found = load_comparison(tmp_path / "compared")
    status = {row["method"]: row["status"] for row in found.rows}
    assert all(row["verdict"] in WORDS for row in found.rows if row["status"] == "done")
    assert status == {"finetune": "done", "not": "done", "federaser": "unsupported", "retrain": "done"}
    report = "\n".join(path.read_text() for path in (tmp_path / "compared").glob("*.md"))
    assert "author: forgetting all documents of one author" in report


KEYED = ("data.args.authors=7", "data.args.words=100", "data.partition_args.column=author", "forget.args.author=1")


@pytest.mark.parametrize("field", KEYED)
def test_keys_cover_parts_and_their_settings(field: str) -> None:
    assert config(field).pretrain_key() != config().pretrain_key()
    assert config(field).retrain_key() != config().retrain_key()
    assert config(field).data.partition == config().data.partition


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["data.args.author=3"], "data.args.author: unknown key; did you mean authors?"),
        (["data.args.words=many"], "data.args.words: "),
        (["data.partition_args.colum=x"], "data.partition_args.colum: unknown key; did you mean column?"),
        (["forget.args.author=me"], "forget.args.author: "),
        (["data.name=documentz", "data.args={}"], "data.name: unknown data set 'documentz'"),
        (["data.name=fused_ray_plugin.text.documents:TOPICS"], "is of type tuple, not a fused_ray.api.DataSet"),
        (["data.partition=fused_ray_plugin.text.sources:split"], "not a fused_ray.api.Partitioning"),
        (["forget.scenario=fused_ray_plugin.text.none:SCENARIO"], "cannot import fused_ray_plugin.text.none"),
        (["forget.scenario=author"], "forget.scenario: unknown scenario 'author'"),
        (["forget.classes=[1]"], "forget.classes: "),
        (["data.root=/tmp"], "data.root: "),
        (["data.partition=iid"], "data.partition_args: iid has no settings of its own; leave column out"),
        (["model.factory=null"], "model.name: lenet takes images, and the inputs of"),
        (["model.factory=null", "model.name=two-layer"], "model.name: unknown model 'two-layer'"),
        (["data.augment=flip"], "data.augment: the inputs of"),
        (["forget.args={}", "forget.scenario=sample"], "no images to carry a trigger; set it to false"),
        (["unlearn.method=federaser"], "cannot do the scenario"),
    ],
)
def test_what_is_wrong_with_a_part_is_one_line(fields: list[str], said: str) -> None:
    with pytest.raises(FusedRayError) as caught:
        config("data.partition_args.column=source", *fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scenario_of_ours_on_such_data() -> None:
    for scenario in ("class", "client", "exclusive"):
        data, found = prepared(config("forget.args={}", f"forget.scenario={scenario}", "data.min_examples=1"))
        assert sum(len(found.forgotten(client)) for client in range(4)) > 0
        assert data.shape == (120,)
    sample = prepared(config("forget.args={}", "forget.scenario=sample", "forget.poison=false"))[1]
    assert len(sample.shown) == sum(len(sample.forgotten(client)) for client in range(4))


# --- parts that break their contract, in this very file --------------------------------------------------

BAGS, TOPICS = np.ones((40, 3), np.float32), np.arange(40) % 2


class Which(Section):
    case: str
    """What is wrong."""


def load(seed: int, case: str) -> Any:
    inputs: Any = {"uint8": BAGS.astype(np.uint8), "float64": BAGS.astype(float), "flat": BAGS[:, 0]}.get(case, BAGS)
    labels: Any = {"short": TOPICS[:-1], "words": TOPICS.astype(str), "negative": TOPICS - 1}.get(case, TOPICS)
    tests = {"other shape": BAGS[:, :2], "nan": BAGS * np.nan, "empty": BAGS[:0]}.get(case, BAGS)
    columns = {"author": TOPICS[:3]} if case == "column" else {}
    names = ("one",) if case == "names" else ()
    if case == "raises":
        raise OSError("no such disk")
    test_labels = TOPICS[: len(tests)]
    return None if case == "nothing" else Loaded(inputs, labels, tests, test_labels, names, columns)


def split(labels: Any, clients: int, seed: int, columns: Any, case: str) -> Any:
    parts = np.array_split(np.arange(len(labels)), clients)
    return {
        "fewer": parts[:-1],
        "twice": [*parts[:-1], parts[0]],
        "missing": [parts[0][1:], *parts[1:]],
        "beyond": [parts[0] + len(labels), *parts[1:]],
        "small": [np.concatenate(parts[:-1]), *parts[:0], *[parts[-1][:0]] * (clients - 2), parts[-1]],
        "floats": [part / 2 for part in parts],
        "unordered": [part[::-1] for part in parts],
    }[case]


def forget(settings: Any, data: Any, who: Any) -> Any:
    case, kept = settings.scenario_options.case, [part.copy() for part in who.parts]
    everything = types.TestView(np.arange(len(data.test_labels)), data.test_labels)
    half = [kept[0][1:], *kept[1:]]
    return {
        "nothing": None,
        "fewer": Forgotten(tuple(kept[1:])),
        "others": Forgotten((kept[1], *kept[1:])),
        "half": Forgotten(tuple(half)),
        "labels": Forgotten((kept[0][:0], *kept[1:]), train_labels=1 - data.train_labels),
        "classes": Forgotten((kept[0][:0], *kept[1:]), {"fa": everything}, data.train_labels + 5),
        "view": Forgotten((kept[0][:0], *kept[1:]), {"xa": everything}),
        "beyond": Forgotten((kept[0][:0], *kept[1:]), {"fa": types.TestView(np.array([99999]), np.array([0]))}),
        "none": Forgotten(tuple(kept)),
        "all": Forgotten(tuple(part[:0] for part in kept)),
        "good": Forgotten((kept[0][:0], *kept[1:]), {"fa": everything}, 1 - data.train_labels),
    }[case]


FLAWED = DataSet(load, images=False, section=Which)
PICTURES = DataSet(load, section=Which)
SPLIT = Partitioning(split, Which)
CLIENTS = Request(forget, like="client", section=Which)
CLASSES = Request(forget, like="class", section=Which)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """This file as a module that can be imported by name."""
    import sys

    monkeypatch.setitem(sys.modules, "flawed_parts", sys.modules[__name__])
    return "flawed_parts"


def refusal(here: str, *fields: str) -> str:
    small = ("federation.clients=4", "model.factory=fused_ray_plugin.text.model:two_layers", "data.min_examples=2")
    with pytest.raises(FusedRayError) as caught:
        prepared(RunConfig.from_dict({}, [*small, *(field.replace("HERE", here) for field in fields)]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("uint8", "train_inputs: uint8 [40, 3], not float32 [n, ...]"),
        ("float64", "train_inputs: float64 [40, 3], not float32 [n, ...]"),
        ("flat", "train_inputs: float32 [40], not float32 [n, ...]"),
        ("short", "there are 40 train_inputs, but 39 train_labels"),
        ("words", "train_labels: <U21 [40], not whole numbers [n]"),
        ("negative", "train_labels: -1 is no class; there are 1, counted from 0"),
        ("names", "train_labels: 1 is no class; there are 1, counted from 0"),
        ("other shape", "training inputs are [3], test inputs [2]"),
        ("nan", "test_inputs: row 0 is not finite"),
        ("empty", "the test set is empty"),
        ("column", "the column author is [3], not one value per training example"),
        ("raises", "cannot be loaded: OSError: no such disk"),
        ("nothing", "loads NoneType, not fused_ray.api.Loaded"),
    ],
)
def test_data_that_are_none(here: str, case: str, said: str) -> None:
    assert said in refusal(here, "data.name=HERE:FLAWED", f"data.args.case={case}")


def test_images_are_said_to_be_none(here: str) -> None:
    said = refusal(here, "data.name=HERE:PICTURES", "data.args.case=good")
    assert "float32 [40, 3], not uint8 [n, channels, height, width]; say images=False" in said


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("fewer", "gives the examples of 3 clients, not of 4 (federation.clients)"),
        ("twice", "does not hold each of the 40 examples exactly once"),
        ("missing", "does not hold each of the 40 examples exactly once"),
        ("beyond", "does not hold each of the 40 examples exactly once"),
        ("small", "client 1 would hold 0 examples, fewer than data.min_examples = 2; change data.partition_args"),
        ("floats", "gives client 0 float64 [10], not a vector of indices"),
        ("other", "fails: KeyError: 'other'"),
    ],
)
def test_a_partition_that_is_none(here: str, case: str, said: str) -> None:
    fields = ("data.name=HERE:FLAWED", "data.args.case=good", "data.partition=HERE:SPLIT")
    assert said in (found := refusal(here, *fields, f"data.partition_args.case={case}"))
    assert f"data.partition: {here}:SPLIT" in found


@pytest.mark.parametrize(
    ("part", "case", "said"),
    [
        ("CLIENTS", "nothing", "returns NoneType, not fused_ray.api.Forgotten"),
        ("CLIENTS", "fewer", "says what 3 clients keep, not 4"),
        ("CLIENTS", "others", "lets client 0 keep examples that it does not hold"),
        ("CLIENTS", "half", "is like client, but client 0 keeps 9 of its 10 examples"),
        ("CLIENTS", "labels", "changes labels, so it must say the test view fa"),
        ("CLIENTS", "classes", "has train_labels from 5 to 6, not 0 to 1"),
        ("CLIENTS", "view", "has a test view xa; there are ra, fa and ca"),
        ("CLIENTS", "beyond", "has a test view fa of other examples than the 40 of the test set"),
        ("CLIENTS", "none", "there is nothing to forget"),
        ("CLIENTS", "all", "nothing would be kept"),
        ("CLIENTS", "other", "fails: KeyError: 'other'"),
        ("CLASSES", "half", "is like class, but examples of class 0 stay"),
    ],
)
def test_a_scenario_that_is_none(here: str, part: str, case: str, said: str) -> None:
    fields = ("data.name=HERE:FLAWED", "data.args.case=good", "data.partition=HERE:SPLIT")
    unordered = "data.partition_args.case=unordered"
    assert said in refusal(here, *fields, unordered, f"forget.scenario=HERE:{part}", f"forget.args.case={case}")


def test_a_scenario_may_change_labels(here: str) -> None:
    fields = ("data.name=flawed_parts:FLAWED", "data.args.case=good", "data.partition=iid", "federation.clients=4")
    scenario = (f"forget.scenario={here}:CLIENTS", "forget.args.case=good")
    settings = RunConfig.from_dict({}, [*fields, *scenario, f"model.factory={HERE}.model:two_layers"])
    data, found = prepared(settings)
    assert settings.kind == "client"
    assert found.poisoned.tolist() == list(range(40))
    assert np.array_equal(found.train_labels, 1 - data.train_labels)
    assert found.clients("forgotten") == [0]
    assert found.real(len(data.test_labels)) == 40


@pytest.mark.parametrize("group", ["datasets", "partitions", "scenarios", "models"])
def test_names_of_an_installed_package(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = {
        "datasets": ("documents", f"{HERE}.documents:DATASET", ["data.name=documents"]),
        "partitions": ("sources", f"{HERE}.sources:PARTITION", ["data.partition=sources"]),
        "scenarios": ("author", f"{HERE}.author:SCENARIO", ["forget.scenario=author"]),
        "models": ("two-layers", f"{HERE}.model:two_layers", ["model.factory=null", "model.name=two-layers"]),
    }
    name, value, fields = where[group]
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FusedRayError, match=f"unknown .* '{name}'"):
        config(*fields)
    package = tmp_path / f"named_{group}-1.dist-info"  # it is installed while this process goes on
    package.mkdir()
    (package / "METADATA").write_text(f"Name: named_{group}\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[fused_ray.{group}]\n{name} = {value}\n")
    found = config(*fields)
    found.check_parts()
    if group == "models":
        from fused_ray.models import build

        assert found.model.entry == value
        assert [tuple(p.shape) for p in build(found.model, (120,), 4).parameters()] == [(32, 120), (32,), (4, 32), (4,)]
    else:
        assert prepared(found)[1].partition_sha256 == prepared(config())[1].partition_sha256

"""What an adapter is made of, from another package: formulas by hand, and runs that go on, come off and are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fused_ray_plugin.adapters import every, scales, shrink

from fused_ray import FusedRayError, RunConfig, load_run, resume, run
from fused_ray.api import Candidates, Interrupted
from fused_ray.core.adapter import attached
from fused_ray.runs.export import apply_adapter, restore_base

HERE = "fused_ray_plugin.adapters"
SMALL = (
    *("data.limit=300", "federation.clients=4", "pretrain.rounds=2", "unlearn.rounds=2", "retrain.rounds=0"),
    *("output.plots=none", "audit.enabled=false", "engine.backend=local"),
)
SCALES = (f"unlearn.adapter={HERE}.scales:KIND", "unlearn.layers=[conv2, fc3]", "unlearn.lr=0.5")
SHRUNK = (
    *(f"unlearn.selection={HERE}.every:SELECTION", f"unlearn.mask={HERE}.magnitude:MASK", "unlearn.budget=600"),
    *(f"unlearn.start={HERE}.shrink:START", "unlearn.start_args.share=0.75"),
)
KINDS = {"scales": SCALES, "shrunk": SHRUNK}


def config(path: Path, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*SMALL, f"output.dir={path}", *fields])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, fields in KINDS.items():
        run(config(folder / name, *fields))
    return {name: folder / name for name in KINDS}


# -- by hand


def test_a_scaled_weight_on_a_live_model_and_merged() -> None:
    base = {"a.weight": np.float32([[1, 2], [3, 4]]), "a.bias": np.float32([5, 6])}
    adapter, values = scales.Scales.on(base, ["a"]), np.float32([0.5, -1])
    assert (adapter.size, adapter.sizes, adapter.entries) == (2, (2,), 4)
    merged = adapter.apply(base, values)
    assert merged["a.weight"].tolist() == [[1.5, 3], [0, 0]]
    assert merged["a.bias"].tolist() == [5, 6]
    model = torch.nn.Sequential()
    model.add_module("a", torch.nn.Linear(2, 2))
    model.load_state_dict({name: torch.tensor(array) for name, array in base.items()})
    with attached(model, adapter, values) as (live, theta):
        assert model.a.weight.tolist() == [[1.5, 3], [0, 0]]
        # the loss is the sum of all weights: its gradient in s_o is the sum of row o
        assert live.gradient(theta, [torch.ones(2, 2)]).tolist() == [3, 7]
    assert model.a.weight.tolist() == [[1, 2], [3, 4]]


def test_every_second_layer_from_the_output() -> None:
    order = every.every(Candidates(["a", "b", "c", "d", "e"], [], 0, 0), every.Every(step=2))
    assert order == ["e", "c", "a", "d", "b"]


def test_shrunk_entries() -> None:
    assert shrink.shrink(np.float32([4, -2]), shrink.Shrink(share=0.75)).tolist() == [-3, 1.5]


# -- in a run


def test_the_layers_and_entries_that_were_asked_for(finished: dict[str, Path]) -> None:
    found = load_run(finished["shrunk"])
    assert found.result["layers"]["chosen"] == ["fc1", "fc3"]
    assert found.result["layers"]["ranking"] == []
    assert (found.result["adapter"]["values"], found.result["adapter"]["mask_bytes"]) == (600, 0)
    phases = {row["phase"] for row in found.rounds.to_pylist()}
    assert phases == {"pretrain", "unlearn"}, "nobody was asked for a ranking or a gradient"
    before = dict(found.model("before").named_parameters())
    entries = torch.cat([before[f"{n}.{kind}"].flatten().abs() for n in ("fc1", "fc3") for kind in ("weight", "bias")])
    assert found.adapter is not None
    masked = torch.cat([
        torch.cat([before[f"{m.layer}.weight"].flatten(), before[f"{m.layer}.bias"]])[m.positions].abs()
        for m in found.adapter.adapter.layers
    ])  # fmt: skip
    assert sorted(masked.tolist()) == sorted(entries.topk(600).values.tolist())


@pytest.mark.parametrize("name", KINDS)
def test_it_comes_off_and_its_file_is_read(finished: dict[str, Path], name: str, tmp_path: Path) -> None:
    found = load_run(finished[name])
    assert found.result["reversible"]
    assert found.result["hash"]["unlearned"] != found.result["hash"]["base"]
    assert apply_adapter(finished[name], tmp_path / "after.safetensors") == found.result["hash"]["unlearned"]
    assert restore_base(finished[name], tmp_path / "before.safetensors") == found.result["hash"]["base"]
    model = found.model("before")
    assert found.adapter is not None
    found.adapter.apply(model)
    found.adapter.remove(model)


@pytest.mark.parametrize("name", KINDS)
def test_the_same_bits_after_an_interruption(finished: dict[str, Path], name: str, tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.phase == "unlearn" and progress.finished == 1:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        run(config(tmp_path / "run", *KINDS[name]), listener=stop)
    assert resume(tmp_path / "run")["hash"] == load_run(finished[name]).result["hash"]


def test_a_kind_that_cannot_be_imported_is_one_line(finished: dict[str, Path], tmp_path: Path) -> None:
    file = finished["scales"] / "adapter.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b"fused_ray_plugin.adapters.scales:KIND", b"fused_ray_plugin.adapters.scalez:KIND"))
    try:
        with pytest.raises(FusedRayError, match="holds an adapter of another package: cannot import") as caught:
            apply_adapter(finished["scales"], tmp_path / "after.safetensors")
    finally:
        file.write_bytes(kept)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("unlearn.adapter=lorra", "unknown adapter kind 'lorra'; did you mean lora?"),
        ("unlearn.mask=magnitud", "unknown mask rule"),
        ("unlearn.start=negated", "did you mean negate?"),
        ("unlearn.selection=fused_ray_plugin.adapters.shrink:START", "not a fused_ray.api.Selection"),
        ("unlearn.start_args.share=0.5", "unlearn.start is unset"),
        ("unlearn.adapter_args.share=0.5", "adapter_args: sparse has no settings of its own"),
        ("unlearn.adapter=fused_ray.api:AdapterKind", "not a fused_ray.api.AdapterKind"),
    ],
)
def test_what_is_wrong_is_one_line_at_once(field: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(FusedRayError) as caught:
        config(tmp_path / "run", field)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("adapter={}:WRONG_KIND", "gave str; a kind of adapter returns Made"),
        ("adapter={}:FORGETFUL", "is another one when it is read from its file again"),
        ("adapter={}:WIDE", "finite values, float32"),
        ("mask={}:NO_MASKS", "gave no entries of any layer"),
        ("mask={}:TWICE", "that do not ascend, or one twice"),
        ("mask={}:BEYOND", "entries of fc3 that it has not; it has 850"),
        ("mask={}:SPOILS", "raised ValueError: assignment destination is read-only"),
        ("start={}:SHORT", "must give 85 finite values"),
        ("start={}:NAN", "must give 85 finite values"),
        ("selection={}:NO_NAMES", "gave NoneType, not the names of layers"),
        ("method={}:BARE", "gave no accuracy of fa, ra"),
        ("selection={}:UNKNOWN", "names 'nose', of conv1"),
        ("selection={}:TOO_FEW", "names 1 layers of 2"),
    ],
)
def test_what_a_part_makes_wrong_is_one_line(
    field: str, told: str, finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wrong_parts.py").write_text(
        "from fused_ray.api import AdapterKind, Selection\n"
        "WRONG_KIND = AdapterKind(lambda making, settings: 'nothing', load=print)\n"
        "import dataclasses, numpy as np\n"
        "from fused_ray.api import Mask, MaskRule, Masks, Made, Method, Reparametrised, Start, flatten, whole_model\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Odd(Reparametrised):\n"
        "    ranks: tuple = (1, 2)\n"
        "    def count(self, shape): return 1\n"
        "    def merged(self, weight, values): return weight * (1 + values)\n"
        "def odd(making, settings, dtype=np.float32):\n"
        "    adapter = Odd.on(making.base, making.names)\n"
        "    return Made(adapter, np.zeros(adapter.size, dtype))\n"
        "FORGETFUL = AdapterKind(odd, load=Odd.load)\n"
        "WIDE = AdapterKind(lambda making, settings: odd(making, settings, float), load=Odd.load)\n"
        "NO_MASKS = MaskRule(lambda making, settings: None)\n"
        "def of(positions):\n"
        "    return lambda making, settings: Masks((Mask('fc3', 850, np.array(positions)),))\n"
        "TWICE, BEYOND = MaskRule(of([1, 3, 3])), MaskRule(of([1, 850]))\n"
        "def spoil(making, settings):\n"
        "    making.base['fc3.bias'][:] = 0\n"
        "SPOILS = MaskRule(spoil)\n"
        "SHORT, NAN = Start(lambda weights, settings: weights[:1]), Start(lambda weights, settings: weights * np.nan)\n"
        "NO_NAMES = Selection(lambda candidates, settings: None)\n"
        "BARE = Method(lambda federation, base: whole_model(flatten(base), base, {}, {}), phases=lambda settings: {})\n"
        "UNKNOWN = Selection(lambda candidates, settings: ['nose', *candidates.names])\n"
        "TOO_FEW = Selection(lambda candidates, settings: candidates.names[:1])\n"
    )
    layers = "unlearn.layers=2" if field.startswith("selection") else "unlearn.layers=[fc3]"
    given = (f"pretrain.from={finished['scales']}", f"unlearn.{field.format('wrong_parts')}", layers)
    with pytest.raises(FusedRayError, match=told) as caught:
        run(config(tmp_path / "run", *given))
    assert "\n" not in str(caught.value).partition("; continue with")[0]

"""M_f and M_r of finished runs: an adapter on and off again, and a method that has none."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file, save_file
from torch import nn

import fused_ray
from fused_ray import RunConfig, load_run, models, run
from fused_ray.config import ModelConfig
from fused_ray.core.lora import Lora
from fused_ray.core.state import arrays, state_hash
from fused_ray.errors import RunDirectoryError
from fused_ray.runs import card, peft
from fused_ray.runs.export import apply_adapter, export_folder, program, restore_base

SMALL = [
    *("engine.backend=local", "federation.clients=4", "data.limit=200", "output.plots=false", "forget.share=0.5"),
    *("pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=0", "unlearn.layers=[fc3]"),
]
RUNS = {
    "lora": ["forget.scenario=sample", "unlearn.adapter=lora", "unlearn.rank=2"],
    "saliency": ["forget.scenario=client", "unlearn.mask=saliency", "unlearn.saliency=forget", "unlearn.budget=9"],
    "finetune": ["forget.scenario=client", "forget.poison=false", "unlearn.method=finetune"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = {name: tmp_path_factory.mktemp("runs") / name for name in RUNS}
    for name, path in paths.items():
        run(RunConfig.from_dict({}, [*SMALL, *RUNS[name], f"output.dir={path}"]))
    return paths


@pytest.mark.parametrize("name", RUNS)
def test_applying_gives_the_model_that_forgot(finished: dict[str, Path], name: str, tmp_path: Path) -> None:
    hashes, out = load_run(finished[name]).result["hash"], tmp_path / "model.safetensors"
    assert apply_adapter(finished[name], out) == hashes["unlearned"] == state_hash(load_file(out))
    assert hashes["unlearned"] != hashes["base"]


@pytest.mark.parametrize("name", ["lora", "saliency"])
def test_restoring_gives_the_model_from_before(finished: dict[str, Path], name: str, tmp_path: Path) -> None:
    result, out = load_run(finished[name]).result, tmp_path / "model.safetensors"
    assert restore_base(finished[name], None) == restore_base(finished[name], out) == result["hash"]["base"]
    assert state_hash(load_file(out)) == result["hash"]["restored"] == result["hash"]["base"]
    assert result["reversible"]


def test_a_method_that_changed_the_whole_model_has_no_adapter_to_take_off(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    result = load_run(finished["finetune"]).result
    assert (result["adapter"], result["reversible"], result["hash"]["restored"]) == (None, False, None)
    with pytest.raises(RunDirectoryError, match="finetune changed the whole model, so there is no adapter") as caught:
        restore_base(finished["finetune"], tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.safetensors").exists()
    base = finished["finetune"] / "base.safetensors"  # where the message says that M_r is
    assert state_hash(load_file(base)) == result["hash"]["base"]


def test_a_model_that_is_not_the_runs_is_not_written(finished: dict[str, Path], tmp_path: Path) -> None:
    file, out = finished["finetune"] / "unlearned.safetensors", tmp_path / "model.safetensors"
    content = file.read_bytes()
    try:
        save_file({name: array + 1 for name, array in load_file(file).items()}, file)
        with pytest.raises(RunDirectoryError, match="the files were changed"):
            apply_adapter(finished["finetune"], out)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(RunDirectoryError, match="is damaged"):
            apply_adapter(finished["finetune"], out)
    finally:
        file.write_bytes(content)
    assert not out.exists()


def test_the_result_says_what_kind_of_adapter_it_was_and_what_it_cost(finished: dict[str, Path]) -> None:
    lora, sparse = (load_run(finished[name]).result for name in ("lora", "saliency"))
    assert (lora["adapter"]["kind"], lora["adapter"]["values"], lora["adapter"]["sparsity"]) == ("lora", 188, None)
    assert lora["bytes"]["saliency"]["up_total"] == 0
    assert (sparse["adapter"]["kind"], sparse["adapter"]["mask"]) == ("sparse", "saliency")
    assert sparse["adapter"]["values"] == 9
    assert sparse["adapter"]["sparsity"] == pytest.approx(1 - 9 / 850)
    sent = sparse["bytes"]
    assert 4 * 850 < sent["saliency"]["up_per_client_per_round"] < 4 * 850 + 200
    assert sent["saliency"]["up_total"] == 2 * sent["saliency"]["up_per_client_per_round"]  # two of four are forgotten
    up, down = (sent["unlearn"][f"{way}_per_client_per_round"] for way in ("up", "down"))
    assert down == up  # the mask counts once, in the total alone
    assert sparse["adapter"]["mask_bytes"] > 18
    model = 8 + 72 + 4 * 44_426  # the two clients that keep data, and not the others, get M_r with the first round
    assert sent["saliency"]["down_total"] == 2 * model
    assert sent["unlearn"]["down_total"] == 2 * (down + sparse["adapter"]["mask_bytes"] + model)


# --- as a folder -----------------------------------------------------------------------------------------


def test_nothing_is_exported_over_what_is_there(finished: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "forgot").mkdir()
    with pytest.raises(RunDirectoryError, match="forgot exists already; name another one with --out"):
        export_folder(finished["lora"], tmp_path / "forgot")
    assert list((tmp_path / "forgot").iterdir()) == []


def test_what_has_no_adapter_is_not_exported_with_one(finished: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="finetune changed the whole model, so there is no adapter"):
        export_folder(finished["finetune"], tmp_path / "forgot", reversible=True)
    assert list(tmp_path.iterdir()) == []


SHAPE = (3, 32, 32)
MODELS = {
    "lenet": {},
    "resnet18": {},
    "simplevit": {"width": 16, "depth": 1, "heads": 2},
    "vit-small": {"width": 16, "depth": 1, "heads": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_program_answers_as_the_model_does(name: str) -> None:
    """Of any number of inputs, and without a word of this machine."""
    model = models.build(ModelConfig(name=name, args=MODELS[name]), SHAPE, 7).eval()
    content = program(model, SHAPE, "here")
    loaded = torch.export.load(io.BytesIO(content)).module()
    for batch in (1, 2, 5):
        x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))
        expected = model(x)
        assert expected.shape == (batch, 7)
        torch.testing.assert_close(loaded(x), expected, rtol=1e-4, atol=1e-5)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert not any(str(Path(fused_ray.__file__).parent).encode() in archive.read(n) for n in archive.namelist())


class Several(nn.Module):
    """Logits and what else it thinks of."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1)[:, :7] * 2, x


class Decides(nn.Module):
    """Computes by what it sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :7] * (2 if x.sum() > 0 else 3)


@pytest.mark.slow
def test_of_several_outputs_a_program_gives_the_logits() -> None:
    x = torch.ones(3, *SHAPE)
    loaded = torch.export.load(io.BytesIO(program(Several(), SHAPE, "here"))).module()
    assert torch.equal(loaded(x), torch.full((3, 7), 2.0))


@pytest.mark.slow
def test_what_is_no_program_is_told_in_one_line() -> None:
    with pytest.raises(RunDirectoryError, match=r"here: torch\.export makes no program of it .*apply writes") as caught:
        program(Decides(), SHAPE, "here")
    assert "\n" not in str(caught.value)


def test_peft_has_the_values_of_a_low_rank_adapter() -> None:
    adapter = Lora(("a.conv1", "fc"), ((2, 3, 1, 2), (4, 5)), rank=1, alpha=3.0)
    values = np.arange(17, dtype=np.float32)  # conv1: A of 6, B of 2; fc: A of 5, B of 4
    files = peft.files(adapter, values)
    found = load(files["adapter_model.safetensors"])
    expected = {
        "a.conv1.lora_A": [[[[0, 1]], [[2, 3]], [[4, 5]]]],
        "a.conv1.lora_B": [[[[6]]], [[[7]]]],
        "fc.lora_A": [[8, 9, 10, 11, 12]],
        "fc.lora_B": [[13], [14], [15], [16]],
    }
    assert {name: array.tolist() for name, array in found.items()} == {
        f"base_model.model.{name}.weight": array for name, array in expected.items()
    }
    config = json.loads(files["adapter_config.json"])
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 1, 3.0, "none")
    names = ["a.conv1", "fc", "b.a.conv1", "conv1", "aXconv1", "fc2"]
    assert [name for name in names if re.fullmatch(config["target_modules"], name)] == ["a.conv1", "fc"]


@pytest.mark.parametrize(
    ("layer", "fits"),
    [
        (nn.Linear(2, 2), True),
        (nn.Conv2d(2, 2, 3, stride=2, padding=1), True),
        (nn.Conv2d(2, 2, 1, groups=2), False),
        (nn.Conv2d(2, 2, 3, dilation=2), False),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv1d(2, 2, 1), False),
        (nn.MultiheadAttention(2, 1).out_proj, False),
    ],
)
def test_peft_is_given_the_layers_that_it_computes_alike(layer: nn.Module, fits: bool) -> None:
    model = nn.Sequential(layer)
    reason = peft.unfit(Lora(("0",), ((2, 2),), rank=1, alpha=1.0), model)
    assert (reason is None) == fits
    assert reason is None or reason.startswith("0 is no plain nn.Linear or nn.Conv2d but ")


def test_text_in_an_exported_page_stays_text() -> None:
    assert card.plain("a|b *c*\n<d> `e` [f](g)") == r"a\|b \*c\* \<d\> \`e\` \[f\](g)"


# --- in Python -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lora", "saliency"])
def test_the_adapter_goes_onto_a_plain_model_and_comes_off_to_the_bit(finished: dict[str, Path], name: str) -> None:
    found = load_run(finished[name])
    model, hashes = found.model("before"), found.result["hash"]
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert state_hash(arrays(model)) == hashes["base"]
    adapter = found.adapter
    assert adapter is not None
    adapter.apply(model)
    assert state_hash(arrays(model)) == hashes["unlearned"] == state_hash(arrays(found.model("after")))
    adapter.remove(model)
    assert state_hash(arrays(model)) == hashes["base"]


def test_an_adapter_refuses_a_model_that_it_does_not_fit(finished: dict[str, Path]) -> None:
    found = load_run(finished["saliency"])
    adapter, model = found.adapter, found.model("after")
    assert adapter is not None
    with pytest.raises(RunDirectoryError, match="the model is not this run's M_r"):
        adapter.apply(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    before = state_hash(arrays(model))
    with pytest.raises(RunDirectoryError, match="the model is not this run's M_f"):
        adapter.remove(model)
    assert state_hash(arrays(model)) == before


def test_a_run_says_what_it_has_not(finished: dict[str, Path]) -> None:
    assert load_run(finished["finetune"]).adapter is None
    with pytest.raises(RunDirectoryError, match=r"has no retrained model: it was run with retrain\.rounds=0"):
        load_run(finished["finetune"]).model("retrained")


def test_tables_and_the_verdict_are_at_hand(finished: dict[str, Path]) -> None:
    found = load_run(finished["saliency"])
    assert found.rounds.num_rows == len(found.rounds.to_pandas()) > 0
    assert set(found.clients["client"].to_pylist()) <= set(range(4))
    assert found.verdict == found.result["verdict"]

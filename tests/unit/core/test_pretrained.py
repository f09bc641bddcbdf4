"""Weights from a file fit exactly or are refused in one line that names file and tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from fused_ray.core import pretrained
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Federation
from fused_ray.errors import ConfigError

LIKE = {"fc.weight": np.zeros((2, 3), np.float32), "norm.num_batches_tracked": np.zeros((), np.int64)}
GOOD = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "norm.num_batches_tracked": np.array(7)}


def written(path: Path, **changes: np.ndarray | None) -> Path:
    save_file({name: array for name, array in {**GOOD, **changes}.items() if array is not None}, path)
    return path


def test_what_fits_is_read(tmp_path):
    found = pretrained.read(written(tmp_path / "w.safetensors"), LIKE, "net")
    assert found["fc.weight"].tolist() == GOOD["fc.weight"].tolist()
    assert found["norm.num_batches_tracked"] == 7
    assert {array.dtype for array in found.values()} == {np.dtype("f4"), np.dtype("i8")}


def test_half_precision_is_widened(tmp_path):
    save_tensors({"fc.weight": torch.full((2, 3), 0.5, dtype=torch.bfloat16)}, tmp_path / "w.safetensors")
    found = pretrained.read(tmp_path / "w.safetensors", {"fc.weight": LIKE["fc.weight"]}, "net")
    assert found["fc.weight"].tolist() == [[0.5] * 3] * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fc.weight": None}, "w.safetensors has no tensor fc.weight, which net needs"),
        ({"fc.weight": np.zeros((5, 3), np.float32)}, "w.safetensors is [5, 3], net needs [2, 3]"),
        ({"fc.weight": np.full((2, 3), np.nan, np.float32)}, "w.safetensors has values that are not finite"),
        ({"head.bias": np.zeros(1, np.float32)}, "w.safetensors has tensors that net lacks: head.bias"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, said):
    path = written(tmp_path / "w.safetensors", **changes)
    with pytest.raises(ConfigError) as caught:
        pretrained.read(path, LIKE, "net")
    assert str(caught.value).startswith("model.weights: ")
    assert said in str(caught.value)


def test_no_file_and_no_safetensors(tmp_path):
    with pytest.raises(ConfigError, match=r"^model.weights: there is no file .*absent"):
        pretrained.read(tmp_path / "absent", LIKE, "net")
    (tmp_path / "text").write_text("not tensors")
    with pytest.raises(ConfigError, match=r"^model.weights: .*text is not a readable safetensors file"):
        pretrained.read(tmp_path / "text", LIKE, "net")


def test_training_and_retraining_start_from_the_weights(tmp_path, make_config, data, scenario, recorder):
    federation = Federation(make_config(), data, scenario, None, recorder())
    weights = fedavg.random_model(federation, "elsewhere")
    save_file(weights, tmp_path / "w.safetensors")
    given = Federation(make_config(f"model.weights={tmp_path}/w.safetensors"), data, scenario, None, recorder())
    for phase in ("pretrain", "retrain"):
        found = fedavg.initial(given, phase)
        assert all(np.array_equal(found[name], weights[name]) for name in weights)
        assert not np.array_equal(fedavg.initial(federation, phase)["fc3.weight"], weights["fc3.weight"])

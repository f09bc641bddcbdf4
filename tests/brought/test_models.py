"""Models as people bring them: each works as in plain PyTorch, or is refused in one line before a run begins."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fused_ray import models, run
from fused_ray.cli.app import main
from fused_ray.core import state
from fused_ray.core.methods.fedavg import FullTraining
from fused_ray.core.work import compute
from fused_ray.core.workspace import Workspace
from fused_ray.engine.client import ClientActor
from fused_ray.errors import ConfigError
from fused_ray.models.anatomy import staged
from fused_ray.models.rehearsal import memory_format, rehearse, section_of
from fused_ray.types import ImageData
from tests.brought import odd_models
from tests.brought.model_runs import FEW, configured, scenario, simulated, started
from tests.brought.own_models import CLASSES, SHAPE, SHORT, ShortStages

pytestmark = pytest.mark.usefixtures("brought_models")


@pytest.fixture(scope="module")
def npz(images: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own") / "noise.npz"
    arrays = {"train_images": images.train_images, "train_labels": images.train_labels}
    np.savez(place, **arrays, test_images=images.test_images, test_labels=images.test_labels)
    return place


# --- refused ------------------------------------------------------------------------------------------------

TRAINS = "in training mode, 3 at a time"


REFUSED = {
    "InPlace": ["its backward pass fails: one of the variables needed", "use an operation that makes a new tensor"],
    "NoGradient": ["no gradient leads from the model's logits", "look for torch.no_grad"],
    "NoGradientInTraining": ["no gradient leads from the model's logits", "look for torch.no_grad"],
    "OnePixel": [TRAINS, "in norm (InstanceNorm2d): ValueError: Expected more than 1", "leave that normalisation out"],
    "OneValue": [TRAINS, "in norm (BatchNorm1d): ValueError: Expected more than 1", "leave that normalisation out"],
    "KeepsGraph": ["through the graph a second time", "needs .detach()"],
    "OfThree": ["in training mode, 2 at a time", "in body (Linear): RuntimeError: mat1 and mat2"],
    "lazy": ["1.weight, 1.bias of a lazy layer has no shape yet", "model(torch.zeros(2, *shape))"],
    "lazy_norm": ["0.running_mean, 0.running_var of a lazy layer"],
    "Alone": ["the model itself owns a weight", "make it a module of the model"],
    "Mapped": ["for 3 images in training mode, 3 at a time the model gives dict, not [3, 3] logits"],
    "HiddenFirst": ["the model gives [3, 8], not [3, 3] logits", "first in a tuple"],
    "Squeezed": ["for 1 images one at a time the model gives [3], not [1, 3] logits"],
    "MovingBuffer": ["training changes average, which the model keeps outside its state_dict", "register_buffer"],
    "MovingTensor": ["training changes inner.seen, which"],
    "Counter": ["training changes steps, which"],
    "Memories": ["training changes memories, which"],
    "Previous": ["training changes previous, which"],
    "Centred": ["training changes center, which"],
    "ExtraState": ["_extra_state in the state_dict is dict, which cannot be averaged"],
    "CountsEvaluations": ["evaluation changes calls of the model", "if self.training"],
    "AlwaysDrops": ["says something else each time", "F.dropout(x, p, self.training)"],
    "KindsMove": ["training changes cache, which"],
    "Expanded": ["several elements of scale share one place in memory (expand)", ".clone()"],
    "Windows": ["several elements of parts share one place"],
    "SparseBuffer": ["pairs is no plain dense tensor (torch.sparse_coo, cpu)"],
    "all_frozen": ["all parameters of the model are frozen", "leave at least the output layer free"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_in_one_line_before_a_folder_is_made(name: str, npz: Path, tmp_path: Path) -> None:
    """On the default backend, and on data whose shape nobody knows before they are looked at."""
    settings = [*FEW, "data.name=npz", f"data.root={npz}", f"model.factory=brought:{name}"]
    with pytest.raises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()) as printed:
        main(["run", *(part for s in [*settings, f"output.dir={tmp_path / 'run'}"] for part in ("--set", s))])
    lines = printed.getvalue().strip().splitlines()
    assert (caught.value.code, len(lines)) == (2, 1)
    assert lines[0].startswith(f"fused-ray: model.factory: brought:{name}: ")
    assert [said for said in REFUSED[name] if said not in lines[0]] == []
    assert list(tmp_path.iterdir()) == []


def test_the_rehearsal_gives_the_random_numbers_of_the_process_back() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for name in ("PythonDraws", "NumpyDraws", "AlwaysDrops"):
        with contextlib.suppress(ConfigError):
            memory_format(section_of(configured(name).model), SHAPE, CLASSES)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    ("name", "last"),
    [("woken", "3"), ("Constant", "head"), ("Shows", "head"), ("Kinds", "head"), ("Transposed", "head")],
)
def test_what_only_looks_like_a_fault_is_none(images: ImageData, name: str, last: str) -> None:
    """A lazy model that its function has run once; a table outside the state_dict, and what each step makes anew."""
    found, _ = simulated(images, name, f"unlearn.layers=[{last}]")  # a number may be a layer's name
    assert found.unlearned.adapter is not None
    assert found.unlearned.adapter.names == (last,)


@pytest.mark.parametrize("how", SHORT)
def test_a_lack_of_memory_changes_no_format(how: str) -> None:
    model = configured("ShortOnce", f"model.args={json.dumps({'how': how})}").model
    with pytest.raises(ConfigError, match=rf"the model fails on images of 3 x 8 x 8.*{type(SHORT[how]).__name__}: "):
        memory_format(section_of(model), SHAPE, CLASSES)
    assert memory_format(section_of(model), SHAPE, CLASSES) == torch.channels_last


def test_nor_does_what_has_nothing_to_do_with_it() -> None:
    model = configured("Refuses").model
    with pytest.raises(ConfigError, match="OSError: no space left"):
        memory_format(section_of(model), SHAPE, CLASSES)
    assert memory_format(section_of(model), SHAPE, CLASSES) == torch.channels_last


def test_a_lack_of_memory_changes_no_stages() -> None:
    with pytest.raises(MemoryError):
        staged(ShortStages(SHAPE, CLASSES), SHAPE)


def test_a_worker_is_told_the_format(images: ImageData) -> None:
    known = rehearse.cache_info()
    for form in (torch.channels_last, torch.contiguous_format):
        actor = ClientActor(configured("Flat"), images, scenario(images), pickle.loads(pickle.dumps(form)), 0)
        assert actor._space.images("train", np.arange(2)).is_contiguous(memory_format=form)
        assert actor._space.model.get_parameter("features.0.weight").is_contiguous(memory_format=form)
    assert rehearse.cache_info() == known


# --- accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Two", "Always", "Nested"])
def test_the_first_tensor_of_a_tuple_are_the_logits(images: ImageData, name: str) -> None:
    """The bits are those of a model that returns it alone: what else is returned is not trained."""
    found, _ = simulated(images, name)
    alone, recorder = simulated(images, "One")
    assert (found.base_hash, found.unlearned_hash) == (alone.base_hash, alone.unlearned_hash)
    assert found.restored_hash == found.base_hash
    assert np.array_equal(recorder.models["base"]["aux.weight"], started("One")["aux.weight"])


@pytest.mark.parametrize("name", ["PythonDraws", "NumpyDraws"])
def test_draws_in_training_are_each_clients_own(images: ImageData, name: str) -> None:
    """Whatever the process drew before, and whoever was computed before in it."""
    config, found = configured(name), scenario(images)
    work = FullTraining("pretrain", 1, 0, config.train, "held")
    space, start = Workspace(config, images, found), state.flatten(started(name))
    random.seed(1)
    np.random.seed(1)
    together = compute(space, work, start, [0, 1, 2], keep_updates=True).updates
    alone = compute(space, work, start, [2], keep_updates=True).updates
    other = compute(space, FullTraining("pretrain", 1, 1, config.train, "held"), start, [2], keep_updates=True).updates
    assert together[2].tobytes() == alone[2].tobytes() != other[2].tobytes()


@pytest.mark.parametrize("name", ["View", "ViewInTraining", "ViewOfTheGradient"])
def test_a_view_runs_in_the_usual_memory_format(images: ImageData, name: str) -> None:
    section = section_of(configured(name).model)
    assert memory_format(section, SHAPE, CLASSES) == torch.contiguous_format
    assert memory_format(section_of(configured("Flat").model), SHAPE, CLASSES) == torch.channels_last
    found, recorder = simulated(images, name, "unlearn.start=reset", "unlearn.layers=[head]")
    assert found.restored_hash == found.base_hash
    model = models.build(configured(name).model, SHAPE, CLASSES).eval()  # plain PyTorch takes what comes out
    model.load_state_dict({key: torch.tensor(value) for key, value in recorder.models["base"].items()})
    assert model(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)


def test_a_run_says_once_in_which_format_it_runs_and_what_is_left_out(npz: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, ...]] = []
    fields = ("data.name=npz", f"data.root={npz}", "engine.backend=local", "output.plots=false", "audit.enabled=false")
    config = configured("Everything", *fields, f"output.dir={tmp_path / 'run'}")
    result = run(config, listener=lambda progress: heard.append(tuple(progress.notes)))
    notes = [note for noted in dict.fromkeys(heard) for note in noted]
    for said in (
        "fails on channels-last tensors",
        "the weight of computed is computed",
        "neither ranked nor adapted: f",
    ):
        assert len({note for note in notes if said in note}) == 1
    assert result["reversible"]
    base = load_file(tmp_path / "run" / "base.safetensors")
    assert base["mask"].tolist() == [-np.inf, 1e9]
    assert base["norm.running_var"].max() > 1024


@pytest.mark.slow
def test_a_model_with_everything_has_the_same_bits_on_ray(cluster: Any, npz: Path, tmp_path: Path) -> None:
    found = []
    for name, fields in (
        ("alone", ["engine.backend=local"]),
        ("packed", [f"engine.address={cluster.address}", "federation.clients_per_actor=2"]),
    ):
        common = ("data.name=npz", f"data.root={npz}", "output.plots=false", "audit.enabled=false")
        here = f"model.factory={odd_models.__name__}:Everything"  # workers have this process's path
        config = configured("Everything", *common, *fields, here, f"output.dir={tmp_path / name}")
        found.append(run(config)["hash"])
    assert found[0] == found[1]


# --- torchvision --------------------------------------------------------------------------------------------

USES_TORCHVISION = """
from fused_ray import models
from fused_ray.config import ModelConfig
print(type(models.build(ModelConfig(factory="theirs:net"), (3, 32, 32), 4)).__module__)
"""


IMPORT = "from torchvision.models import resnet18\n"


@pytest.mark.parametrize(("above", "inside"), [(IMPORT, ""), pytest.param("", f"{IMPORT}    ", marks=pytest.mark.slow)])
def test_torchvision_models_in_a_factory_get_the_same_mend(tmp_path: Path, above: str, inside: str) -> None:
    """Whether the module imports it or the function does; in a process that has not imported it yet."""
    (tmp_path / "theirs.py").write_text(f"{above}def net(shape, classes):\n    {inside}return resnet18()\n")
    done = subprocess.run(
        [sys.executable, "-c", USES_TORCHVISION],
        capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torchvision.models.resnet"

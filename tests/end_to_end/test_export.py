"""What `fused-ray export` writes, used by programs that have PyTorch, or PEFT, and no fused_ray."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from fused_ray import RunConfig, load_run, run
from fused_ray.core.state import state_hash
from fused_ray.runs.export import export_folder
from tests.docs.blocks import ROOT, blocks
from tests.layered import done, layered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
IMAGES = ROOT / "fused_ray" / "data" / "embedded" / "fashion-mnist-mini-test.parquet"
QUICK = ["engine.backend=local", "federation.clients=4", "pretrain.rounds=2", "unlearn.rounds=1", "retrain.rounds=1"]
WITHOUT = "import sys; sys.modules['fused_ray'] = None\n"
LORA = ["unlearn.adapter=lora", "unlearn.layers=[conv2, fc2, fc3]", "unlearn.rank=3", "unlearn.alpha=7"]


def ran(path: Path, *settings: str) -> Path:
    run(
        RunConfig.from_dict(
            {}, [*QUICK, "output.plots=none", "audit.relearn_repeats=1", *settings, f"output.dir={path}"]
        )
    )
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(tmp_path_factory.mktemp("runs") / "class")


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "forgot"
    export_folder(finished, out)
    return out


def printed(*command: str | Path, at: Path, **variables: str) -> Any:
    return json.loads(done([sys.executable, *command], at, **variables).splitlines()[-1])


def test_without_fused_ray_as_many_are_right(finished: Path, exported: Path, tmp_path: Path) -> None:
    found = printed(HERE / "without_fused_ray.py", exported, IMAGES, at=tmp_path)
    right, of = found["right"], found["of"]
    assert of == [200] * 10
    after = load_run(finished).result["metrics"]["after"]
    assert right[0] / of[0] == after["fa"]
    assert sum(right[1:]) / sum(of[1:]) == after["ra"]
    assert after != load_run(finished).result["metrics"]["before"]


def test_what_the_pages_say_runs(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    (own,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert re.fullmatch(r"tensor\(\[\d\]\)\n", done([sys.executable, "-c", WITHOUT + own], exported))
    text = next(block.text for block in blocks("docs/export.md") if block.text.startswith("import torch"))
    assert "[1, 10]" in done([sys.executable, "-c", f"{WITHOUT}{text}\nprint(list(logits.shape))"], exported)


def test_the_folder_holds_the_model_after_and_not_the_one_before(finished: Path, exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {"README.md", "about.json", "load.py", "model.pt2", "model.safetensors"}
    result = load_run(finished).result
    assert state_hash(load_file(exported / "model.safetensors")) == result["hash"]["unlearned"]
    about = json.loads((exported / "about.json").read_text())
    assert about["metrics"] == result["metrics"]
    card = (exported / "README.md").read_text()
    assert f"**Verdict: {result['verdict']}.**" in card
    assert "not the one before" in card
    assert "nothing is erased" not in card


@pytest.fixture(scope="module")
def with_peft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with PEFT."""
    return layered(tmp_path_factory.mktemp("peft"), "--constraint", ROOT / "constraints.txt", "peft")


def test_peft_loads_a_low_rank_adapter(with_peft: Path, tmp_path: Path) -> None:
    finished = ran(tmp_path / "lora", *LORA)
    export_folder(finished, tmp_path / "forgot", reversible=True)
    names = {path.name for path in (tmp_path / "forgot").iterdir()}
    assert {"adapter.safetensors", "base.safetensors", "peft"} < names
    assert "nothing is erased" in (tmp_path / "forgot" / "README.md").read_text()
    base = load_file(tmp_path / "forgot" / "base.safetensors")
    assert state_hash(base) == load_run(finished).result["hash"]["base"]
    command = [with_peft / "python", HERE / "over_peft.py", finished, tmp_path / "forgot"]
    found = json.loads(done(command, tmp_path, PYTHONPATH=str(ROOT)).splitlines()[-1])
    assert found["same_bits"]
    assert found["change"] > 0.1
    assert found["live"] < 1e-4
    assert found["merged"] < 1e-4
    assert found["weights"] < 1e-6

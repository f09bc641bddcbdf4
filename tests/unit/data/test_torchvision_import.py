"""The guarded mend of torchvision's import, each case in a process of its own.

Small stand-ins for torch and torchvision take the place of the real ones where the machine's pair could not show it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SYMPTOM = "operator torchvision::nms does not exist"

TORCH = """
from types import SimpleNamespace
__version__ = {version!r}
version = SimpleNamespace(cuda={cuda!r})
defined = []
class Library:
    def __init__(self, name, kind):
        assert (name, kind) == ("torchvision", "DEF")
    def define(self, schema):
        defined.append(schema)
    def __del__(self):
        defined.clear()
library = SimpleNamespace(Library=Library)
"""
TORCHVISION = """
import torchvision.half_made
import torch
if len(torch.defined) != 2:
    raise RuntimeError({message!r})
"""


def run(code: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    places = [str(ROOT)] if path is None else [str(path), str(ROOT)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


def stand_ins(
    folder: Path, version: str = "2.0.0+cpu", cuda: str | None = None, wants: str = "torch (==2.0.0)", init: str = ""
) -> Path:
    files = {
        "torch/__init__.py": TORCH.format(version=version, cuda=cuda),
        "torchvision/__init__.py": init or TORCHVISION.format(message=SYMPTOM),
        "torchvision/half_made.py": "",
        "torchvision/datasets.py": "",
        "torchvision/models.py": "",
        "torchvision-9.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: torchvision\nVersion: 9.0\n"
        f"Requires-Dist: numpy\nRequires-Dist: {wants}\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


MEND = """
import gc, sys
from fused_ray.data.torchvision_import import import_torchvision
module = import_torchvision()
assert module is import_torchvision() is sys.modules["torchvision"]
gc.collect()
import torch
print(sorted(schema.split("(")[0] for schema in torch.defined))
"""


def test_mended(tmp_path: Path) -> None:
    done = run(MEND, stand_ins(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['nms', 'qnms']"


def test_a_matched_pair_is_left_alone(tmp_path: Path) -> None:
    done = run(MEND, stand_ins(tmp_path, init="import torchvision.half_made"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("version", "cuda", "wants", "message"),
    [
        pytest.param("2.1.0+cpu", None, "torch (==2.0.0)", SYMPTOM, id="wrong version"),
        pytest.param("2.0.0", "13.0", "torch (==2.0.0)", SYMPTOM, id="CUDA build"),
        pytest.param("2.0.0+cpu", None, "torch (==2.0.0)", SYMPTOM + " (really)", id="another message"),
        pytest.param("2.0.0+cpu", None, "pillow", SYMPTOM, id="no word on torch"),
    ],
)
def test_all_else_still_raises(tmp_path: Path, version: str, cuda: str | None, wants: str, message: str) -> None:
    stand_ins(tmp_path, version, cuda, wants, TORCHVISION.format(message=message))
    done = run(MEND.replace("module =", "import torch; Library = torch.library.Library = None; module ="), tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"RuntimeError: {message}")


def test_this_machines_pair_works() -> None:
    """Mended or matched, whichever it is here; a wrong guess would abort the process."""
    done = run(
        """
try:
    import torchvision
    matched = True
except RuntimeError:
    matched = False
from fused_ray.data import torchvision_import
torchvision = torchvision_import.import_torchvision()
assert torchvision.datasets.FashionMNIST and torchvision.models.resnet18
assert bool(torchvision_import._kept_alive) != matched
"""
    )
    assert done.returncode == 0, done.stderr


def test_without_pillow_it_still_raises() -> None:
    done = run(
        """
import sys
sys.modules["PIL"] = None
from fused_ray.data.torchvision_import import import_torchvision
import_torchvision()
"""
    )
    assert done.returncode == 1
    assert "PIL" in done.stderr.strip().splitlines()[-1]


def test_the_data_package_needs_no_torch() -> None:
    done = run(
        """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = sys.modules["ray"] = None
from fused_ray.config import DataConfig
from fused_ray.data import datasets, partitions, scenarios, summary, torchvision_import
datasets.load(DataConfig(limit=10), 0)
"""
    )
    assert done.returncode == 0, done.stderr


USERS = """
import sys
from fused_ray.data.torchvision_import import with_torchvision
made = []
def make():
    made.append(None)
    import torchvision.models
    return sys.modules["torchvision.models"]
"""


def test_what_a_user_imports_is_mended_too(tmp_path: Path) -> None:
    done = run(f"{USERS}\nassert with_torchvision(make) and len(made) == 2", stand_ins(tmp_path))
    assert done.returncode == 0, done.stderr


def test_a_matched_pair_is_imported_once(tmp_path: Path) -> None:
    done = run(f"{USERS}\nassert with_torchvision(make) and len(made) == 1", stand_ins(tmp_path, init="import torch"))
    assert done.returncode == 0, done.stderr


def test_other_errors_of_a_user_are_raised_at_once(tmp_path: Path) -> None:
    code = f"""{USERS}
def fail():
    made.append(None)
    raise RuntimeError("no such luck")
try:
    with_torchvision(fail)
except RuntimeError as error:
    assert str(error) == "no such luck" and len(made) == 1
    print("raised")
"""
    done = run(code, stand_ins(tmp_path))
    assert done.stdout.strip() == "raised", done.stderr

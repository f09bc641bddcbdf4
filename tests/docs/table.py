"""What is done with each block of the documentation. A block without a row here fails the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.docs.blocks import Block


@dataclass(frozen=True)
class Row:
    page: str
    begins: str
    """How the block begins."""
    how: Literal["runs", "checked", "elsewhere", "printed"]
    """runs: in the order of the page, cut down as below. Of a block of `sh`, `fused-ray` runs, the rest is checked.

    checked: commands and their options exist, and so do the fields that they set and the files that they name.

    elsewhere: checked, and run by another test; of Python there is nothing to check but that.

    printed: nothing; it is what a program printed.
    """
    why: str = ""
    """The reason, for all but `runs`."""
    later: tuple[str, ...] = ()
    """The commands of `fused-ray` that only `make test-all` runs; `make test` checks them."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """What is replaced in Python text, so that it is quick or needs no network."""


_RUN = {
    "data.limit": "200",
    "federation.clients": "4",
    "pretrain.rounds": "1",
    "unlearn.rounds": "1",
    "audit.enabled": "false",
    "engine.backend": "local",
    "output.plots": "none",
}
_PLAIN = [f"{key}={value}" for key, value in _RUN.items()]
_JUDGED = [*_PLAIN, "audit.enabled=true", "audit.relearn_repeats=1"]
_SWEEP = {
    "base.data.name": "fashion-mnist-mini",
    "space.unlearn.layers": "{grid: [1, 2]}",
    "space.unlearn.start": "null",
    "space.unlearn.sparsity": "null",
}
_SCALE = {
    "base.engine.backend": "local",
    "base.engine.address": "null",
    "base.output.plots": "none",
    "points": "[{clients: [4, 6]}]",
    "hold_out": "[{clients: 6}]",
    "repeats": "1",
}


def _sets(fields: Mapping[str, str], prefix: str = "") -> list[str]:
    return [part for key, value in fields.items() for part in ("--set", f"{prefix}{key}={value}")]


SMALL = {
    "run": _sets(_RUN),
    "data": _sets({"data.limit": "200", "federation.clients": "4"}),
    "plan": ["--no-time"],
    "sweep": [*_sets(_RUN, "base."), *_sets({**_SWEEP, "space.forget.scenario": "null", "output.plots": "none"})],
    "scale": _sets(_SCALE),
}
"""What makes a command a matter of a second; the fields that a page sets come behind it and win."""
LONG = {"sweep": _sets(_SWEEP), "scale": SMALL["scale"]}
"""What is too long for `make test-all`, too: 64 trials on the full data take half an hour, 10,000 clients minutes."""

WHOLE = ("README.md",)
"""Pages that `make test-all` follows word by word, too."""
LATER = ("docs/sweeps.md", "docs/scaling.md")
"""Pages that only `make test-all` follows."""

_INSTALLS = "makes an environment, with a network"
_HOURS = "measures for hours"

ROWS = (
    Row("README.md", "make demo", "checked", f"{_INSTALLS}; its run is in the next block"),
    Row("README.md", "python3 -m venv .venv", "runs"),
    Row("README.md", "fused-ray init my.yaml", "runs", later=("audit", "compare", "export", "plan", "scale", "sweep")),
    Row("README.md", "fused-ray run --set pretrain.from", "runs"),
    Row("README.md", "from fused_ray", "runs", instead={'"runs/three"}}': f'"runs/three"}}}}, {_JUDGED}'}),
    Row("CONTRIBUTING.md", "make install", "checked", _INSTALLS),
    Row("CONTRIBUTING.md", ".venv/bin/pytest tests/unit", "checked", "these tests themselves"),
    Row("cluster/README.md", "export RAY_AUTH_MODE=token", "elsewhere", "tests/cluster/test_ray_job.py"),
    Row("cluster/README.md", "ray job submit", "elsewhere", "tests/cluster/test_ray_job.py"),
    Row("cluster/README.md", "ray job list", "elsewhere", "tests/cluster/test_ray_job.py"),
    Row("cluster/README.md", "export RAY_UP_enable", "elsewhere", "tests/cluster/test_networks.py"),
    Row("cluster/README.md", "ray get-auth-token", "checked", "needs an account with a cloud"),
    Row("cluster/README.md", "docker build", "checked", "needs Docker, a registry and Kubernetes with KubeRay"),
    Row("cluster/README.md", "sed 's|image", "checked", "needs Kubernetes with KubeRay"),
    Row("cluster/README.md", "sbatch", "checked", "needs Slurm"),
    Row("docs/commands.md", "fused-ray ls", "checked", "of results of your own"),
    Row("docs/commands.md", "name ", "printed"),
    Row("docs/configurations.md", "fused-ray run --set pretrain.from", "checked", "README.md has it, too"),
    Row("docs/audit.md", "fused-ray run --set 'audit.metrics", "checked", "tests/unit/audit take each of them"),
    Row(
        "docs/audit.md",
        "fused-ray run --set forget.scenario",
        "checked",
        "takes minutes; tests/unit/runs/test_audits.py",
    ),
    Row("docs/audit.md", "FAILS resurfacing", "printed", "by these commands"),
    Row("docs/extend.md", "pip install -e examples/plugin", "checked", f"{_INSTALLS}; examples/plugin/tests run it"),
    Row("docs/extend.md", "from fused_ray.api import FullTraining", "runs"),
    Row("docs/extend.md", "from fused_ray.api import Arrays", "runs"),
    Row("docs/extend.md", "fused-ray run --set 'audit.metrics", "checked", "examples/plugin/tests run it"),
    Row("docs/extend.md", "fused-ray run --set 'output.callbacks", "checked", "examples/plugin/tests run it"),
    Row("docs/extend.md", "fused-ray run --set unlearn.mask", "checked", "examples/plugin/tests run it"),
    Row("docs/data.md", "import io", "runs"),
    Row("docs/data.md", "# shapes.yaml", "runs"),
    Row("docs/data.md", "fused-ray data shapes.yaml\n", "runs"),
    Row("docs/data.md", "# from pictures/", "elsewhere", "tests/end_to_end/test_own_data.py"),
    Row("docs/data.md", "import numpy", "runs"),
    Row("docs/data.md", "fused-ray data --set data.name=npz", "runs"),
    Row("docs/data.md", "from pathlib import Path\n\nPath(", "runs"),
    Row("docs/data.md", "fused-ray data shapes.yaml --set", "runs"),
    Row("docs/clusters.md", "fused-ray plan --cluster", "runs"),
    Row("docs/clusters.md", "fused-ray run --set engine.address", "checked", "joins a cluster"),
    Row("docs/clusters.md", ".venv/bin/pytest -m slow", "checked", "makes a network, as root"),
    Row("docs/anew.md", "fused-ray audit runs/backdoor", "checked", "trains for minutes"),
    Row("docs/anew.md", "fused-ray run --set unlearn.method=finetune", "checked", "trains for minutes"),
    Row("docs/depth.md", "python benchmarks/depth.py", "checked", _HOURS),
    Row("docs/security.md", "fused-ray run --set forget", "checked", "README.md has its like"),
    Row("docs/security.md", "python benchmarks/giveaway.py", "checked", "trains for minutes"),
    Row("docs/deployment.md", "# phones.yaml", "runs"),
    Row("docs/deployment.md", "fused-ray run phones.yaml", "runs"),
    Row("docs/deployment.md", "# some-phones.yaml", "runs"),
    Row("docs/deployment.md", "fused-ray run some-phones.yaml", "runs"),
    Row("docs/deployment.md", "python benchmarks/deployments.py", "checked", _HOURS),
    Row("docs/scaling.md", "fused-ray scale examples/scale.yaml", "checked", "README.md has it, too"),
    Row("docs/scaling.md", "# mine.yaml", "runs"),
    Row("docs/scaling.md", "fused-ray scale mine.yaml", "runs"),
    Row("docs/live.md", "fused-ray watch runs/demo", "checked", "README.md has the run"),
    Row("docs/live.md", "pip install", "checked", "tests/end_to_end/test_trackers.py"),
    Row("docs/first-run.md", "fused-ray run examples/demo.yaml", "checked", "README.md has it, too"),
    Row("docs/first-run.md", "forget:", "printed", "a part of examples/demo.yaml; test_first_contact.py compares"),
    Row("docs/first-run.md", "note: 2 worker(s)", "printed"),
    Row("docs/first-run.md", "Verdict: forgotten", "printed"),
    Row("docs/first-run.md", "Forgetting class 0", "printed"),
    Row("docs/troubleshooting.md", "$ fused-ray run --set unlearn.round", "printed"),
    Row("docs/report.md", "fused-ray report RUN", "checked", "of results of your own"),
    Row("docs/report.md", "fused-ray report runs/demo", "checked", "README.md has it, too"),
    Row("docs/export.md", "fused-ray export runs/demo", "elsewhere", "tests/end_to_end/test_export.py"),
    Row("docs/export.md", "import torch", "elsewhere", "tests/end_to_end/test_export.py"),
    Row("docs/export.md", "fused-ray run --set unlearn.adapter=lora", "elsewhere", "tests/end_to_end/test_export.py"),
    Row("docs/export.md", "from peft", "elsewhere", "tests/end_to_end/test_export.py"),
    Row("docs/export.md", "python examples/flower_bridge", "elsewhere", "tests/end_to_end/test_flower_bridge.py"),
    Row("docs/participation.md", "# fewer.yaml", "runs"),
    Row("docs/participation.md", "fused-ray run fewer.yaml", "runs"),
    Row("docs/participation.md", "fused-ray compare examples/participation.yaml --set base.unlearn", "checked", _HOURS),
    Row("docs/participation.md", "fused-ray compare examples/participation.yaml --set base.data", "checked", _HOURS),
    Row("docs/comparison.md", "fused-ray compare --preset paper-fashion-mnist", "checked", _HOURS),
    Row("docs/participation.md", "fused-ray compare examples/little-data.yaml", "checked", _HOURS),
    Row("docs/models.md", "# mynets.py", "runs"),
    Row("docs/models.md", "fused-ray run --set model.factory=mynets", "runs"),
    Row(
        *("docs/models.md", "import torch", "runs"),
        instead={
            'weights="DEFAULT"': "weights=None",
            # PyPI's torchvision cannot be imported by itself beside a CPU build of torch
            "from torchvision.models import resnet18": "from fused_ray.models.resnet import resnet\n"
            "resnet18 = resnet.resnet18",
        },
    ),
    Row("docs/models.md", "fused-ray run --set model.name=resnet18-imagenet", "checked", "downloads CIFAR-10"),
    Row("docs/models.md", "# staged.py", "runs"),
    Row("docs/models.md", "fused-ray run --set model.factory=staged", "runs"),
    Row("docs/models.md", "SLICE=", "checked", _HOURS),
    Row("docs/storage.md", "pip install", "checked", "needs a bucket: tests/end_to_end/test_s3.py has an emulation"),
    Row("docs/sweeps.md", "fused-ray plan examples", "runs"),
    Row(
        *("docs/sweeps.md", "from ray import tune", "runs"),
        instead={"RunConfig()": f"RunConfig.from_dict({{}}, {_PLAIN})", "samples=3": "samples=1"},
    ),
    Row("docs/sweeps.md", "# my-sweep.yaml", "runs"),
    Row("docs/sweeps.md", "fused-ray init my-run.yaml", "runs"),
)


def row_of(block: Block) -> Row:
    """The block's row. Raises AssertionError if there is not exactly one."""
    rows = [row for row in ROWS if row.page == block.page and block.text.startswith(row.begins)]
    assert len(rows) == 1, f"{block} has {len(rows)} rows in tests/docs/table.py"
    return rows[0]

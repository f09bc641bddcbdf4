"""The rules of the house that a reader of one file cannot see: who may import whom, and what nobody may call.

Every check is a function from a folder (which holds ``fused_ray/``) to a list of complaints. It is run on this
repository, where it must find nothing, and on a small wrong program, where it must find that.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Check = Callable[[Path], list[str]]

# Which rooms (packages, or modules at the top) each room may import. A new room needs a line here.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "seeding": set(),
    "stopping": {"errors"},
    "types": {"seeding"},
    "pages": set(),
    "config": {"errors"},
    "data": {"config", "errors", "seeding", "types"},
    "models": {"config", "data", "errors", "seeding"},
    "core": {"config", "errors", "models", "seeding", "types"},
    "audit": {"config", "core", "data", "errors", "models", "seeding", "types"},
    "storage": {"config", "core", "errors", "types"},
    "engine": {"config", "core", "errors", "models", "stopping", "storage", "types"},
}
MAY_IMPORT["runs"] = {*MAY_IMPORT} - {"runs"}
MAY_IMPORT["studies"] = {*MAY_IMPORT} - {"studies"}
MAY_IMPORT["api"] = {"audit", "config", "core", "data", "errors", "runs", "seeding", "types"}
MAY_IMPORT["__init__"] = {"config", "errors", "runs", "studies"}
MAY_IMPORT["cli"] = {"__init__", "config", "data", "errors", "runs", "stopping", "storage", "studies"}
MAY_IMPORT["__main__"] = {"cli"}
RAY = ("fused_ray/engine/", "fused_ray/studies/tune/")
"""The only places that import Ray: the engine, and what lets Tune run a sweep's trials."""
LONGEST_MODULE, LONGEST_FUNCTION = 400, 50
"""Lines."""

# Calls that draw from or seed a generator that all of a process shares.
TORCH_SEEDS = {"torch.manual_seed", "torch.seed", "torch.set_rng_state"}
TORCH_DRAWS = {
    f"torch.{name}"
    for name in (
        *("bernoulli", "multinomial", "normal", "poisson", "rand", "rand_like"),
        *("randint", "randint_like", "randn", "randn_like", "randperm"),
    )
}
DRAWS_IN_PLACE = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "normal_", "random_", "uniform_"}
PICKLES = {"pickle", "_pickle", "cloudpickle", "ray.cloudpickle", "dill", "joblib", "marshal", "shelve"}


# --- reading source --------------------------------------------------------------------------------------


class Source:
    """One file: its tree, and what the names in it stand for."""

    def __init__(self, root: Path, path: Path) -> None:
        self.name = path.relative_to(root).as_posix()
        self.tree = ast.parse(path.read_text(encoding="utf-8"), self.name)
        self.imports: list[tuple[int, str]] = []
        """Line and dotted name of everything imported, `from a import b` as `a.b`."""
        self.names: dict[str, str] = {}
        """Local name -> dotted name of what it was bound to by an import."""
        package = path.relative_to(root).with_suffix("").parts[:-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports.append((node.lineno, alias.name))
                    bound = alias.asname or alias.name.split(".")[0]
                    self.names[bound] = alias.name if alias.asname else bound
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                module = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    self.imports.append((node.lineno, f"{module}.{alias.name}"))
                    self.names[alias.asname or alias.name] = f"{module}.{alias.name}"

    def dotted(self, node: ast.AST) -> str | None:
        """The full name of `a.b.c` if `a` was imported, else None."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute) and (head := self.dotted(node.value)) is not None:
            return f"{head}.{node.attr}"
        return None

    def uses(self) -> Iterator[tuple[int, str]]:
        """Line and full name of every imported name and every attribute of one."""
        yield from self.imports
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Name, ast.Attribute)) and (name := self.dotted(node)) is not None:
                yield node.lineno, name


def sources(root: Path, *folders: str) -> Iterator[Source]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield Source(root, path)


def is_or_below(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def layer(root: Path, name: str) -> str:
    """The part of the package that a dotted name `fused_ray...` belongs to."""
    parts = name.split(".")
    if len(parts) > 1:
        below = root / "fused_ray" / parts[1]
        if below.is_dir() or below.with_suffix(".py").is_file() or parts[1] in MAY_IMPORT:
            return parts[1]
    return "__init__"  # a name that the package itself exports


# --- the checks ------------------------------------------------------------------------------------------


def ray_outside_engine(root: Path) -> list[str]:
    """Only the places of `RAY` import Ray, so everything else can be read, tested and used without it."""
    return [
        f"{source.name}:{line}: imports {name}"
        for source in sources(root, "fused_ray")
        if not source.name.startswith(RAY)
        for line, name in source.imports
        if is_or_below(name, "ray")
    ]


def imports_upwards(root: Path) -> list[str]:
    """Dependencies point one way, those for type checkers included."""
    found = []
    for source in sources(root, "fused_ray"):
        own = Path(source.name).with_suffix("").parts[1]
        if own not in MAY_IMPORT:
            found.append(f"{source.name}: {own} has no place in MAY_IMPORT yet")
            continue
        for line, name in source.imports:
            if is_or_below(name, "fused_ray") and (target := layer(root, name)) not in {own, *MAY_IMPORT[own]}:
                found.append(f"{source.name}:{line}: {own} must not import {target}")
    return found


def private_ray(root: Path) -> list[str]:
    """Only public Ray APIs: the private ones change with every release."""
    found = set()
    for source in sources(root, "fused_ray", "cluster", "benchmarks"):
        for line, name in source.uses():
            private = [part for part in name.split(".") if part.startswith("_") and not part.endswith("__")]
            if is_or_below(name, "ray") and private:
                found.add(f"{source.name}:{line}: {name} is private to Ray")
        for node in ast.walk(source.tree):  # importlib.import_module("ray._private...")
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if re.match(r"ray(\.\w+)*\._[a-z]", text):
                found.add(f"{source.name}:{node.lineno}: {text} is private to Ray")
    return sorted(found)


def unseeded_randomness(root: Path) -> list[str]:
    """Randomness comes from `fused_ray.seeding` alone; models may draw their initial weights."""
    found = set()
    for source in sources(root, "fused_ray"):
        if source.name == "fused_ray/seeding.py" or source.name.startswith("fused_ray/models/"):
            continue
        for line, name in source.uses():
            # Generator alone is allowed: it is the type of a parameter, and makes nothing without a bit generator.
            numpy = is_or_below(name, "numpy.random") and name not in ("numpy.random", "numpy.random.Generator")
            torch = name in TORCH_SEEDS or name.startswith(("torch.random.", "torch.cuda.manual_seed"))
            if numpy or torch or is_or_below(name, "random"):
                found.add(f"{source.name}:{line}: {name}; use fused_ray.seeding")
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call) or any(keyword.arg == "generator" for keyword in node.keywords):
                continue
            name = source.dotted(node.func) or ""
            in_place = isinstance(node.func, ast.Attribute) and node.func.attr in DRAWS_IN_PLACE
            if name in TORCH_DRAWS or in_place or name.startswith("torch.nn.init."):
                found.add(f"{source.name}:{node.lineno}: {ast.unparse(node.func)} without generator=")
    return sorted(found)


def unpickling(root: Path) -> list[str]:
    """Nothing that is loaded can run code."""
    found = set()
    for source in sources(root, "fused_ray"):
        for line, name in source.uses():
            module, _, attribute = name.rpartition(".")
            reads = module in PICKLES and attribute in ("load", "loads", "open", "Unpickler")
            if reads or name == "torch.load":
                found.add(f"{source.name}:{line}: {name} can run code")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                    if keyword.arg == "allow_pickle" and not allowed:
                        found.add(f"{source.name}:{node.lineno}: allow_pickle can run code")
    return sorted(found)


def cycles(root: Path) -> list[str]:
    """No module imports one that imports it, over however many others, for type checkers either."""
    modules = {source.name: source for source in sources(root, "fused_ray")}
    names = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in modules}
    arrows: dict[str, set[str]] = {}
    for name, source in modules.items():
        targets = {names.get(found) or names.get(found.rpartition(".")[0]) for _, found in source.imports}
        # a package's own names are imported from it by all of its modules: it is no module of theirs
        arrows[name] = {target for target in targets - {name, None} if target and not target.endswith("__init__.py")}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> list[str]:
        if name in path:
            return [f"{name}: imports itself by {' -> '.join(path[path.index(name) :])}"]
        if name in done:
            return []
        found = [complaint for target in sorted(arrows[name]) for complaint in walk(target, (*path, name))]
        done.add(name)
        return found

    return [complaint for name in sorted(arrows) for complaint in walk(name, ())]


def named_as_a_function(root: Path) -> list[str]:
    """No module has the name of a public function: `fused_ray.run` is one thing."""
    start = Source(root, root / "fused_ray" / "__init__.py")
    froms = (node for node in ast.walk(start.tree) if isinstance(node, ast.ImportFrom))
    public = {alias.asname for node in froms for alias in node.names if alias.asname}
    return [
        f"{source.name}: {name} is a public name"
        for source in sources(root, "fused_ray")
        for name in Path(source.name).with_suffix("").parts
        if name in public
    ]


def too_long(root: Path) -> list[str]:
    """A module and a function fit what one reads at a time."""
    found = []
    for source in sources(root, "fused_ray"):
        lines = len((root / source.name).read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_MODULE:
            found.append(f"{source.name}: {lines} lines")
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                if (length := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION:
                    found.append(f"{source.name}:{node.lineno}: {node.name} has {length} lines")
    return found


CHECKS: list[Check] = [
    *(ray_outside_engine, imports_upwards, private_ray, unseeded_randomness, unpickling),
    *(cycles, named_as_a_function, too_long),
]


# --- on this repository ----------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_the_package_keeps_the_rule(check: Check) -> None:
    assert any(sources(ROOT, "fused_ray"))
    assert check(ROOT) == []


def loaded_by(statements: str, *watched: str) -> set[str]:
    """Which of the watched modules a fresh interpreter has loaded after these statements."""
    program = f"{statements}\nimport sys\nprint(*(name for name in {watched!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["fused_ray", "fused_ray.config", "fused_ray.cli.app", "fused_ray.studies.watching"])
def test_the_command_line_starts_without_torch_and_ray(module: str) -> None:
    assert loaded_by(f"import {module}", "torch", "ray") == set()


def test_core_runs_without_ray() -> None:
    """The imports of imports count too, so the check on source is not enough."""
    everything = (
        "import importlib, pkgutil, fused_ray.core as core\n"
        "for found in pkgutil.walk_packages(core.__path__, 'fused_ray.core.'): importlib.import_module(found.name)"
    )
    assert loaded_by(everything, "ray", "fused_ray.engine") == set()


def test_a_loaded_module_is_seen() -> None:
    assert loaded_by("import json", "json", "ray") == {"json"}


# --- on wrong programs -----------------------------------------------------------------------------------

WRONG: list[tuple[Check, str, str]] = [
    (ray_outside_engine, "core/rounds.py", "import ray"),
    (ray_outside_engine, "types.py", "from ray import ObjectRef"),
    (ray_outside_engine, "runs/log.py", "def write():\n    import ray.util.metrics as metrics"),
    (imports_upwards, "core/rounds.py", "from fused_ray.engine.pool import RayPool"),
    (imports_upwards, "core/rounds.py", "from fused_ray import runs"),
    (imports_upwards, "core/methods/fused.py", "from ...engine import pool"),
    (imports_upwards, "core/rounds.py", "from fused_ray.audit import accuracy"),
    (imports_upwards, "data/load.py", "import fused_ray.models.lenet"),
    (imports_upwards, "models/lenet.py", "from ..core import training"),
    (imports_upwards, "errors.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fused_ray.runs"),
    (imports_upwards, "engine/driver.py", "from fused_ray import run"),
    (imports_upwards, "runs/start.py", "from fused_ray.cli.app import main"),
    (imports_upwards, "runs/start.py", "from fused_ray.studies.sweeps import plan"),
    (imports_upwards, "core/rounds.py", "from fused_ray import RunConfig"),
    (imports_upwards, "helpers.py", ""),
    (private_ray, "engine/pool.py", "import ray._private.services"),
    (private_ray, "engine/pool.py", "from ray import _raylet"),
    (private_ray, "engine/pool.py", "from ray._private import services"),
    (private_ray, "engine/pool.py", "import ray\nray._private.worker.global_worker"),
    (private_ray, "engine/pool.py", "from ray import tune as t\nt.Tuner()._local_tuner\nt.execution._x"),
    (private_ray, "engine/pool.py", "import importlib\nimportlib.import_module('ray._private.state')"),
    (private_ray, "../benchmarks/bench.py", "from ray._private.test_utils import wait"),
    (private_ray, "../cluster/job.py", "import ray._raylet as raylet"),
    (unseeded_randomness, "core/masks.py", "import numpy as np\nnp.random.default_rng(0)"),
    (unseeded_randomness, "core/masks.py", "from numpy.random import PCG64"),
    (unseeded_randomness, "core/masks.py", "from numpy import random as r\nr.shuffle([1])"),
    (unseeded_randomness, "core/masks.py", "import random"),
    (unseeded_randomness, "core/masks.py", "from random import shuffle"),
    (unseeded_randomness, "core/masks.py", "import torch\ntorch.manual_seed(0)"),
    (unseeded_randomness, "engine/client.py", "import torch\ntorch.cuda.manual_seed_all(0)"),
    (unseeded_randomness, "core/masks.py", "import torch\ntorch.randn(3)"),
    (unseeded_randomness, "core/masks.py", "from torch import randperm as shuffled\nshuffled(3)"),
    (unseeded_randomness, "core/masks.py", "def fill(x):\n    x.normal_()"),
    (unseeded_randomness, "core/masks.py", "from torch import nn\nnn.init.zeros_(x)"),
    (unpickling, "runs/load.py", "import torch\ntorch.load('x')"),
    (unpickling, "runs/load.py", "from torch import load"),
    (unpickling, "runs/load.py", "import pickle as p\np.loads(b'')"),
    (unpickling, "runs/load.py", "from ray.cloudpickle import loads"),
    (unpickling, "runs/load.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (cycles, "core/rounds.py", "from fused_ray.core import rounds_too"),
    (
        cycles,
        "core/rounds.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fused_ray.core.rounds_too import x",
    ),
    (named_as_a_function, "runs/sweep.py", ""),
    (named_as_a_function, "sweep/start.py", ""),
    (too_long, "core/rounds.py", "x = 1\n" * 401),
    (too_long, "core/rounds.py", "def f():\n" + "    x = 1\n" * 50),
]


def write(root: Path, name: str, text: str) -> None:
    path = (root / "fused_ray" / name).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("check", "name", "text"), WRONG)
def test_a_violation_is_caught(tmp_path: Path, check: Check, name: str, text: str) -> None:
    write(tmp_path, "__init__.py", "from fused_ray.studies.start import sweep as sweep")
    write(tmp_path, "core/rounds_too.py", "from fused_ray.core import rounds\nx = rounds")
    write(tmp_path, name, text)
    complaints = check(tmp_path)
    assert complaints
    assert all(complaint.startswith((f"fused_ray/{name}", name.removeprefix("../"))) for complaint in complaints)


def test_what_is_allowed_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "__init__.py", "def run():\n    from fused_ray.runs.start import run")
    write(tmp_path, "cli/app.py", "from fused_ray import RunConfig, run\nfrom fused_ray.errors import FusedRayError")
    write(tmp_path, "seeding.py", "import numpy as np\nnp.random.PCG64(0)")
    write(tmp_path, "models/lenet.py", "import torch\ntorch.nn.init.zeros_(torch.empty(1))\ntorch.randn(1)")
    write(tmp_path, "engine/pool.py", "import ray\nfrom ..core import rounds\nray.get(ray.put(ray.__version__))")
    write(
        tmp_path,
        "core/masks.py",
        "import numpy as np\nimport torch\nfrom fused_ray.seeding import generator\nfrom . import layers\n"
        "def draw(rng: np.random.Generator, g: torch.Generator):\n"
        "    rng.normal(); torch.randn(3, generator=g); self._private; np.load('x', allow_pickle=False)",
    )
    assert [check(tmp_path) for check in CHECKS] == [[]] * len(CHECKS)

"""What surrounds a run: settings and generators of the process, its user, its environment. None of it changes a run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fused_ray import FusedRayError, RunConfig, run
from fused_ray.core.numerics import fingerprint
from fused_ray.core.standard import standard
from fused_ray.engine.client import ClientActor

SMALL = [
    *("federation.clients=2", "data.limit=200", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1"),
    *("unlearn.layers=1", "output.plots=none", "audit.enabled=false", "engine.backend=local"),
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def facts(*fields: str) -> dict[str, Any]:
    """What a small run comes to."""
    folder = f"run-{len(list(Path().glob('run-*')))}"
    result = run(RunConfig.from_dict({}, [*SMALL, *fields, f"output.dir={folder}"]))
    return {name: result[name] for name in ("hash", "metrics", "adapter", "numerics")}


# -- PyTorch's settings -------------------------------------------------------------------------------------


def turned(write: Callable[[Any], object], value: Any, back: Any) -> Callable[[], AbstractContextManager[Any]]:
    """A setting that a caller made, and that the test takes back."""

    @contextlib.contextmanager
    def change() -> Iterator[None]:
        write(value)
        try:
            yield
        finally:
            write(back)

    return change


def part(name: str) -> Callable[[str], None]:
    """The precision of a kind of CPU kernel by its newer name."""
    return lambda value: setattr(getattr(torch.backends.mkldnn, name), "fp32_precision", value)


def flag(owner: Any, name: str) -> Callable[[bool], None]:
    return lambda value: setattr(owner, name, value)


BACKENDS = torch.backends
ATTENTION = [
    kind for kind in ("flash", "mem_efficient", "math", "cudnn") if hasattr(BACKENDS.cuda, f"enable_{kind}_sdp")
]
CALLERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "double": turned(torch.set_default_dtype, torch.float64, torch.float32),
    "device": lambda: torch.device("meta"),
    "default device": turned(torch.set_default_device, "meta", None),
    "no gradient": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "products": turned(torch.set_float32_matmul_precision, "medium", "highest"),
    "new names": turned(part("matmul"), "bf16", "ieee"),
    "convolutions": turned(part("conv"), "bf16", "none"),
    "deterministic": turned(torch.set_deterministic_debug_mode, "error", "default"),
    "flushed": turned(torch.set_flush_denormal, True, False),
    "threads": turned(torch.set_num_threads, 2, torch.get_num_threads()),
    "kernels": turned(flag(BACKENDS.mkldnn, "enabled"), False, True),
    "fast path": turned(BACKENDS.mha.set_fastpath_enabled, False, True),
    "benchmark": turned(flag(BACKENDS.cudnn, "benchmark"), True, False),
    "convolutions of cards": turned(lambda name: setattr(BACKENDS.cudnn.conv, "fp32_precision", name), "ieee", "tf32"),
    **{kind: turned(getattr(BACKENDS.cuda, f"enable_{kind}_sdp"), False, True) for kind in ATTENTION},
}


def settings() -> dict[str, Any]:
    """All of those settings, as a computation meets them."""
    made = torch.zeros(1)
    precision = {name: getattr(torch.backends.mkldnn, name).fp32_precision for name in ("matmul", "conv")}
    try:
        named = torch.get_float32_matmul_precision()
    except RuntimeError:
        named = "by its newer names"
    cards = {name: getattr(BACKENDS.cudnn, name).fp32_precision for name in ("conv", "rnn")}
    return {
        "kernels": (BACKENDS.mkldnn.enabled, BACKENDS.mha.get_fastpath_enabled()),
        "attention": {kind: getattr(BACKENDS.cuda, f"{kind}_sdp_enabled")() for kind in ATTENTION},
        "cards": (BACKENDS.cudnn.benchmark, {name: found for name, found in cards.items() if found == "tf32"}),
        "dtype": torch.get_default_dtype(),
        "device": made.device.type,
        "gradient": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "precision": (named, {name: found for name, found in precision.items() if found not in ("none", "ieee")}),
        "deterministic": torch.get_deterministic_debug_mode(),
        "flushed": bool(torch.full((1,), 2.0**-126, dtype=torch.float32, device="cpu").mul(0.5).item() == 0),
        "threads": torch.get_num_threads(),
    }


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The settings that results are computed under."""
    with standard():
        return settings()


@pytest.mark.parametrize("caller", CALLERS)
def test_a_callers_setting_is_set_aside_and_given_back(caller: str, plain: dict[str, Any]) -> None:
    assert plain["threads"] == 1
    with CALLERS[caller]():
        before = settings()
        assert before != plain, "the caller's setting is seen"
        with standard():
            assert settings() == plain
            with standard():
                assert settings() == plain
        assert settings() == before
        with contextlib.suppress(ZeroDivisionError), standard():
            raise ZeroDivisionError
        assert settings() == before


def test_a_run_has_the_same_bits_under_any_settings() -> None:
    expected = facts()
    for callers in (("double", "inference", "autocast", "products"), ("default device", "no gradient", "flushed")):
        with ExitStack() as changed:
            for caller in callers:
                changed.enter_context(CALLERS[caller]())
            before = settings()
            assert facts() == expected
            assert settings() == before
            with pytest.raises(FusedRayError, match="training changed nothing"):
                facts("unlearn.lr=1e-12")
            assert settings() == before


def test_an_actor_computes_under_the_same_settings(plain: dict[str, Any]) -> None:
    """The module of a model may change them when it is imported, in an actor as well."""
    seen = []

    class Space:
        def base_hashes(self) -> list[str]:
            seen.append(settings())
            return []

    actor = ClientActor.__new__(ClientActor)
    actor._space = Space()  # type: ignore[assignment]
    with CALLERS["double"](), CALLERS["products"]():
        actor.base_hashes()
    assert seen == [plain]
    undecorated = [n for n, f in vars(ClientActor).items() if n[0] != "_" and not hasattr(f, "__wrapped__")]
    assert undecorated == []


@pytest.mark.parametrize("caller", ["kernels", "flash"])
def test_the_kernels_that_a_caller_chose_change_no_bits(caller: str) -> None:
    with standard():
        expected = fingerprint()
    with CALLERS[caller](), standard():
        assert fingerprint() == expected


# -- the numeric fingerprint --------------------------------------------------------------------------------


def attention_gradient() -> bytes:
    q, k, v = ((torch.arange(4 * 3 * 17 * 32) % (7 + i) / 7 - 0.5).reshape(4, 3, 17, 32) for i in range(3))
    q.requires_grad_()
    F.scaled_dot_product_attention(q, k, v).square().sum().backward()
    assert q.grad is not None
    return q.grad.numpy().tobytes()


def test_the_fingerprint_covers_attention_and_the_precision_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    with standard():
        exact, known = attention_gradient(), fingerprint()
        with CALLERS["products"]():  # on a processor with products in bfloat16, both change
            assert (attention_gradient() == exact) == (fingerprint() == known)
        right = F.scaled_dot_product_attention
        monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *given: right(*given) * (1 + 2**-20))
        assert fingerprint() != known


STEP = """
import hashlib, torch
torch.set_num_threads(1)
from fused_ray import models
from fused_ray.config import ModelConfig
from fused_ray.core.numerics import fingerprint
found = [fingerprint()]
for name in ("lenet", "resnet18", "simplevit"):
    model = models.build(ModelConfig(name=name), (3, 32, 32), 10).to(memory_format=torch.channels_last)
    x = torch.linspace(-1, 1, 16 * 3072).reshape(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    torch.nn.functional.cross_entropy(model(x), torch.arange(16) % 10).backward()
    found.append(hashlib.sha256(b"".join(p.grad.numpy().tobytes() for p in model.parameters())).hexdigest())
print(*found)
"""


@pytest.mark.slow
def test_the_fingerprint_tells_instruction_sets_apart() -> None:
    """Wherever a model's gradients have other bits, the fingerprint is another one, and nowhere else."""
    found = []
    for isa in ("DEFAULT", "AVX512_CORE", "AVX2", "AVX", "SSE41"):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
        done = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True)
        known, *gradients = done.stdout.split()
        found.append((known, gradients))
    for one, other in itertools.combinations(found, 2):
        assert (one[0] == other[0]) == (one[1] == other[1])


# -- generators that all of a process shares ----------------------------------------------------------------

DRAWING = """
import random
import numpy as np
from torch import nn

def model(shape, classes):
    wide = nn.Linear(shape[0] * shape[1] * shape[2], classes)
    wide.weight.data *= random.random() + np.random.rand()
    return nn.Sequential(nn.Flatten(), wide)
"""


def test_a_model_that_is_made_from_them_has_the_same_bits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("drawing.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(".")
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        expected = random.Random(seed).random()
        found.append(facts("model.factory=drawing:model"))
        assert random.random() == expected
    assert found[0] == found[1]


# -- the user and the environment ---------------------------------------------------------------------------

NOBODY = """
import os, pwd, sys
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
def unknown(*_):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = pwd.getpwnam = unknown

import random
import numpy as np
import torch

def states():
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), keys.tobytes(), rest, torch.get_rng_state().numpy().tobytes()

before = states()
import fused_ray
assert states() == before, "the import moved a global generator"
try:
    fused_ray.run(fused_ray.RunConfig.from_dict({}, sys.argv[1:]))
except fused_ray.FusedRayError as error:
    sys.exit(f"refused: {error}")
assert states() == before, "the run moved a global generator"
"""


def nobody(*fields: str) -> subprocess.CompletedProcess[str]:
    """A run by a user without a home folder, a name, or an entry among the users, with a notebook's MPLBACKEND.

    In a process of its own: libraries draw when they are imported, from generators that all of a process shares.
    """
    environment = {k: v for k, v in os.environ.items() if k != "MPLCONFIGDIR"} | {"MPLBACKEND": "module://not.there"}
    command = [sys.executable, "-c", NOBODY, *SMALL, *fields]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_user_without_home_or_name_an_unusable_mplbackend_and_global_generators(tmp_path: Path, backend: str) -> None:
    done = nobody("output.plots=png", "audit.enabled=true", "output.dir=run", f"engine.backend={backend}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run/plots/accuracy.png").stat().st_size > 0
    assert json.loads((tmp_path / "run/result.json").read_text())["reversible"]


@pytest.mark.slow
def test_a_user_without_home_cannot_download() -> None:
    done = nobody("data.name=mnist", "output.dir=run")
    assert "refused: MNIST is not on this machine, and there is no home folder to keep it" in done.stderr
    assert not Path("run").exists()


BACKEND = """
import os, sys
from fused_ray.runs import figures
figures.load()
import matplotlib
print(os.environ["MPLBACKEND"], matplotlib.rcParams["backend"])
"""


def test_a_backend_that_is_there_stays_the_callers() -> None:
    environment = os.environ | {"MPLBACKEND": "svg"}
    done = subprocess.run([sys.executable, "-c", BACKEND], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["svg", "svg"]
